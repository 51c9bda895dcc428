"""A loaded model made ready for scoring in a precision."""

import numpy as np
import torch
from torch import Tensor, nn

from eat.data.decoding import InMemory
from eat.data.transforms import Preprocessing
from eat.models import AestheticModel
from eat.models.inference import can_pack, can_quantise, pack, quantise
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
    a CPU. In int8 the ranges of inputs are those of drawn images, so that they depend on the model
    alone. The rest of such a model is as in bf16.

    Args:
        model: in float32, on a CPU.
        preprocessing: of its images.
        precision: fp32, bf16, fp16 or int8.
        device: to move it to.
        compiled: the model will be compiled, which packs weights itself.

    Raises:
        ValueError: the device has no products in int8, or a model in int8 is to be compiled.
    """
    on_cpu = device.type == "cpu"
    if precision == "int8":
        _check_int8(device, compiled)
        quantise(model, drawn_pixels(preprocessing))
        precision = "bf16"
    if precision == "bf16" and on_cpu and not compiled and can_pack():
        pack(model)
    if precision != "fp32":
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.to(DTYPES[precision])
    return model.to(device)


def drawn_pixels(preprocessing: Preprocessing) -> Tensor:
    """Normalised pixels of drawn images, always the same: (16, 3, size, size)."""
    rng = np.random.default_rng(0)
    images = [draw_scene(draw_factors(rng), rng, preprocessing.size) for _ in range(DRAWN)]
    pixels = [preprocessing.evaluation(InMemory("drawn", image)) for image in images]
    return preprocessing.normalise(torch.stack(pixels))


def _check_int8(device: torch.device, compiled: bool) -> None:
    if compiled:
        raise ValueError("precision is int8, which is not compiled: leave out one of the two")
    if device.type != "cpu":
        raise ValueError(
            f"precision is int8, which runs on a CPU, and the device is {device}: expected fp32, "
            "bf16 or fp16, or --device cpu"
        )
    if not can_quantise():
        raise ValueError(
            "precision is int8, which needs a processor with AVX-512 VNNI or AVX-VNNI and a "
            "PyTorch with oneDNN: expected fp32 or bf16 here"
        )
