"""Where a model looks: its attention, followed back to the photograph, and its score's gradient."""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce, repeat
from torch import Tensor

from eat.models.attention import WindowAttention
from eat.models.base import AestheticModel, Record
from eat.system.words import nearest

Score = Callable[[Tensor], Tensor]  # from outputs (B, K) to scores (B,)

OWN_SHARE = 0.5  # of a token's weight that the residual connection leaves where it is
TINY = 1e-12  # least divisor


def rollout(model: AestheticModel, pixels: Tensor, block: str | None = None) -> Tensor:
    """Attention rollout: how much of its output a block has from each token of the photograph.

    All tokens of the block's output count alike, as in the pooling before the head. From there each
    block's attention, the mean over heads, mixed half and half with the identity, leads back to the
    block's inputs, and each step between stages from a token to the 2 x 2 that it was made of
    (Abnar and Zuidema, 2020). This is the product of all token-to-token matrices, from the left.

    Args:
        model: in evaluation mode.
        pixels: (B, 3, H, W), normalised.
        block: name of the block; None takes the last.

    Returns:
        (B, H / 4, W / 4), sides rounded up; an image's sum is 1.

    Raises:
        ValueError: there is no such block, or gates add enhanced attention to another.
    """
    for name in model.map_blocks():
        if getattr(model.get_submodule(f"{name}.attn"), "original", None) is not None:
            raise ValueError(
                f"attention rollout does not follow {name}, where a gate adds enhanced attention "
                "to the original: take --method gradient or gradcam"
            )
    record: Record = {}
    with torch.no_grad():
        model.forward(pixels, record)
    names = list(record)
    names = names[: names.index(check_block(block or names[-1], names)) + 1]
    last = stage = stage_of(names[-1])
    height, width = map_size(pixels, last)
    weights = pixels.new_full((len(pixels), height, width), 1 / (height * width))
    for name in reversed(names):
        if stage_of(name) < stage:
            stage = stage_of(name)
            weights = to_patches(weights, *map_size(pixels, stage))
        attended = through_block(weights, model.get_submodule(f"{name}.attn"), record[name])
        weights = OWN_SHARE * weights + (1 - OWN_SHARE) * attended
    return weights


def stage_of(block: str) -> int:
    """``stages.2.blocks.1`` is of stage 2."""
    return int(block.split(".")[1])


def check_block(name: str, names: list[str]) -> str:
    """A block's name, if it is one of the names; else ValueError."""
    if name in names:
        return name
    near = nearest(name, names, cutoff=0)
    raise ValueError(f"no block {name!r}; nearest: {near}; there are {names[0]} ... {names[-1]}")


def map_size(pixels: Tensor, stage: int) -> tuple[int, int]:
    """Height and width of a stage's map, in tokens; stages count from 0."""
    height, width = (math.ceil(side / (4 * 2**stage)) for side in pixels.shape[-2:])
    return height, width


def through_block(weights: Tensor, attn: torch.nn.Module, record: dict[str, Tensor]) -> Tensor:
    """Move weights (B, H, W) from a block's queries to what they attend to; the sum stays."""
    if isinstance(attn, WindowAttention):
        height, width = weights.shape[1:]
        tokens = attn.window_tokens(height, width, weights.device)
        return through_windows(weights, record["attention"], tokens)
    return through_samples(weights, record["attention"], record["positions"])


def through_windows(weights: Tensor, attention: Tensor, tokens: Tensor) -> Tensor:
    """Move weights from the queries of windows to their keys; padding is left out.

    Args:
        weights: (B, H, W).
        attention: (B, windows * heads, N, N).
        tokens: (windows, N), as ``WindowAttention.window_tokens`` gives them.

    Returns:
        (B, H, W).
    """
    padding = weights[0].numel()
    paid = reduce(attention, "b (k h) q n -> b k q n", "sum", k=len(tokens))
    paid = paid * (tokens < padding)[:, None]
    paid = paid / paid.sum(dim=-1, keepdim=True).clamp(min=TINY)
    queries = F.pad(weights.flatten(1), (0, 1))[:, tokens]
    keys = einsum(queries, paid, "b k q, b k q n -> b k n")
    found = weights.new_zeros(len(weights), padding + 1)
    found.index_add_(1, tokens.flatten(), keys.flatten(1))
    return found[:, :padding].view_as(weights)


def through_samples(weights: Tensor, attention: Tensor, positions: Tensor) -> Tensor:
    """Move weights from queries to the tokens around the positions that they attend to.

    Args:
        weights: (B, H, W).
        attention: (B, heads, H * W, N).
        positions: (B, groups, ..., 2), N of them a group, as (y, x). Attention to what lies outside
            the map is left out.

    Returns:
        (B, H, W).
    """
    spread = bilinear_spread(positions.flatten(2, -2), *weights.shape[1:])  # (B, groups, N, H, W)
    inside = spread.sum(dim=(-1, -2))
    groups = inside.shape[1]
    paid = rearrange(attention, "b (g h) q n -> b g h q n", g=groups) * inside[:, :, None, None]
    paid = paid / reduce(paid, "b g h q n -> b 1 1 q 1", "sum").clamp(min=TINY)
    samples = einsum(weights.flatten(1), paid, "b q, b g h q n -> b g n")
    spread = spread / inside[..., None, None].clamp(min=TINY)
    return einsum(samples, spread, "b g n, b g n y x -> b y x")


def bilinear_spread(positions: Tensor, height: int, width: int) -> Tensor:
    """Weights with which bilinear sampling at positions (..., 2) reads a map: (..., H, W).

    They sum to 1, or less for a position outside [-1, 1].
    """

    def along(places: Tensor, size: int) -> Tensor:
        at = (places[..., None] + 1) / 2 * (size - 1)
        return (1 - (at - torch.arange(size, device=places.device)).abs()).clamp(min=0)

    rows, cols = along(positions[..., 0], height), along(positions[..., 1], width)
    return rows[..., :, None] * cols[..., None, :]


def to_patches(weights: Tensor, height: int, width: int) -> Tensor:
    """Spread each token's weight evenly over the 2 x 2 that it was made of, without padding.

    Args:
        weights: (B, H / 2, W / 2), sides rounded up.
        height: H.
        width: W.
    """
    real = torch.zeros(2 * weights.shape[1], 2 * weights.shape[2], device=weights.device)
    real[:height, :width] = 1
    even = weights / reduce(real, "(y u) (x v) -> y x", "sum", u=2, v=2)
    return repeat(even, "b y x -> b (y u) (x v)", u=2, v=2)[:, :height, :width]


def score_gradients(
    model: AestheticModel, pixels: Tensor, layers: Sequence[str], score: Score
) -> dict[str, Tensor]:
    """Norm of the score's gradient at each token of layers' outputs: (B, H, W), by layer.

    Args:
        model: in evaluation mode.
        pixels: (B, 3, H, W), normalised.
        layers: names of map blocks, or of modules in them such as ``norm1``.
        score: of the model's outputs.
    """
    outputs: dict[str, Tensor] = {}
    with ExitStack() as hooks, torch.enable_grad():
        for name in layers:
            keep = partial(lambda name, module, given, output: outputs.update({name: output}), name)
            hooks.enter_context(model.get_submodule(name).register_forward_hook(keep))
        total = score(model(pixels)).sum()
    found = torch.autograd.grad(total, [outputs[name] for name in layers])
    maps = [model.as_map(one, pixels) for one in found]
    return {name: one.norm(dim=-1) for name, one in zip(layers, maps, strict=True)}


def score_gradient(model: AestheticModel, pixels: Tensor, layer: str, score: Score) -> Tensor:
    """``score_gradients`` at one layer."""
    return score_gradients(model, pixels, [layer], score)[layer]


def load_gradcam() -> Any:
    """The class of the grad-cam package.

    Raises:
        ValueError: it is not installed.
    """
    try:
        from pytorch_grad_cam import GradCAM
    except ImportError as error:
        raise ValueError(
            f"GradCAM needs grad-cam ({error}): pip install 'eat-iaa[saliency]', or take eat "
            "saliency --method rollout"
        ) from error
    return GradCAM


def gradcam(model: AestheticModel, pixels: Tensor, layer: str, score: Score) -> Tensor:
    """GradCAM of the score: where a layer's features raise it. Arguments as ``score_gradient``.

    Returns:
        (B, H, W) of the pixels, from 0 to 1 within an image; all 0 if nothing raises the score.

    Raises:
        ValueError: grad-cam is not installed.
    """
    cam_class = load_gradcam()

    def channels_first(features: Tensor) -> Tensor:
        return model.as_map(features, pixels).permute(0, 3, 1, 2)

    def score_of_one(output: Tensor) -> Tensor:
        return score(output[None])[0]

    layers = [model.get_submodule(layer)]
    with torch.enable_grad(), cam_class(model, layers, reshape_transform=channels_first) as cam:
        found = torch.from_numpy(cam(pixels, [score_of_one] * len(pixels)))
    model.zero_grad(set_to_none=True)
    return found


def share_on_mask(weights: Tensor, mask: Tensor) -> Tensor:
    """Share of weights that falls on a mask, such as that of the foreground (Section 3).

    Args:
        weights: (..., H, W), not negative: attention, or sizes of gradients.
        mask: (..., height, width), from 0 to 1, of the same photographs; averaged over the area of
            each weight.

    Returns:
        (...), from 0 to 1; NaN where all weights are 0. A map that does not look at the mask at all
        has the mask's share of the area, ``mask.mean()``.
    """
    height, width = weights.shape[-2:]
    mask = F.adaptive_avg_pool2d(mask[None].to(weights), (height, width))[0]
    return (weights * mask).sum(dim=(-1, -2)) / weights.sum(dim=(-1, -2))
