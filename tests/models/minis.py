"""Very small models of both profiles."""

from typing import Any

import torch
from torch import Tensor, nn

from eat.models.backbone import EAT
from eat.models.variants import RELEASED

MINI: dict[str, Any] = {"dims": (8, 16, 16, 32), "heads": (1, 2, 2, 4), "window_size": 3}
PROFILES: dict[str, dict[str, Any]] = {
    "paper": {"interest_kernels": (13, 7, 3, 1), "stages": ("LS", "LS", "LE", "LE")},
    "released": RELEASED | {"shift": 2, "stages": ("LS", "LS", "LE", "LE")},
}


def mini(profile: str = "paper", **settings: Any) -> EAT:
    torch.manual_seed(0)
    base = {"img_size": 64, "drop_path_rate": 0.0}
    return EAT(**MINI | PROFILES[profile] | base | settings)


def images(height: int = 64, width: int | None = None, batch: int = 2) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, height, width or height, generator=draw)


SMALL: dict[str, Any] = {"dims": (8, 16, 32, 64), "heads": (1, 2, 4, 8), "drop_path_rate": 0.0}


def small(seed: int = 0, **settings: Any) -> EAT:
    """Every kind of block; stages 3 and 4 end in enhanced attention."""
    torch.manual_seed(seed)
    return EAT(**SMALL | {"stages": ("LS", "LS", "LE", "DE")} | settings)


def copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model: nn.Module, state: dict[str, Tensor]) -> bool:
    now = model.state_dict()
    return set(now) == set(state) and all(torch.equal(now[n], state[n]) for n in now)
