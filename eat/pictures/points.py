"""Pictures of the points that a model attends to in photographs."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import einsum, reduce
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from PIL import Image as images
from PIL.Image import Image
from PIL.ImageDraw import Draw
from torch import Tensor

from eat.checkpoint import CheckpointInfo
from eat.evaluation.saliency import bilinear_spread
from eat.models.base import AestheticModel, Record
from eat.pictures.saving import PRINT_DPI, check_picture, save_figure
from eat.pictures.sheet import (
    FOOTER,
    SMALL,
    Photos,
    Sheet,
    as_list,
    check_sheet,
    judge,
    panel_width,
    read_photos,
    show,
)
from eat.system.files import appearing_whole

MOST = 4  # blocks in a picture that shows a choice
# Parts of the names of blocks, as the papers say them.
PARTS = {"stages": "stage", "layers": "stage", "blocks": "block", "ps_layers": "layer"}
POINT, SAMPLE, MOVE = "#ffe14d", "white", "#8fe3ff"  # light marks, each within a dark outline
EVEN = 16.0  # area of a circle of average attention in a panel of SIDE, in square points
SIDE = 1.4  # width of a panel, in inches, that marks are made for
KEYS = {"sampled, average attention": 1.0, "4 times": 4.0}  # of the legend's circles
PAGE = 5.0  # inches from which on the legend is one line
LEGEND = {4: 0.18, 2: 0.34}  # height in inches, by columns
USUAL_COUNT = 49  # points of a panel that marks are made for
MOST_SCALE = 1.3  # of marks in a wide panel
NAME = 18  # pixels of a frame's name


def attended_positions(
    record: dict[str, Tensor], image: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The positions that each head samples in an image of a batch, and their attention.

    Returns:
        (heads, N, 2) positions as (y, x) in [-1, 1], equal for the heads of a group, and (heads, N)
        attention weights, the mean over queries.
    """
    positions = record["positions"][image].flatten(1, 2)  # (groups, N, 2)
    weights = record["attention"][image].mean(dim=1)  # (heads, N): the mean over queries
    positions = positions.repeat_interleave(len(weights) // len(positions), dim=0)
    return positions.float().cpu().numpy(), weights.float().cpu().numpy()


def on_photo(
    positions: NDArray[np.floating], tokens: int, height: int, width: int
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Positions (N, 2) on a map of ``tokens`` a side as rows and columns of a photo's pixels.

    -1 and 1 are the centres of the first and last token, not the edges of the photo.
    """
    share = ((positions + 1) / 2 * (tokens - 1) + 0.5) / tokens
    return share[:, 0] * height, share[:, 1] * width


def block_title(name: str) -> str:
    """A block's name as a reader says it: stages.2.blocks.4 is stage 3, block 5."""
    words = []
    for part, number, rest in re.findall(r"(\w+)\.(\d+)|(\w+)", name.removeprefix("net.")):
        words.append(f"{PARTS.get(part, part)} {int(number) + 1}" if number else rest)
    return ", ".join(words)


def choose_blocks(model: AestheticModel, *, every_block: bool = False) -> list[str]:
    """The blocks that are drawn: of more than four the first and the last two, or all.

    Raises:
        ValueError: the model has no deformable block.
    """
    blocks = model.sampling_blocks()
    if not blocks:
        raise ValueError(
            "the model has no block that samples positions (letters D and E of EAT): eat saliency "
            "--method gradient draws what its score comes from"
        )
    if len(blocks) > MOST and not every_block:
        blocks = [*blocks[: MOST // 2], *blocks[-MOST // 2 :]]
    return blocks


def points_figure(
    model: AestheticModel,
    info: CheckpointInfo,
    photos: Photos,
    *,
    every_block: bool = False,
    heat: bool = False,
    width: float = 7.0,
) -> Figure:
    """A figure of what each deformable block attends to (the paper's Figure 7), a row a photograph.

    Beside each photograph with its score and votes stands a panel for each block. Crosses mark the
    interest points, lines lead to where the offsets moved them, and the area of the circles there
    is the attention they get, the mean over queries and the heads of a group. A photograph is a
    batch of its own, so that its points are its own in every model.

    Args:
        model: in evaluation mode.
        info: of its checkpoint.
        photos: one or several, files or in memory.
        every_block: draw all blocks; else of more than four the first and the last two.
        heat: colour the photograph by the attention that each token of the block's map gets.
        width: of the figure in inches.

    Raises:
        ImageError: a photograph cannot be read.
        ValueError: the model has no deformable block, there are too many photographs, or ``width``
            is out of range.
    """
    photos = as_list(photos)
    check_sheet(photos, width)
    blocks = choose_blocks(model, every_block=every_block)
    seen = read_photos(model, info, photos, panel_width(width, len(blocks)))
    verdicts, records = [], []
    for one in seen:
        record: Record = {name: {} for name in blocks}
        with torch.inference_mode():
            verdicts.append(judge(model.forward(one.pixels, record), info))
        records.append(record)
    sides = {name: model.map_side(name, info.preprocessing.size) for name in blocks}
    titles = [block_title(name) for name in blocks]
    columns = 4 if width >= PAGE else 2  # of the legend
    footer = LEGEND[columns] + (FOOTER if heat else 0)
    sheet = Sheet(width, [one.image for one in seen], verdicts, titles, footer)
    scale = scale_of(sheet, records)
    for row, (one, record) in enumerate(zip(seen, records, strict=True)):
        for panel, name in zip(sheet.panels[row], blocks, strict=True):
            show(panel, one.image, attention_map(record[name], sides[name]) if heat else None)
            draw_block(panel, one.image, record[name], sides[name], scale)
    enhanced = set(blocks) <= set(model.enhanced_blocks())
    add_legend(sheet, "interest point" if enhanced else "point", columns, scale)
    if heat:
        sheet.add_colour_bar("attention, times the average")
    return sheet.figure


def draw_points(
    model: AestheticModel,
    info: CheckpointInfo,
    photos: Photos,
    picture: str | Path,
    *,
    every_block: bool = False,
    heat: bool = False,
    width: float = 7.0,
) -> list[str]:
    """Write ``points_figure`` to a picture, whose suffix says the format.

    Returns:
        The names of the blocks drawn.

    Raises:
        ImageError: a photograph cannot be read.
        ValueError: as ``points_figure``; or the format is unknown, or ``picture`` is a file of
            another making.
    """
    check_picture(picture)
    figure = points_figure(model, info, photos, every_block=every_block, heat=heat, width=width)
    save_figure(figure, picture, dpi=PRINT_DPI)
    return choose_blocks(model, every_block=every_block)


def attention_map(record: dict[str, Tensor], tokens: int) -> Tensor:
    """The attention that each token of a block's map gets, times the average: (tokens, tokens).

    A position between tokens is read from the four around it; what lies outside is left out.
    """
    places = record["positions"][0].flatten(1, -2).float().cpu()
    paid = record["attention"][0].float().cpu().mean(dim=1)
    paid = reduce(paid, "(g h) n -> g n", "mean", g=len(places))
    found = einsum(paid, bilinear_spread(places, tokens, tokens), "g n, g n y x -> y x")
    return found / found.mean().clamp(min=1e-12)


def draw_block(
    axis: Axes, image: Image, record: dict[str, Tensor], tokens: int, scale: float = 1.0
) -> None:
    """Draw a block's points, where its offsets moved them, and its attention over an image.

    Args:
        axis: shows the image.
        record: of the block; see ``DeformableAttention.forward``.
        tokens: a side of its map.
        scale: of the marks.
    """
    width, height = image.size

    def place(found: Tensor) -> NDArray[np.floating]:
        y, x = on_photo(found.reshape(-1, 2).float().cpu().numpy(), tokens, height, width)
        return np.stack((x, y), axis=-1)

    positions, attention = record["positions"][0], record["attention"][0].mean(dim=1)
    points = place(record["points"][0].flatten(0, -2))
    moved = place(positions)
    paid = reduce(attention.float().cpu().numpy(), "(g h) n -> (g n)", "mean", g=len(positions))
    times = paid * attention.shape[-1]  # the average
    lines = np.stack((np.tile(points, (len(positions), 1)), moved), axis=1)

    def pen(linewidth: float) -> dict[str, Any]:
        return {"linewidths": linewidth * scale, "path_effects": outline(linewidth, scale)}

    axis.add_collection(LineCollection([*lines], colors=MOVE, zorder=2, **pen(0.7)))
    axis.scatter(
        points[:, 0], points[:, 1], s=20 * scale**2, marker="+", color=POINT, zorder=4, **pen(1.1)
    )
    # Even attention gives circles of one size in all blocks; those of no weight can be seen too.
    axis.scatter(
        moved[:, 0], moved[:, 1], s=area(times, scale), facecolors="none", edgecolors=SAMPLE,
        zorder=3, **pen(0.8),
    )  # fmt: skip
    axis.set(xlim=(0, width), ylim=(height, 0))
    axis.axis("off")


def area(times: NDArray[np.floating] | float, scale: float) -> NDArray[np.floating] | float:
    """Area of a circle, in square points, for attention of so many times the average."""
    return scale**2 * (3 + (EVEN - 3) * times)


def outline(linewidth: float, scale: float) -> list[withStroke]:
    """A dark outline of a light mark: one of the two shows on any photograph."""
    return [withStroke(linewidth=(linewidth + 0.9) * scale, foreground="black")]


def scale_of(sheet: Sheet, records: Sequence[Record]) -> float:
    """Scale of the marks in a sheet's panels, of all the same: smaller where points are many."""
    count = max(one["points"][0].numel() // 2 for record in records for one in record.values())
    return min(sheet.side / SIDE, MOST_SCALE) * min(1.0, (USUAL_COUNT / count) ** 0.5)


def add_legend(sheet: Sheet, point: str, columns: int, scale: float) -> None:
    """Say in the footer what the marks are, in their colours and sizes."""

    def mark(label: str, marker: str, size: float, colour: str, linewidth: float) -> Line2D:
        return Line2D([], [], linestyle="none", marker=marker, markersize=size, label=label,
                      markerfacecolor="none", markeredgecolor=colour,
                      markeredgewidth=linewidth * scale,
                      path_effects=outline(linewidth, scale))  # fmt: skip

    offset = Line2D([], [], color=MOVE, linewidth=0.7 * scale, label="its offset",
                    path_effects=outline(0.7, scale))  # fmt: skip
    circles = [mark(label, "o", float(area(times, scale)) ** 0.5, SAMPLE, 0.8)
               for label, times in KEYS.items()]  # fmt: skip
    left, top, width = sheet.footer
    sheet.figure.legend(
        handles=[mark(point, "+", 20**0.5 * scale, POINT, 1.1), offset, *circles],
        loc="upper center", bbox_to_anchor=sheet.share(left + width / 2, top),
        ncols=columns, fontsize=SMALL, frameon=False, borderpad=0,
        handletextpad=0.4, columnspacing=1.2,
    )  # fmt: skip


def animate(folder: str | Path, picture: str | Path) -> None:
    """Join a folder's PNGs, in the order of their names, into an animated GIF of two a second.

    Each frame bears its file's name.
    """
    frames = []
    for png in sorted(Path(folder).glob("*.png")):
        drawn = images.open(png).convert("RGB")
        frame = images.new("RGB", (drawn.width, drawn.height + 2 * NAME), "white")
        frame.paste(drawn, (0, 2 * NAME))
        Draw(frame).text((4, 2), png.stem, fill="black", font_size=NAME)
        frames.append(frame.quantize())
    if not frames:
        return
    first, *rest = frames
    with appearing_whole(picture) as file:
        first.save(file, "GIF", save_all=True, append_images=rest, duration=500, loop=0)
