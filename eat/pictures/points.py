"""Pictures of the points that a model attends to in a photograph."""

import math
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL.Image import Image
from PIL.Image import open as open_image
from PIL.ImageDraw import Draw

from eat.checkpoint import CheckpointInfo
from eat.data.transforms import read_image
from eat.models.base import AestheticModel, Record
from eat.pictures.saving import panel_height, save_figure
from eat.system.files import appearing_whole, refuse_foreign

MOST = 4  # blocks in a row, and in a picture that shows a choice


def attended_positions(
    record: dict[str, torch.Tensor], image: int = 0
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


def draw_points(
    model: AestheticModel,
    info: CheckpointInfo,
    photo: str | Path,
    picture: str | Path,
    *,
    every_block: bool = False,
) -> list[str]:
    """Draw what each deformable block attends to over a photograph (the paper's Figure 7).

    Circles stand at the sampled positions, one for each head, the larger the more attention it
    pays; crosses mark the interest points before the offsets moved them. A photograph is a batch of
    its own, so that its points are its own in every model.

    Args:
        model: in evaluation mode.
        info: of its checkpoint.
        photo: an image file.
        picture: the PNG to write.
        every_block: draw all blocks; else of more than four the first and the last two.

    Returns:
        The names of the blocks drawn.

    Raises:
        ImageError: the photograph cannot be read.
        ValueError: the model has no deformable block, or ``picture`` is a file of another making.
    """
    refuse_foreign(picture, b"Matplotlib")  # as it signs its files
    image = read_image(photo, upright=info.preprocessing.upright)
    blocks = model.sampling_blocks()
    if not blocks:
        raise ValueError("the model has no block that samples positions (letters D and E of EAT)")
    if len(blocks) > MOST and not every_block:
        blocks = [*blocks[: MOST // 2], *blocks[-MOST // 2 :]]
    record: Record = {name: {} for name in blocks}
    pixels = info.preprocessing.evaluation(photo)[None].to(next(model.parameters()).device)
    with torch.inference_mode():
        model.forward(info.preprocessing.normalise(pixels), record)
    columns = min(len(blocks), MOST)
    rows = math.ceil(len(blocks) / columns)
    figure = Figure(figsize=(4 * columns, (0.4 + panel_height(4, image)) * rows))
    for place, name in enumerate(blocks, start=1):
        axis = figure.add_subplot(rows, columns, place)
        tokens = model.map_side(name, info.preprocessing.size)
        draw_block(axis, image, record[name], tokens)
        axis.set_title(name)
    save_figure(figure, picture)
    return blocks


def draw_block(axis: Axes, image: Image, record: dict[str, torch.Tensor], tokens: int) -> None:
    """Draw a block's interest points, positions and attention over an image.

    Args:
        record: of the block; see ``DeformableAttention.forward``.
        tokens: a side of its map.
    """
    width, height = image.size
    points = record["points"][0].flatten(0, -2).float().cpu().numpy()
    py, px = on_photo(points, tokens, height, width)
    positions, weights = attended_positions(record)
    y, x = on_photo(positions.reshape(-1, 2), tokens, height, width)
    axis.imshow(image)
    axis.scatter(px, py, marker="+", s=40, color="black", linewidths=2.4)
    axis.scatter(px, py, marker="+", s=30, color="white", linewidths=1.0)
    # Even attention gives circles of one size in all blocks; those of no weight can be seen too.
    size = 12 + 60 * weights.ravel() * weights.shape[1]
    axis.scatter(x, y, s=size, facecolors="none", edgecolors="tab:red", linewidths=0.8)
    axis.set(xlim=(0, width), ylim=(height, 0))
    axis.axis("off")


def animate(folder: str | Path, picture: str | Path) -> None:
    """Join a folder's PNGs, in the order of their names, into an animated GIF of two a second.

    Each frame bears its file's name.
    """
    frames = []
    for png in sorted(Path(folder).glob("*.png")):
        frame = open_image(png).convert("RGB")
        Draw(frame).text((4, 2), png.stem, fill="black")
        frames.append(frame.quantize())
    if not frames:
        return
    first, *rest = frames
    with appearing_whole(picture) as file:
        first.save(file, "GIF", save_all=True, append_images=rest, duration=500, loop=0)
