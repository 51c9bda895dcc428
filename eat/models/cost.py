"""The cost of a model for one image: of enhanced attention as printed and as computed; of all."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from eat.models.base import AestheticModel
from eat.models.empty import EmptyWeights
from eat.models.kernels import products_for


def eq12(
    height: int, width: int, channels: int, rows: int, cols: int, *, k_in: int, k_of: int
) -> int:
    """Multiply-adds of aesthetic self-attention as Eq. 12 of the paper prints them.

    The paper counts H W C^2 + 3 N C^2 for the projections and 2 N^2 C for the attention, as if
    queries were as many as points N; :func:`enhanced_attention_macs` counts what is computed.

    A map of ``height`` x ``width`` tokens has ``rows`` x ``cols`` points.
    """
    points = rows * cols
    attention = height * width * channels**2 + 2 * points**2 * channels + 3 * points * channels**2
    offsets = (k_of**2 + 3) * points * channels
    return attention + offsets + k_in**2 * points * channels


def enhanced_attention_macs(
    height: int, width: int, channels: int, rows: int, cols: int, *, k_in: int, k_of: int
) -> int:
    """Multiply-adds of the convolutions and matrix products of letter E's attention.

    Every one of the H W tokens asks every point: projections 2 H W C^2 + 2 N C^2, attention
    2 H W N C, offsets (k_of^2 + 2) N C, interest 2 k_in^2 N C, or with H W for N where it is made a
    matrix product. Sampling is not counted. Arguments as for :func:`eq12`.
    """
    tokens, points = height * width, rows * cols
    projections = 2 * (tokens + points) * channels**2
    attention = 2 * tokens * points * channels
    offsets = (k_of**2 + 2) * points * channels
    product = products_for(channels, 2, (k_in, k_in))
    interest = 2 * k_in**2 * (tokens if product else points) * channels
    return projections + attention + offsets + interest


def kernel_for(side: int, points: int) -> int:
    """The k_in that turns ``side`` tokens into ``points`` a side (Eq. 4, stride 1, no padding).

    Raises:
        ValueError: there would be more points than tokens, or none.
    """
    if not 1 <= points <= side:
        raise ValueError(f"points must lie in [1, {side}], the tokens a side; got {points}")
    return side - points + 1


@dataclass(frozen=True)
class ModelCost:
    """What a model needs for one image.

    Attributes:
        params: parameters.
        macs: multiply-adds of its convolutions and matrix products.
        memory: bytes of activations, in float32, that are kept for the backward pass.
        points: interest points of its first enhanced block; None without such a block.
        eq12: Eq. 12's multiply-adds over all enhanced blocks; None if one lacks a module.
    """

    params: int
    macs: int
    memory: int
    points: int | None
    eq12: int | None


def without_content(build: Callable[[], AestheticModel]) -> tuple[AestheticModel, Tensor]:
    """A model and a batch of its usual size, of as few images as it takes, without content."""
    with EmptyWeights():  # timm makes some buffers from the contents of others
        model = build()
    model = model.to("meta").eval()
    return model, torch.zeros(model.smallest_batch, 3, *model.img_size, device="meta")


def count_macs(model: AestheticModel, images: Tensor) -> int:
    """Multiply-adds of a model's convolutions and matrix products for one of a batch of images."""
    with FlopCounterMode(display=False) as counter:  # with gradients: it looks for their functions
        model(images)
    return counter.get_total_flops() // 2 // len(images)


def model_cost(build: Callable[[], AestheticModel]) -> ModelCost:
    """Count what a model needs for an image of its usual size.

    Nothing is computed: its tensors have shapes and no content, so that the device does not matter.
    """
    model, images = without_content(build)
    kept: dict[Any, Tensor] = {}  # by storage, as several tensors may share one

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(images)
    for parameter in model.parameters():
        kept.pop(parameter.untyped_storage()._cdata, None)
    blocks = [model.get_submodule(f"{name}.attn") for name in model.enhanced_blocks()]
    shapes = [points_shape(block) for block in blocks]
    printed = [eq12_of(block) for block in blocks]
    return ModelCost(
        params=sum(parameter.numel() for parameter in model.parameters()),
        macs=count_macs(model, images),
        memory=sum(t.untyped_storage().nbytes() for t in kept.values()) // len(images),
        points=math.prod(shapes[0]) if shapes else None,
        eq12=None if None in printed or not printed else sum(filter(None, printed)),
    )


def points_shape(block: Any) -> tuple[int, int]:
    """Rows and columns of the interest points of an enhanced attention, at its usual size."""
    rows, cols = block.feature_size
    kernel = block.interest.conv.kernel_size[0]
    return max(rows - kernel + 1, 1), max(cols - kernel + 1, 1)


def eq12_of(block: Any) -> int | None:
    """Eq. 12 for an enhanced attention at its usual size; None for one without offsets."""
    if block.offset is None:
        return None
    height, width = block.feature_size
    k_in, k_of = (module.conv.kernel_size[0] for module in (block.interest, block.offset))
    return eq12(height, width, block.q.in_features, *points_shape(block), k_in=k_in, k_of=k_of)
