"""Device, precision and compiler: where and how a model computes."""

import os
import shutil
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str) -> torch.device:
    """The device of a name: auto (a GPU if there is one), cpu or cuda.

    Raises:
        ValueError: the name is another, or there is no GPU for "cuda".
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device is {name!r}: expected auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but torch finds no GPU: expected auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Autocast to ``precision``: fp32 (none), bf16 or fp16."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


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
