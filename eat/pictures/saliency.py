"""Where a model looks in a photograph, as colours over it (the paper's Figures 3 and 9)."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL.Image import Image
from PIL.Image import open as open_image
from torch import Tensor

from eat.checkpoint import CheckpointInfo, load_checkpoint
from eat.data.transforms import read_image, to_tensor
from eat.evaluation.saliency import check_block, gradcam, rollout, score_gradient, share_on_mask
from eat.models import EAT
from eat.models.base import AestheticModel
from eat.personal.adaptation import mean_scores
from eat.pictures.saving import panel_height, save_figure
from eat.system.files import refuse_foreign

Method = Literal["rollout", "gradcam", "gradient"]


def draw_saliency(
    model: AestheticModel,
    info: CheckpointInfo,
    photo: str | Path,
    picture: str | Path,
    *,
    method: Method = "rollout",
    block: str | None = None,
    layer: Literal["norm1", "norm2"] = "norm1",
) -> Tensor:
    """Draw where a model looks beside and over a photograph, with the score that it predicts.

    Args:
        model: in evaluation mode.
        info: of its checkpoint.
        photo: an image file, a batch of its own: its interest points are its own in every model.
        picture: the PNG to write.
        method: of ``eat.evaluation.saliency``, gradients being those of the expected score.
        block: name of the block; None takes the last.
        layer: of the block, for gradients; of a block without it, its output.

    Returns:
        (H, W) what is drawn, not negative.

    Raises:
        ImageError: the photograph cannot be read.
        ValueError: there is no such block, grad-cam is not installed, or ``picture`` is a file of
            another making.
    """
    refuse_foreign(picture, b"Matplotlib")  # as it signs its files
    image = read_image(photo, upright=info.preprocessing.upright)
    weights, predicted, place = look(model, info, photo, method, block, layer)
    figure = Figure(figsize=(8, 0.5 + panel_height(4, image)))
    plain, overlay = figure.subplots(1, 2)
    show(plain, image, f"predicted {predicted:.2f}")
    show(overlay, image, f"{method}, {place}", weights)
    save_figure(figure, picture)
    return weights


def look(
    model: AestheticModel,
    info: CheckpointInfo,
    photo: str | Path,
    method: Method,
    block: str | None,
    layer: str,
) -> tuple[Tensor, float, str]:
    """Where a model looks, the score that it predicts, and the name of the place it is taken at."""
    pixels = info.preprocessing.evaluation(photo)[None].to(next(model.parameters()).device)
    pixels = info.preprocessing.normalise(pixels)
    score = partial(mean_scores, info=info, target=info.scale)
    names = model.map_blocks()
    if method == "rollout" and not isinstance(model, EAT):
        raise ValueError(
            f"attention rollout follows the stages of EAT, Swin and DAT, and {info.model.name} has "
            "none: take --method gradient or gradcam"
        )
    if not names:
        raise ValueError(f"{info.model.name} names no blocks whose features are a map of the image")
    block = check_block(block or names[-1], names)
    inside = dict(model.get_submodule(block).named_children())
    place = f"{block}.{layer}" if layer in inside and method != "rollout" else block
    if method == "rollout":
        weights = rollout(model, pixels, block)
    else:
        find = gradcam if method == "gradcam" else score_gradient
        weights = find(model, pixels, place, score)
    with torch.inference_mode():
        predicted = score(model(pixels)).item()
    return weights[0].cpu(), predicted, place


def show(axis: Axes, image: Image, title: str, weights: Tensor | None = None) -> None:
    """Show a photograph, with weights as colours over it."""
    whole = (0, image.width, image.height, 0)
    axis.imshow(image, extent=whole)
    if weights is not None:
        axis.imshow(weights, extent=whole, cmap="turbo", alpha=0.5, interpolation="bilinear")
    axis.set_title(title, fontsize=9)
    axis.axis("off")


def draw_saliency_of_models(
    checkpoints: Mapping[str, Path], photos: Mapping[Path, float], heading: str, picture: Path
) -> None:
    """Draw GradCAM of several models at norm1 and norm2 of their last blocks (Figure 3).

    Args:
        checkpoints: by the names of the models.
        photos: image files with their rated scores, a line each.
        picture: the PNG to write.

    Raises:
        WeightsError: a checkpoint cannot be read.
        ImageError: a photograph cannot be read.
        ValueError: grad-cam is not installed.
    """
    figure = Figure(figsize=(2.2 * (1 + 2 * len(checkpoints)), 2.4 * len(photos)))
    grid = figure.add_gridspec(len(photos), 1 + 2 * len(checkpoints))
    for y, (photo, rated) in enumerate(photos.items()):
        show(figure.add_subplot(grid[y, 0]), read_image(photo, upright=True), f"rated {rated:.2f}")
    for x, (name, checkpoint) in enumerate(checkpoints.items()):
        model, info = load_checkpoint(checkpoint)
        for y, photo in enumerate(photos):
            image = read_image(photo, upright=info.preprocessing.upright)
            for side, layer in enumerate(("norm1", "norm2")):
                weights, predicted, _ = look(model.eval(), info, photo, "gradcam", None, layer)
                axis = figure.add_subplot(grid[y, 1 + 2 * x + side])
                title = f"{name}, {layer}: {predicted:.2f}"
                if weights.any():
                    show(axis, image, title, weights)
                else:
                    show(axis, image, f"{title}\n(nothing raises it)")
    figure.suptitle(heading, fontsize=10)
    save_figure(figure, picture)


def read_mask(path: str | Path, photo: str | Path, *, upright: bool) -> Tensor:
    """A mask of a photograph's foreground, which is white: (H, W) from 0 to 1.

    Raises:
        ImageError: one of the two cannot be read.
        ValueError: they differ in size, or the mask is not white and black: class numbers, a
            cut-out or a photograph would give a share of something else.
    """
    mask, image = (read_image(file, upright=upright) for file in (path, photo))
    if mask.size != image.size:
        found, expected = (" x ".join(map(str, size)) for size in (mask.size, image.size))
        raise ValueError(f"{path}: {found} pixels: expected those of the photograph, {expected}")
    colours = to_tensor(mask).float() / 255
    grey = colours.mean(dim=0)
    with open_image(path) as file:
        opaque = not file.has_transparency_data or to_tensor(file.convert("RGBA"))[3].min() == 255
    for wrong, found in (
        (not opaque, "partly transparent"),
        ((colours - grey).abs().max() > 0.1, "in colours"),
        (grey.max() < 0.5, f"at most {255 * grey.max():.0f} of 255 bright"),
    ):
        if wrong:
            raise ValueError(f"{path}: {found}: expected grey, white where the foreground is")
    return grey


def describe_share(weights: Tensor, mask: Tensor) -> str:
    """How much of the weights falls on a mask, and how much does by its area."""
    share, area = share_on_mask(weights, mask).item(), mask.mean().item()
    return f"foreground {share:.3f}, background {1 - share:.3f}; by area {area:.3f}, {1 - area:.3f}"
