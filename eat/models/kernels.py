"""Faster forms of five operations, four of them on a CPU; each computes what PyTorch's would.

The rest of the model can be read without this file. The figures are from docs/performance.md.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

HALF = (torch.bfloat16, torch.float16)

# PyTorch leaves float32 matrix products on a CPU to MKL, and convolutions, with more than one
# thread, to oneDNN. On AMD processors: 450 instead of 220 GFLOP/s, a training step 3.04 to 1.89 s.
ONEDNN_FOR_MKL = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()

# An exported program runs elsewhere, and so it gets the plain operations.
exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # of PyTorch 2.7 and later


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision to float32."""
    return x.float() if x.dtype in HALF else x


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``torch.nn.functional.linear``, in float32 on a CPU as a 1 x 1 convolution.

    Args:
        x: (..., C).
        weight: (C', C).
        bias: (C',).

    Returns:
        (..., C').
    """
    fast = ONEDNN_FOR_MKL and x.dtype == torch.float32 and x.device.type == "cpu"
    if exporting() or not fast:
        return F.linear(x, weight, bias)
    tokens = x.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)  # one image, channels innermost
    y = F.conv2d(tokens, weight[:, :, None, None], bias)
    return y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], len(weight))


class Linear(nn.Linear):
    """``torch.nn.Linear`` by :func:`linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C')."""
        return linear(x, self.weight, self.bias)


def products_for(channels: int, outputs: int, kernel: tuple[int, int]) -> bool:
    """Whether ``convolve`` makes one matrix product of a convolution."""
    return outputs * math.prod(kernel) <= channels


def convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution with few outputs: (B, H, W, C) -> (B, H - kh + 1, W - kw + 1, outputs).

    A matrix product gives what each token adds through each place of the kernel. Sums along the
    right strides are then the convolution. With two outputs of 512 channels in bf16: 0.89 to
    0.39 ms a block. Where these terms would outgrow the map, PyTorch's convolution is called.
    """
    B, H, W, C = x.shape
    outputs, kh, kw = conv.out_channels, *conv.weight.shape[2:]
    if exporting() or not products_for(C, outputs, (kh, kw)):
        return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    terms = linear(x, conv.weight.permute(2, 3, 0, 1).reshape(-1, C))
    image, row, col, _ = terms.stride()
    terms = terms.as_strided(
        (B, H - kh + 1, W - kw + 1, kh, kw, outputs),
        (image, row, col, row + kw * outputs, col + outputs, 1),
    )
    bias = conv.bias
    assert bias is not None
    return at_least_float32(terms).sum(dim=(3, 4)) + bias.to(terms.dtype)


def grid_sample(maps: Tensor, grid: Tensor) -> Tensor:
    """``torch.nn.functional.grid_sample`` with ``align_corners``, by PyTorch's own kernel.

    The function would choose cuDNN's on a GPU. That one is not made for maps with channels
    innermost, fails where a grid is large (pytorch/pytorch#88380), and compiles to a call that
    nothing is fused with.

    Args:
        maps: (B, C, H, W).
        grid: (B, H', W', 2) as (x, y), of the same type.

    Returns:
        (B, C, H', W').
    """
    if exporting():
        return F.grid_sample(maps, grid, align_corners=True)
    bilinear, zeros = 0, 0
    return torch.grid_sampler_2d(maps, grid, bilinear, zeros, True)


class DepthwiseConv(torch.autograd.Function):
    """A depthwise convolution of stride 1 whose weight gradient is one as well.

    Each channel of each image is convolved with its own gradient, and the images are summed up.
    Forward and backward of an 8 x 8 kernel in bf16: 2.9 to 1.2 ms. First derivatives only.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, int]
    ) -> Tensor:
        y = F.conv2d(x, weight, bias, padding=padding, groups=len(weight))
        ctx.save_for_backward(x.to(y.dtype), weight)  # as autocast may have cast it
        ctx.padding = padding
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        channels = len(weight)
        planes = len(x) * channels
        terms = F.conv2d(
            x.reshape(1, planes, *x.shape[2:]),
            grad.reshape(planes, 1, *grad.shape[2:]),
            padding=ctx.padding,
            groups=planes,
        )
        return (
            F.conv_transpose2d(grad, weight.to(grad.dtype), padding=ctx.padding, groups=channels),
            terms.view(len(x), *weight.shape).sum(0, dtype=weight.dtype),
            grad.sum((0, 2, 3), dtype=weight.dtype),
            None,
        )


def convolve_depthwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A depthwise convolution with bias, of stride 1: (B, C, H, W) -> (B, C, H', W')."""
    # PyTorch's gradient is fast on a GPU, and for small kernels.
    if exporting() or x.device.type != "cpu" or max(conv.kernel_size) <= 3:
        return conv(x)
    return DepthwiseConv.apply(x, conv.weight, conv.bias, conv.padding)


class HalfSoftmax(torch.autograd.Function):
    """Softmax of half-precision logits plus a bias, computed in float32.

    For rows of 49 PyTorch's takes 0.97 ms in bf16 and 0.42 ms in fp32. Logits widened outside this
    function would have training keep the weights in both precisions: 12% of a step's memory.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, bias: Tensor) -> Tensor:
        weights = logits.float().add_(bias).softmax(dim=-1).to(logits.dtype)
        ctx.save_for_backward(weights)
        ctx.bias = bias.shape, bias.dtype
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        (weights,) = ctx.saved_tensors
        shape, dtype = ctx.bias
        grad = torch._softmax_backward_data(grad, weights, -1, weights.dtype)
        return grad, grad.sum_to_size(shape).to(dtype)


def biased_softmax(logits: Tensor, bias: Tensor) -> Tensor:
    """Softmax over the last axis of logits plus bias, rounded to the precision of the logits.

    Args:
        logits: (..., N); may be overwritten.
        bias: broadcastable to ``logits``.
    """
    if exporting():
        return (at_least_float32(logits) + bias).softmax(dim=-1).to(logits.dtype)
    if logits.dtype in HALF:
        return HalfSoftmax.apply(logits, bias)
    return logits.add_(bias).softmax(dim=-1)
