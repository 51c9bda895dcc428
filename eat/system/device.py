"""Device, precision and compiler: where and how a model computes."""

import os
import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str) -> torch.device:
    """The device of a name: auto (CUDA's if there is one), cpu, cuda, cuda:1 or mps.

    Raises:
        ValueError: the name is another, or there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:\d{1,4})?", name):
        raise ValueError(
            f"device is {name!r}: expected auto, cpu, cuda, cuda:1 (the second) or mps"
        )
    device = torch.device(name)
    found = {"mps": int(torch.backends.mps.is_available()), "cuda": torch.cuda.device_count()}
    if (device.index or 0) >= found.get(device.type, 1):
        raise ValueError(
            f"device is {name!r}, but torch finds {found[device.type] or 'no'} GPU of this kind: "
            "expected auto, cpu or one that is there"
        )
    return device


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Autocast to ``precision``: fp32 (none), bf16 or fp16; int8 is bf16 but for some layers."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, DTYPES["bf16" if precision == "int8" else precision])


def fetch(x: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Start copying a tensor to the CPU.

    Returns:
        What gives the copy. It waits for ``x``, and not for what the device was given to do since.
    """
    if x.device.type != "cuda":
        return x.cpu
    copy, copied = x.to("cpu", non_blocking=True), torch.cuda.Event()
    copied.record(torch.cuda.current_stream(x.device))

    def wait() -> torch.Tensor:
        copied.synchronize()
        return copy

    return wait


def check_compiler() -> None:
    """Refuse to compile where it would fail during the first forward pass.

    Raises:
        ValueError: there is no C++ compiler.
    """
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise ValueError(
            f"compile needs a C++ compiler: {compiler} was not found; install g++ or set CXX"
        )
