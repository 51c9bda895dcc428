"""How a trained model is run: device, precision, and interest points of each image's own."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from eat.models import EAT
from eat.models.deformable import InterestPoints

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


def pick_device(name: str) -> torch.device:
    """The device that "auto" or "cpu" stands for."""
    return torch.device("cuda" if name == "auto" and torch.cuda.is_available() else "cpu")


def use_own_points(model: EAT) -> None:
    """Give every image its own interest points, also where the profile averages them."""
    for module in model.modules():
        if isinstance(module, InterestPoints):
            module.average = False
