"""Pictures: where a model looks, how training went, what it predicts. Written as PNG files."""

import json
import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from eat.data.transforms import Preprocessing, normalise, read_image
from eat.models import EAT
from eat.models.backbone import Record


def deformable_blocks(model: EAT) -> list[str]:
    """Names of the blocks that sample positions, from the first to the last."""
    return [
        name.removesuffix(".attn")
        for name, module in model.named_modules()
        if name.endswith(".attn") and hasattr(module, "points")
    ]


def attended_positions(record: dict[str, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Where a block samples the first image of a batch, and how much each sample counts.

    Args:
        record: of a deformable block, as ``EAT.forward`` fills it.

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
    positions: np.ndarray, tokens: int, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (N, 2) on a map of ``tokens`` a side as rows and columns of a photo's pixels.

    -1 and 1 are the centres of the first and last token, not the edges of the photo.
    """
    share = ((positions + 1) / 2 * (tokens - 1) + 0.5) / tokens
    return share[:, 0] * height, share[:, 1] * width


def draw_points(
    model: EAT, preprocessing: Preprocessing, photo: str | Path, picture: str | Path
) -> list[str]:
    """Draw what each deformable block attends to over a photograph (the paper's Figure 7).

    Circles stand at the sampled positions, the larger the more attention they get; crosses mark
    the interest points before the offsets moved them.

    Args:
        model: in evaluation mode, on the CPU.
        preprocessing: of the photograph.
        photo: an image file.
        picture: the PNG to write.

    Returns:
        The blocks drawn.

    Raises:
        ImageError: the photograph cannot be read.
        ValueError: the model has no deformable block.
    """
    image = read_image(photo, upright=preprocessing.upright)
    blocks = deformable_blocks(model)
    if not blocks:
        raise ValueError("the model has no block that samples positions (letters D and E)")
    record: Record = {name: {} for name in blocks}
    pixels = preprocessing.evaluation(photo)
    with torch.inference_mode():
        model(normalise(pixels[None]), record)
    shown = blocks if len(blocks) <= 4 else [*blocks[:2], *blocks[-2:]]
    figure, axes = plt.subplots(1, len(shown), figsize=(4 * len(shown), 4), squeeze=False)
    width, height = image.size
    for axis, name in zip(axes[0], shown, strict=True):
        positions, weights = attended_positions(record[name])
        points = record[name]["points"][0].flatten(0, -2).numpy()
        tokens = math.ceil(preprocessing.size / 4 / 2 ** int(name.split(".")[1]))
        y, x = on_photo(positions, tokens, height, width)
        py, px = on_photo(points, tokens, height, width)
        axis.imshow(image)
        axis.scatter(px, py, marker="+", s=20, color="white", linewidths=0.8)
        size = 400 * weights / weights.max()
        axis.scatter(x, y, s=size, facecolors="none", edgecolors="tab:red", linewidths=1)
        axis.set(title=name, xlim=(0, width), ylim=(height, 0))
        axis.axis("off")
    _save(figure, picture)
    return shown


def draw_curves(run: str | Path, picture: str | Path) -> None:
    """Draw loss and correlations over the epochs of a run from its metrics.jsonl."""
    lines = (Path(run) / "metrics.jsonl").read_text().splitlines()
    table = pd.DataFrame([json.loads(line) for line in lines]).astype({"epoch": int})
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    left.plot(table["epoch"], table["train_loss"], marker="o")
    left.set(xlabel="epoch", ylabel="training loss")
    for name in ("srcc", "plcc", "accuracy"):
        right.plot(table["epoch"], table[name].astype(float), marker="o", label=name)
    right.set(xlabel="epoch", title=f"{table['split'].iloc[0]} split")
    right.legend()
    _save(figure, picture)


def draw_predictions(predictions: pd.DataFrame, picture: str | Path) -> None:
    """Draw predicted over rated scores; columns score and predicted."""
    figure, axis = plt.subplots(figsize=(5, 5))
    axis.scatter(predictions["score"], predictions["predicted"], s=8, alpha=0.5)
    low = predictions[["score", "predicted"]].min().min()
    high = predictions[["score", "predicted"]].max().max()
    axis.plot([low, high], [low, high], color="grey", linewidth=0.8)
    axis.set(xlabel="rated score", ylabel="predicted score", aspect="equal")
    _save(figure, picture)


def _save(figure: plt.Figure, picture: str | Path) -> None:
    Path(picture).parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(picture, dpi=110)
    plt.close(figure)
