"""A loaded model made ready for scoring in a precision."""

import numpy as np
import torch
from torch import Tensor, nn

from eat.data.decoding import InMemory
from eat.data.transforms import Preprocessing
from eat.models import AestheticModel
from eat.models.inference import (
    ExactLinear,
    can_pack,
    can_quantise,
    keep_classifier,
    pack,
    quantise,
)
from eat.sample.scenes import draw_factors, draw_scene
from eat.system.device import DTYPES

DRAWN = 16  # images that inputs in int8 have their range from


def make_ready(
    model: AestheticModel,
    preprocessing: Preprocessing,
    precision: str,
    device: torch.device,
    *,
    compiled: bool = False,
) -> AestheticModel:
    """Move a model to its device and do in advance, and for good, what its precision needs.

    In half precision weights are cast, which autocast would do anew in each region, and packed on
    a CPU; the classifier stays in float32. In int8 the ranges of inputs are those of drawn images,
    so that they depend on the model alone. The rest of such a model is as in bf16. A user's own
    model, which may use its layers in any way, is cast and no more.

    Args:
        model: in float32, on a CPU; it is changed.
        preprocessing: of its images.
        precision: fp32, bf16, fp16 or int8.
        device: to move it to.
        compiled: the model will be compiled, which packs weights itself.

    Raises:
        ValueError: the device has no products in int8, or the model cannot have them.
    """
    if precision == "fp32":
        return model.to(device)
    if precision == "int8":
        check_int8(device.type, compiled=compiled)
        if model.of_user:
            raise ValueError("precision is int8, and the model is one of your own: expected bf16")
        quantise(model, drawn_pixels(preprocessing))
        precision = "bf16"
    if not model.of_user:
        keep_classifier(model)
        if precision == "bf16" and device.type == "cpu" and not compiled and can_pack():
            pack(model)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and not isinstance(module, ExactLinear):
            module.to(DTYPES[precision])
    return model.to(device)


def drawn_pixels(preprocessing: Preprocessing) -> Tensor:
    """Normalised pixels of drawn images, always the same: (16, 3, size, size)."""
    rng = np.random.default_rng(0)
    images = [draw_scene(draw_factors(rng), rng, preprocessing.size) for _ in range(DRAWN)]
    pixels = [preprocessing.evaluation(InMemory("drawn", image)) for image in images]
    return preprocessing.normalise(torch.stack(pixels))


def check_int8(device: str, *, compiled: bool) -> None:
    """Refuse, by a ValueError, what a model in int8 cannot run on, or be."""
    if compiled:
        raise ValueError("precision is int8, which is not compiled: leave out one of the two")
    if device != "cpu":
        raise ValueError(
            f"precision is int8, which runs on a CPU, and the device is {device}: expected fp32, "
            "bf16 or fp16, or --device cpu"
        )
    if not can_quantise():
        raise ValueError(
            "precision is int8, whose products overflow here, or PyTorch has none: it needs a "
            "processor with AVX-512 VNNI or AVX-VNNI; expected fp32 or bf16"
        )
