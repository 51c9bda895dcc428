"""How a trained model is run: device, precision, compiled, with interest points of its own."""

import os
import shutil
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from eat.data.transforms import normalise
from eat.models import EAT

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Autocast to ``precision``: fp32 (none), bf16 or fp16."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


def cast_weights(model: EAT, precision: str) -> None:
    """Cast in advance, and for good, what autocast would cast anew in each region."""
    if precision == "fp32":
        return
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.to(DTYPES[precision])


def check_compiler() -> None:
    """Refuse to compile where it would fail amid the first pass.

    Raises:
        ValueError: there is no C++ compiler.
    """
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise ValueError(
            f"compile needs a C++ compiler: {compiler} was not found; install g++ or set CXX"
        )


def compile_frozen(model: EAT, pixels: Tensor, precision: str) -> None:
    """Compile a model in place for passes of one shape; its weights must not change afterwards.

    Args:
        model: on its device.
        pixels: uint8 (B, 3, H, W), of that shape and device.
        precision: as for ``autocast``.

    Raises:
        ValueError: there is no C++ compiler.
    """
    import torch._inductor.config

    check_compiler()
    model.compile(dynamic=False)
    # On a CPU the weights become constants of the program, packed for its matrix products.
    frozen = torch._inductor.config.patch(freezing=pixels.device.type == "cpu")
    with frozen, torch.inference_mode(), autocast(pixels.device, precision):
        model(normalise(pixels))


def pick_device(name: str) -> torch.device:
    """The device that "auto" or "cpu" stands for."""
    return torch.device("cuda" if name == "auto" and torch.cuda.is_available() else "cpu")
