"""A run's course and its predictions as pictures, which are read in grey too."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eat.config.run import METRICS
from eat.pictures.points import block_title
from eat.pictures.saving import save_figure
from eat.training.folder import SPLITS

MARKS = "osD^vPX*"  # of the lines of a panel, in their order
DASHES = ("solid", "dashed", "dotted")  # once the marks are used up
NAMES = {"srcc": "SRCC", "plcc": "PLCC"}  # of metrics, where a reader writes them otherwise


def draw_curves(run: str | Path, picture: str | Path) -> None:
    """Draw loss, correlations and the spread of points over a run's epochs, from metrics.jsonl."""
    lines = [json.loads(x) for x in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    table = pd.DataFrame(lines).astype({"epoch": int})
    health = [line.get("points") or {} for line in lines]
    figure = Figure(figsize=(15 if any(health) else 10, 4))
    left, right, *more = figure.subplots(1, 3 if any(health) else 2)
    left.plot(table["epoch"], table["train_loss"], marker="o")
    left.set(title="training", ylabel="mean loss of an image")
    named = [name for name in table if name.rpartition(".")[2] in METRICS]
    metrics = {metric_title(name): table[name].astype(float) for name in named}
    draw_lines(right, table["epoch"], metrics)
    split = SPLITS[table["split"].iloc[0]]
    right.set(title=f"{split} split", ylabel="correlation; share of images")
    for axis in more:
        spread = {
            block_title(block): [epoch.get(block, {}).get("points", math.nan) for epoch in health]
            for block in health[-1]
        }
        draw_lines(axis, table["epoch"], spread)
        axis.set(title="interest points of an image", ylim=(0, max(0.7, 1.1 * axis.get_ylim()[1])))
        axis.set_ylabel("deviation, in halves of the map's side")
    for axis in figure.axes:
        axis.set(xlabel="epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))  # there is no half epoch
        axis.grid(linewidth=0.3)
    save_figure(figure, picture)


def metric_title(name: str) -> str:
    """A metric as a reader writes it, after the target that it is of, if there are several."""
    target, _, metric = name.rpartition(".")
    return f"{target} {NAMES.get(metric, metric)}".strip()


def draw_lines(axis: Axes, x: Sequence[float], series: Mapping[str, Sequence[float]]) -> None:
    """Draw series by their names over x, told apart by their marks without colour too."""
    for place, (name, values) in enumerate(series.items()):
        again, mark = divmod(place, len(MARKS))
        axis.plot(x, values, label=name, marker=MARKS[mark], markersize=5,
                  linestyle=DASHES[again % len(DASHES)])  # fmt: skip
    axis.legend(fontsize=8, ncols=1 + len(series) // 10)


def draw_predictions(predictions: pd.DataFrame, picture: str | Path) -> None:
    """Draw predicted over rated scores of each target, as ``tabulate`` has them side by side."""
    places = [k for k, name in enumerate(predictions) if f".{name}".endswith(".predicted")]
    figure = Figure(figsize=(5 * len(places), 5))
    axes = np.ravel(figure.subplots(1, len(places)))
    for axis, place in zip(axes, places, strict=True):
        pair = predictions.iloc[:, [place - 1, place]].to_numpy()
        axis.scatter(*pair.T, s=8, alpha=0.5)
        axis.plot(*[[pair.min(), pair.max()]] * 2, color="black", linewidth=0.8, label="equal")
        name = predictions.columns[place - 1]
        axis.set(xlabel=f"rated {name}", ylabel=f"predicted {name}", aspect="equal")
        axis.set_title(f"{len(pair)} images", fontsize=10)
        axis.legend(fontsize=8, loc="upper left")
    save_figure(figure, picture)
