"""Photographs in rows, each with its score and votes, and panels beside it that explain them."""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.ticker import MaxNLocator
from PIL.Image import Image
from torch import Tensor

from eat.checkpoint import CheckpointInfo
from eat.data.colours import in_srgb
from eat.data.crops import as_crop
from eat.data.decoding import Decoded
from eat.data.scales import ScoreScale, mean_scores
from eat.data.transforms import Photo
from eat.models.base import AestheticModel
from eat.pictures.saving import panel_height
from eat.scoring.lines import note_lines
from eat.scoring.scorer import ONE_TO_TEN
from eat.system.schema import check_range

Photos = str | Photo | Sequence[str | Photo]
log = logging.getLogger("eat")
MOST_PHOTOS = 24  # a row each
MOST_COLUMNS = 5  # with that of the photographs
LEAST_WIDTH = 1.0  # of a panel, in inches, as all below
WIDTHS = 2.0, 20.0  # of a sheet, least and most
GAP, TITLE, VOTES, FOOTER = 0.06, 0.2, 0.46, 0.36  # the footer is that of a bar of colours
DOTS = 300  # of a photograph, an inch
FOOTER_WIDTH = 3.3  # that its words need
SMALL, USUAL = 6, 7  # points of type
COLOURS = "inferno"  # also in grey the brighter the more
MOST_TIMES = 4.0  # the average is the last colour, in all figures
OPACITY = 0.8  # of that colour over a photograph


@dataclass(frozen=True)
class Seen:
    """A photograph as a model takes it, and what the model says of it.

    Attributes:
        image: RGB, shrunk to what a sheet needs.
        pixels: (1, 3, size, size), normalised, on the model's device.
        note: as ``Score.note``.
    """

    image: Image
    pixels: Tensor
    note: str


def read_photo(
    model: AestheticModel, info: CheckpointInfo, photo: str | Photo, width: float
) -> Seen:
    """Read a photograph once, for the model and for a panel of a sheet.

    Raises:
        ImageError: it cannot be read.
    """
    kept: list[Image] = []
    notes: list[str] = []
    most = math.ceil(width * DOTS)

    def keep(decoded: Decoded) -> None:
        image = decoded.image().copy()  # as its memory may be that of the decoder
        image.thumbnail((most, most))
        kept.append(in_srgb(image, decoded.transform))

    given = (as_crop(photo) or Path(photo)) if isinstance(photo, str) else photo
    pixels = info.preprocessing.evaluation(given, keep, notes.append)[None]
    pixels = info.preprocessing.normalise(pixels.to(next(model.parameters()).device))
    return Seen(kept[0], pixels, "; ".join(notes))


def read_photos(
    model: AestheticModel, info: CheckpointInfo, photos: Sequence[str | Photo], width: float
) -> list[Seen]:
    """Several photographs as by ``read_photo``; what is read in part is logged."""
    seen = [read_photo(model, info, photo, width) for photo in photos]
    for line in note_lines((str(p), one.note) for p, one in zip(photos, seen, strict=True)):
        log.warning(line)
    return seen


@dataclass(frozen=True)
class Verdict:
    """A model's score of a photograph in words and numbers.

    Attributes:
        title: its first target and the score from 1 to 10, as ``eat score`` gives it.
        score: that score.
        votes: predicted shares of the votes; none of a model of scores.
    """

    title: str
    score: float
    votes: tuple[float, ...]


def judge(outputs: Tensor, info: CheckpointInfo) -> Verdict:
    """The verdict from a model's outputs (1, K)."""
    numbers = outputs.detach().cpu().double().numpy()
    scales = dict.fromkeys(info.scales, ONE_TO_TEN)
    name, scores = next(iter(mean_scores(numbers, scales, info.scales).items()))
    score = float(scores[0])
    return Verdict(f"{name} {score:.2f}", score, tuple(numbers[0]) if info.num_votes else ())


class Page:
    """A figure whose places are in inches from its upper left corner, as on paper.

    Attributes:
        figure: the figure.
    """

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height))
        self.figure.set_layout_engine(PlaceHolderLayoutEngine(True, True))

    def share(self, left: float, top: float) -> tuple[float, float]:
        """A place as shares of the figure from its lower left corner."""
        return left / self.width, 1 - top / self.height

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes at a place."""
        x, y = self.share(left, top + height)
        return self.figure.add_axes((x, y, width / self.width, height / self.height))


class Sheet(Page):
    """A page of photographs in rows.

    Args:
        width: of the page.
        images: a photograph a row.
        verdicts: of the photographs.
        titles: of the panels beside each photograph.
        footer: height of a footer, which takes the room beside the last votes if it can.

    Attributes:
        panels: for each photograph, an empty panel for each title.
        side: width of a panel.
        footer: left, top and width of the footer.
    """

    def __init__(
        self,
        width: float,
        images: Sequence[Image],
        verdicts: Sequence[Verdict],
        titles: Sequence[str],
        footer: float = FOOTER,
    ) -> None:
        columns = columns_of(width, len(titles))
        self.side = side = panel_width(width, len(titles))
        lines = math.ceil(len(titles) / (columns - 1))
        highs = [panel_height(side, image) for image in images]
        votes = VOTES if any(verdict.votes for verdict in verdicts) else 0
        bands = [max(lines * (TITLE + high), TITLE + high + votes) + GAP for high in highs]
        spare = bands[-1] - lines * (TITLE + highs[-1]) - GAP  # below the panels of the last one
        left, height = GAP, footer
        if spare >= footer and width - side > FOOTER_WIDTH:
            left, height, footer = 2 * GAP + side, spare, 0
        super().__init__(width, sum(bands) + footer)
        self.footer = left, self.height - height + GAP, width - left - GAP
        self.panels: list[list[Axes]] = []
        for row, (image, verdict, high) in enumerate(zip(images, verdicts, highs, strict=True)):
            top = sum(bands[:row]) + TITLE
            axis = self.axes(GAP, top, side, high)
            show(axis, image)
            axis.set_title(verdict.title, fontsize=USUAL, pad=2, weight="bold")
            if verdict.votes:
                under = self.axes(GAP + 0.1 * side, top + high + 0.05, 0.8 * side, VOTES - 0.2)
                draw_votes(under, verdict)
            panels = []
            for place, title in enumerate(titles):
                line, column = divmod(place, columns - 1)
                left = GAP + (column + 1) * (side + GAP)
                panel = self.axes(left, top + line * (TITLE + high), side, high)
                panel.set_title(title, fontsize=USUAL, pad=2)
                panels.append(panel)
            self.panels.append(panels)

    def add_colour_bar(self, label: str, most: float = MOST_TIMES) -> None:
        """A bar of the colours of weights from 0 to ``most``, at the bottom of the footer."""
        left, _, width = self.footer
        axis = self.axes(left + width / 4, self.height - 0.2, width / 2, 0.07)
        colours = ScalarMappable(Normalize(0, most), COLOURS)
        extend = "max" if most == MOST_TIMES else "neither"
        bar = self.figure.colorbar(colours, cax=axis, orientation="horizontal", extend=extend)
        bar.locator = MaxNLocator(4)
        bar.ax.tick_params(labelsize=SMALL, length=2, pad=1)
        bar.ax.set_title(label, fontsize=SMALL, pad=2)


def as_list(photos: Photos) -> list[str | Photo]:
    """One photograph or several as a list."""
    if isinstance(photos, Iterable) and not isinstance(photos, str):
        return [*photos]
    return [photos]


def check_sheet(photos: Sequence[str | Photo], width: float) -> None:
    """Refuse, before a model runs, what no sheet can hold.

    Raises:
        ValueError: there are too many photographs, or ``width`` is out of range.
    """
    check_range("width", width, *WIDTHS)
    if len(photos) > MOST_PHOTOS:
        raise ValueError(
            f"found {len(photos)} photographs: expected at most {MOST_PHOTOS}, a row each"
        )


def columns_of(width: float, panels: int) -> int:
    """Columns of a sheet with so many panels beside each photograph."""
    return min(1 + panels, max(2, int(width / LEAST_WIDTH)), MOST_COLUMNS)


def panel_width(width: float, panels: int) -> float:
    """Width of a panel of such a sheet, the gaps left out."""
    columns = columns_of(width, panels)
    return (width - (columns + 1) * GAP) / columns


def draw_votes(axis: Axes, verdict: Verdict, scale: ScoreScale = ONE_TO_TEN) -> None:
    """Draw predicted votes as bars over the scores of a scale, with a line at their mean."""
    at = np.linspace(scale.low, scale.high, len(verdict.votes))
    axis.bar(at, verdict.votes, 0.8 * (at[1] - at[0]), color="0.55", edgecolor="0.2", linewidth=0.4)
    axis.axvline(verdict.score, color="black", linewidth=0.9)
    bounds = [scale.low, scale.high]
    axis.set_xticks(bounds, [f"{bound:g}" for bound in bounds], fontsize=SMALL)
    axis.set_xlabel("votes", fontsize=SMALL, labelpad=-6)
    axis.tick_params(length=2, pad=1)
    axis.set_yticks([])
    for side in ("left", "right", "top"):
        axis.spines[side].set_visible(False)


def show(axis: Axes, image: Image, weights: Tensor | None = None, most: float = MOST_TIMES) -> None:
    """Show a photograph; with weights (H, W) in grey, and as much colour over it as they are high.

    Args:
        most: the weight of the last colour.
    """
    whole = (0, image.width, image.height, 0)
    if weights is None:
        axis.imshow(image, extent=whole)
    else:
        axis.imshow(image.convert("L"), extent=whole, cmap="gray", vmin=0, vmax=255)
        opacity = OPACITY * (weights / most).clamp(0, 1).sqrt()
        axis.imshow(
            weights, extent=whole, cmap=COLOURS, alpha=opacity.numpy(), vmin=0, vmax=most,
            interpolation="bilinear",
        )  # fmt: skip
    axis.axis("off")
