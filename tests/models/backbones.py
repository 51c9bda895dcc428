"""Tiny transformers of timm with random weights, in float64."""

from typing import Any

import timm
import torch
from torch import Tensor, nn

SMALL: dict[str, Any] = {"depth": 4, "embed_dim": 16, "num_heads": 4, "num_classes": 3}
STAGED: dict[str, Any] = {"depths": (1, 1, 2, 2), "img_size": 64, "num_classes": 3}
WINDOWS = STAGED | {"window_size": 2, "embed_dim": 8, "num_heads": (1, 2, 2, 4)}
GRIDS = STAGED | {"depths": (1, 1, 2, 1), "embed_dim": (32, 32, 32, 64), "stem_width": 8}

PLAIN: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {"img_size": (64, 80), "qk_norm": True},
    "deit_tiny_distilled_patch16_224": {"img_size": 64},
    "eva_giant_patch14_224": {"img_size": 56},
    "eva02_tiny_patch14_224": {"img_size": (56, 70), "scale_attn_inner": True},
    "vit_base_patch16_rope_mixed_224": {"img_size": 64},
    "vit_base_patch16_dinov3": {"img_size": (64, 96)},
    "vit_small_patch14_reg4_dinov2": {"img_size": 56},
    "vit_base_patch16_siglip_224": {"img_size": 64},
}
HIERARCHICAL: dict[str, dict[str, Any]] = {
    "swin_tiny_patch4_window7_224": WINDOWS,
    "swinv2_tiny_window8_256": WINDOWS,
    "maxvit_tiny_tf_224": GRIDS,
    "maxvit_rmlp_pico_rw_256": GRIDS,
}


def backbone(name: str) -> nn.Module:
    """A model with weights that matter."""
    torch.manual_seed(0)
    settings = SMALL | PLAIN[name] if name in PLAIN else HIERARCHICAL[name]
    model = timm.create_model(name, **settings).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=0.05, std=0.2)
    return model


def images_for(name: str, batch: int = 2) -> Tensor:
    size = (PLAIN | HIERARCHICAL).get(name, STAGED)["img_size"]
    height, width = (size, size) if isinstance(size, int) else size
    draw = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, height, width, dtype=torch.float64, generator=draw)
