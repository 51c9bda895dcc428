"""DeT, the Delegate Transformer (He et al., ICCV 2023): EAT's backbone and a colour histogram."""

import torch
from torch import Tensor, nn

from eat.models.backbone import EAT, init_linear
from eat.models.deformable import Offsets

COORDINATES, BINS = 36, 6  # of the learned colour space


class ColourHistogram(nn.Module):
    """Soft histogram of learned colour coordinates, with bins of learned centres and widths.

    The bins start as triangles that touch in [0, 1]; a coordinate outside is in none of them.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.coordinates = nn.Linear(dim, COORDINATES)
        init_linear(self.coordinates)
        centres = torch.linspace(0.5 / BINS, 1 - 0.5 / BINS, BINS)
        self.shifts = nn.Parameter(-centres.repeat(COORDINATES))
        self.slopes = nn.Parameter(torch.full((COORDINATES * BINS,), -2.0 * BINS))

    def count(self, u: Tensor) -> Tensor:
        """(B, 36) coordinates -> (B, 216) shares of bins, those of a coordinate side by side."""
        distances = (u.repeat_interleave(BINS, dim=1) + self.shifts).abs()
        return (1 + self.slopes * distances).relu()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) -> (B, 216)."""
        return self.count(self.coordinates(x))


class DeT(EAT):
    """EAT whose head rates a soft histogram of colour coordinates; scores lie in [0, 1].

    Settings are those of ``EAT``. The release is EAT's released profile of the base size, for
    ICAA17K with ``gate_points`` and two outputs, for SPAQ with one.
    """

    poolings = ()

    @property
    def ends_in_softmax(self) -> bool:
        return False

    def build_head(self, num_outputs: int) -> None:
        super().build_head(num_outputs)
        self.histogram = ColourHistogram(self.num_features)
        for module in self.modules():
            if isinstance(module, Offsets):
                module.round_spacing = False

    @property
    def head_hidden_size(self) -> int:
        return COORDINATES * BINS

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, h, w, C) features -> (B, num_outputs); the histogram (B, 216) with ``pre_logits``."""
        x = self.histogram(x.mean(dim=(1, 2)))
        return x if pre_logits or not self.num_outputs else self.activate(self.head(x))

    def activate(self, x: Tensor) -> Tensor:
        return x.sigmoid()
