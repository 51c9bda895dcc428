"""Linear layers, which are most of the work."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# On a CPU PyTorch leaves matrix products in float32 to MKL and convolutions, with more than one
# thread, to oneDNN, which takes half as long on an AMD processor.
ONEDNN_FOR_MKL = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``torch.nn.functional.linear``, in float32 on a CPU as a convolution of 1 x 1.

    Args:
        x: (..., C).
        weight: (C', C).
        bias: (C',).

    Returns:
        (..., C').
    """
    if not (ONEDNN_FOR_MKL and x.dtype == torch.float32 and x.device.type == "cpu"):
        return F.linear(x, weight, bias)
    tokens = x.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)  # one picture, channels innermost
    y = F.conv2d(tokens, weight[:, :, None, None], bias)
    return y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], len(weight))


class Linear(nn.Linear):
    """``torch.nn.Linear`` by :func:`linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C')."""
        return linear(x, self.weight, self.bias)
