"""Small enhanced modules, and models with them, in float64."""

from typing import Any

import torch
from torch import Tensor

from eat import create_model
from eat.models.backbone import EAT
from eat.models.deformable import DeformableAttention


def nano(**settings: Any) -> EAT:
    torch.manual_seed(0)
    return create_model("eat_nano", num_outputs=3, **settings).double()


def images(batch: int, seed: int = 1) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, 96, 96, dtype=torch.float64, generator=draw)


def attention(size: tuple[int, int] = (5, 6), **settings: Any) -> DeformableAttention:
    """A paper-profile module of 8 channels, 4 heads, 2 groups, with weights that matter."""
    settings = {
        "num_groups": 2,
        "interest_kernel": 3,
        "offset_kernel": 3,
        "pad_offsets": False,
        "range_factor": None,
        "eta": 0.25,
        "rotate": True,
        "bound_positions": True,
    } | settings
    torch.manual_seed(0)
    module = DeformableAttention(8, 4, feature_size=size, **settings).double()
    for name, parameter in module.named_parameters():
        torch.nn.init.normal_(parameter, std=0.3 if "interest" in name else 0.6)
    return module


def features(batch: int = 2, size: tuple[int, int] = (5, 6)) -> Tensor:
    draw = torch.Generator().manual_seed(2)
    return torch.randn(batch, *size, 8, dtype=torch.float64, generator=draw)
