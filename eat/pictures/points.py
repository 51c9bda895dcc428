"""Pictures of the points that a model attends to in a photograph."""

import math
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from eat.checkpoint import CheckpointInfo
from eat.data.transforms import normalise, read_image
from eat.models import AestheticModel
from eat.models.backbone import Record
from eat.pictures.saving import save_figure
from eat.system.files import refuse_foreign

MOST = 4  # blocks in a picture


def deformable_blocks(model: AestheticModel) -> list[str]:
    """Names of the blocks that sample positions, from the first to the last."""
    return [
        name.removesuffix(".attn")
        for name, module in model.named_modules()
        if name.endswith(".attn") and hasattr(module, "points")
    ]


def attended_positions(
    record: dict[str, torch.Tensor],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A block's sampled positions in the first image of a batch, and their attention.

    Returns:
        (G * N, 2) positions as (y, x) in [-1, 1], and (G * N,) mean attention weights over queries
        and the heads of the position's group.
    """
    positions = record["positions"][0].flatten(1, 2)  # (groups, N, 2)
    groups, count, _ = positions.shape
    attention = record["attention"][0].mean(dim=1)  # (heads, N): the mean over queries
    weights = attention.view(groups, -1, count).mean(dim=1)
    return positions.flatten(0, 1).float().numpy(), weights.flatten().float().numpy()


def on_photo(
    positions: NDArray[np.floating], tokens: int, height: int, width: int
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Positions (N, 2) on a map of ``tokens`` a side as rows and columns of a photo's pixels.

    -1 and 1 are the centres of the first and last token, not the edges of the photo.
    """
    share = ((positions + 1) / 2 * (tokens - 1) + 0.5) / tokens
    return share[:, 0] * height, share[:, 1] * width


def draw_points(
    model: AestheticModel, info: CheckpointInfo, photo: str | Path, picture: str | Path
) -> list[str]:
    """Draw what each deformable block attends to over a photograph (the paper's Figure 7).

    Circles stand at the sampled positions, the larger the more attention they get; crosses mark
    the interest points before the offsets moved them. A photograph is a batch of its own, so that
    its points are its own in every model.

    Args:
        model: in evaluation mode, on the CPU.
        info: of its checkpoint.
        photo: an image file.
        picture: the PNG to write.

    Returns:
        The names of the blocks drawn.

    Raises:
        ImageError: the photograph cannot be read.
        ValueError: the model has no deformable block, or ``picture`` is a file of another making.
    """
    refuse_foreign(picture, b"Matplotlib")  # as it signs its files
    image = read_image(photo, upright=info.preprocessing.upright)
    blocks = deformable_blocks(model)
    if not blocks:
        raise ValueError("the model has no block that samples positions (letters D and E)")
    record: Record = {name: {} for name in blocks}
    with torch.inference_mode():
        model(normalise(info.preprocessing.evaluation(photo)[None]), record)
    shown = blocks if len(blocks) <= MOST else [*blocks[: MOST // 2], *blocks[-MOST // 2 :]]
    figure = Figure(figsize=(4 * len(shown), 4))
    width, height = image.size
    for place, name in enumerate(shown, start=1):
        axis = figure.add_subplot(1, len(shown), place)
        positions, weights = attended_positions(record[name])
        points = record[name]["points"][0].flatten(0, -2).numpy()
        tokens = math.ceil(info.preprocessing.size / 4 / 2 ** int(name.split(".")[1]))
        y, x = on_photo(positions, tokens, height, width)
        py, px = on_photo(points, tokens, height, width)
        axis.imshow(image)
        axis.scatter(px, py, marker="+", s=20, color="white", linewidths=0.8)
        size = 400 * weights / weights.max()
        axis.scatter(x, y, s=size, facecolors="none", edgecolors="tab:red", linewidths=1)
        axis.set(title=name, xlim=(0, width), ylim=(height, 0))
        axis.axis("off")
    save_figure(figure, picture)
    return shown
