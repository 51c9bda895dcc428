"""Where a model looks in photographs, as colours over them (the paper's Figures 3 and 9)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from matplotlib.figure import Figure
from PIL.Image import open as open_image
from torch import Tensor

from eat.checkpoint import CheckpointInfo, load_checkpoint
from eat.data.decoding import read_image
from eat.data.transforms import to_tensor
from eat.evaluation.saliency import check_block, gradcam, rollout, score_gradient, share_on_mask
from eat.models import EAT
from eat.models.base import AestheticModel
from eat.personal.adaptation import mean_scores
from eat.pictures.points import block_title
from eat.pictures.saving import PRINT_DPI, check_picture, save_figure, save_for_paper
from eat.pictures.sheet import (
    MOST_TIMES,
    USUAL,
    Photos,
    Seen,
    Sheet,
    as_list,
    check_sheet,
    judge,
    panel_width,
    read_photo,
    read_photos,
    show,
)

Method = Literal["rollout", "gradcam", "gradient"]
PANEL = 2.2  # inches of a photograph beside those of other models
# What the colours of each method are, and the weight of the last one.
COLOURS_OF = {
    "rollout": ("attention, followed back to the photograph, times the average", MOST_TIMES),
    "gradcam": ("GradCAM of the expected score, share of its maximum", 1.0),
    "gradient": ("size of the gradient of the expected score, times the average", MOST_TIMES),
}


@dataclass(frozen=True)
class Look:
    """Where a model looks in a photograph.

    Attributes:
        weights: (H, W), not negative; the mean is 1, or with GradCAM the maximum.
        outputs: of the model, (1, K).
        place: that the weights were taken at, as a reader says it.
    """

    weights: Tensor
    outputs: Tensor
    place: str


def saliency_figure(
    model: AestheticModel,
    info: CheckpointInfo,
    photos: Photos,
    *,
    method: Method = "rollout",
    block: str | None = None,
    layer: Literal["norm1", "norm2"] = "norm1",
    width: float = 7.0,
) -> tuple[Figure, list[Tensor]]:
    """A figure of where a model looks, a row a photograph, with the score that it predicts.

    Args:
        model: in evaluation mode.
        info: of its checkpoint.
        photos: one or several, files or in memory, each a batch of its own: its interest points are
            its own in every model.
        method: of ``eat.evaluation.saliency``, gradients being those of the expected score.
        block: name of the block; None takes the last.
        layer: of the block, for gradients; of a block without it, its output.
        width: of the figure in inches.

    Returns:
        The figure, and what is drawn of each photograph, (H, W), not negative.

    Raises:
        ImageError: a photograph cannot be read.
        ValueError: there is no such block, grad-cam is not installed, there are too many
            photographs, or ``width`` is out of range.
    """
    photos = as_list(photos)
    check_sheet(photos, width)
    place = find_place(model, info, method, block, layer)
    seen = read_photos(model, info, photos, panel_width(width, 1))
    looks = [look(model, info, one, method, *place) for one in seen]
    verdicts = [judge(one.outputs, info) for one in looks]
    sheet = Sheet(width, [one.image for one in seen], verdicts, [looks[0].place])
    label, most = COLOURS_OF[method]
    for (panel,), one, found in zip(sheet.panels, seen, looks, strict=True):
        show(panel, one.image, found.weights, most)
    sheet.add_colour_bar(label, most)
    return sheet.figure, [one.weights for one in looks]


def draw_saliency(
    model: AestheticModel,
    info: CheckpointInfo,
    photos: Photos,
    picture: str | Path,
    *,
    method: Method = "rollout",
    block: str | None = None,
    layer: Literal["norm1", "norm2"] = "norm1",
    width: float = 7.0,
) -> list[Tensor]:
    """Write ``saliency_figure`` to a picture, whose suffix says the format.

    Returns:
        What is drawn of each photograph, (H, W), not negative.

    Raises:
        ImageError: a photograph cannot be read.
        ValueError: as ``saliency_figure``; or the format is unknown, or ``picture`` is a file of
            another making.
    """
    check_picture(picture)
    figure, weights = saliency_figure(
        model, info, photos, method=method, block=block, layer=layer, width=width
    )
    save_figure(figure, picture, dpi=PRINT_DPI)
    return weights


def find_place(
    model: AestheticModel, info: CheckpointInfo, method: Method, block: str | None, layer: str
) -> tuple[str, str]:
    """Names of the block to look at, and of the layer in it or of the block again.

    Raises:
        ValueError: the model has no such block, or none that the method can follow.
    """
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
    return block, f"{block}.{layer}" if layer in inside and method != "rollout" else block


def look(
    model: AestheticModel, info: CheckpointInfo, seen: Seen, method: Method, block: str, place: str
) -> Look:
    """Where a model looks in a photograph; block and place are as ``find_place`` gives them."""
    score = partial(mean_scores, info=info, target=info.scale)
    if method == "rollout":
        weights = rollout(model, seen.pixels, block)[0]
    else:
        find = gradcam if method == "gradcam" else score_gradient
        weights = find(model, seen.pixels, place, score)[0]
    if method != "gradcam":
        weights = weights / weights.mean().clamp(min=1e-12)
    with torch.inference_mode():
        outputs = model(seen.pixels)
    return Look(weights.detach().float().cpu(), outputs, block_title(place))


def draw_saliency_of_models(
    checkpoints: Mapping[str, Path], photos: Mapping[Path, float], heading: str, picture: Path
) -> None:
    """Draw GradCAM of several models at norm1 and norm2 of their last blocks (Figure 3).

    Args:
        checkpoints: by the names of the models.
        photos: image files with their rated scores, a line each.
        picture: the PNG to write, and a PDF beside it.

    Raises:
        WeightsError: a checkpoint cannot be read.
        ImageError: a photograph cannot be read.
        ValueError: grad-cam is not installed.
    """
    figure = Figure(figsize=(PANEL * (1 + 2 * len(checkpoints)), 2.4 * len(photos)))
    grid = figure.add_gridspec(len(photos), 1 + 2 * len(checkpoints))
    for y, (photo, rated) in enumerate(photos.items()):
        axis = figure.add_subplot(grid[y, 0])
        show(axis, read_image(photo, upright=True))
        axis.set_title(f"rated {rated:.2f}", fontsize=USUAL)
    for x, (name, checkpoint) in enumerate(checkpoints.items()):
        model, info = load_checkpoint(checkpoint)
        for side, layer in enumerate(("norm1", "norm2")):
            place = find_place(model.eval(), info, "gradcam", None, layer)
            for y, photo in enumerate(photos):
                seen = read_photo(model, info, photo, PANEL)
                found = look(model, info, seen, "gradcam", *place)
                predicted = mean_scores(found.outputs, info, info.scale).item()
                axis = figure.add_subplot(grid[y, 1 + 2 * x + side])
                show(axis, seen.image, found.weights, 1.0)
                none = "" if found.weights.any() else "\n(nothing raises it)"
                axis.set_title(f"{name}, {layer}: {predicted:.2f}{none}", fontsize=USUAL)
    figure.suptitle(heading, fontsize=10)
    save_for_paper(figure, picture)


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
