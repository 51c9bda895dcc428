"""Results of an experiment's rows as a picture, beside those that the paper prints."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill, wrap

import numpy as np
from matplotlib.figure import Figure

from eat.pictures.saving import save_for_paper

MOST_SLICES = 24  # in a picture
PANELS = 3  # beside each other
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "+++")  # of rows, told apart without colour too
NAME_WIDTH = 36  # characters of a row's name in a line
NOTE_WIDTH = 15  # characters of a note in a line, for each inch of the picture


@dataclass(frozen=True)
class Line:
    """A row of results.

    Attributes:
        values: SRCC of each seed.
        low: of its interval, as ``high``.
        published: SRCC in the paper.
        points: interest points of an image.
        others: of each seed, by their names: what is drawn beside SRCC.
        costs: for one image, by their names.
    """

    name: str
    values: list[float]
    low: float | None
    high: float | None
    published: float | None
    points: int | None
    others: dict[str, list[float]]
    costs: dict[str, float]


def draw_rows(
    lines: Sequence[Line], title: str, notes: Sequence[str], path: Path, over: str = "images"
) -> None:
    """Draw each row's SRCC, its seeds and its interval; beside it the paper's, on its own scale.

    What else was measured stands between the two. ``over`` says what the interval is taken over.
    """
    others = list(dict.fromkeys(name for line in lines for name in line.others))
    shown = any(line.published is not None for line in lines)
    panels = 1 + len(others) + shown
    wide = min(panels, PANELS)
    high = math.ceil(panels / wide)
    height = (1.2 + 0.3 * len(lines)) * high + 0.2 * len(notes)
    figure = Figure(figsize=(3 + 4 * wide, height))
    places = [figure.add_subplot(high, wide, place + 1) for place in range(panels)]
    own, *rest = places
    paper = rest[len(others) :]
    for y, line in enumerate(lines):
        if line.low is not None and line.high is not None:
            own.plot([line.low, line.high], [y, y], color="lightgrey", linewidth=5, zorder=0)
        columns = [line.values, *(line.others.get(name) for name in others)]
        for axis, values in zip((own, *rest), columns, strict=False):
            if values:
                axis.scatter(values, [y] * len(values), s=14, color="tab:blue")
                mean = sum(values) / len(values)
                axis.scatter(mean, y, marker="|", s=200, color="tab:blue")
        for axis in paper:
            if line.published is not None:
                axis.scatter(line.published, y, marker="D", color="tab:orange")
    for place, axis in enumerate(places):
        names = [fill(line.name, NAME_WIDTH) if place % wide == 0 else "" for line in lines]
        axis.set_yticks(range(len(lines)), names)
        axis.set_ylim(len(lines) - 0.5, -0.5)
        axis.grid(axis="x", linewidth=0.3)
    own.set(xlabel=f"SRCC: seeds, mean (bar), 95% over {over} (grey)")
    for axis, name in zip(rest, [*others, "SRCC in the paper"], strict=False):
        axis.set(xlabel=name)
    for axis in (own, *rest):
        axis.locator_params(axis="x", nbins=6)
    finish(figure, title, notes, path)


def draw_over_points(lines: Sequence[Line], title: str, notes: Sequence[str], path: Path) -> None:
    """Draw SRCC and costs over the number of interest points."""
    lines = sorted((line for line in lines if line.points), key=lambda line: line.points or 0)
    points = [line.points or 0 for line in lines]
    names = list(lines[0].costs) if lines else []
    figure = Figure(figsize=(4.5 * (1 + len(names)), 4 + 0.2 * len(notes)))
    quality, *rest = np.atleast_1d(figure.subplots(1, 1 + len(names)))
    for line, x in zip(lines, points, strict=True):
        if line.low is not None and line.high is not None:
            quality.plot([x, x], [line.low, line.high], color="lightgrey", linewidth=5, zorder=0)
        quality.scatter([x] * len(line.values), line.values, s=14, color="tab:blue")
    quality.plot(points, [sum(line.values) / len(line.values) for line in lines], color="tab:blue")
    quality.set(ylabel="SRCC: seeds, mean, 95% over images (grey)")
    for axis, name in zip(rest, names, strict=True):
        costs = [line.costs[name] for line in lines]
        axis.plot(points, costs, marker="o")
        axis.set(ylabel=name, ylim=(0, 1.2 * max(costs)))
    for axis in (quality, *rest):
        axis.set(xlabel="interest points")
    finish(figure, title, notes, path)


def draw_slices(
    rows: Mapping[str, Mapping[str, tuple[float, float]]],
    title: str,
    notes: Sequence[str],
    path: Path,
) -> None:
    """Draw, for each of the largest slices, a bar a row: its SRCC minus that of the whole split.

    Args:
        rows: by name, mean and deviation over seeds of each slice, the largest slice first.
    """
    names = list(dict.fromkeys(name for parts in rows.values() for name in parts))[:MOST_SLICES]
    width = 0.8 / len(rows)
    figure = Figure(figsize=(max(8, 0.8 + 0.5 * len(names)), 4 + 0.2 * len(notes)))
    axis = figure.subplots()
    for place, (row, parts) in enumerate(rows.items()):
        shown = [(x, *parts[name]) for x, name in enumerate(names) if name in parts]
        at, means, deviations = zip(*shown, strict=True) if shown else ((), (), ())
        left = [x + (place - (len(rows) - 1) / 2) * width for x in at]
        axis.bar(left, means, width, yerr=deviations, label=row, edgecolor="black", linewidth=0.5,
                 hatch=HATCHES[place % len(HATCHES)], error_kw={"linewidth": 0.8})  # fmt: skip
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    axis.set(ylabel="SRCC minus that of all images")
    axis.legend(fontsize=8)
    finish(figure, title, notes, path)


def finish(figure: Figure, title: str, notes: Sequence[str], path: Path) -> None:
    """Add the title, and the notes below, and write the picture as PNG and PDF."""
    figure.suptitle(title, fontsize=10)
    if notes:
        width = int(figure.get_figwidth() * NOTE_WIDTH)
        lines = [line for note in notes for line in wrap(note, width)]
        figure.supxlabel("\n".join(["reduced:", *lines]), fontsize=7)
    save_for_paper(figure, path)
