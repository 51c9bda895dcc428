"""The convolutions of points and offsets, computed the way that is fastest for their shapes."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from eat.models.linear import linear
from eat.models.precision import at_least_float32


def products_for(channels: int, outputs: int, kernel: tuple[int, int]) -> bool:
    """Whether ``convolve`` makes one matrix product of a convolution."""
    return outputs * math.prod(kernel) <= channels


def convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution with few outputs: (B, H, W, C) -> (B, H - kh + 1, W - kw + 1, outputs).

    Kernels for convolutions idle with two outputs. One matrix product gives what each token adds
    through each place of the kernel, and sums along the right strides are the convolution; unless
    these terms would outgrow the map.
    """
    B, H, W, C = x.shape
    outputs, _, kh, kw = conv.weight.shape
    if not products_for(C, outputs, (kh, kw)):
        return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    terms = linear(x, conv.weight.permute(2, 3, 0, 1).reshape(-1, C))
    image, row, col, _ = terms.stride()
    terms = terms.as_strided(
        (B, H - kh + 1, W - kw + 1, kh, kw, outputs),
        (image, row, col, row + kw * outputs, col + outputs, 1),
    )
    return at_least_float32(terms).sum(dim=(3, 4)) + conv.bias.to(terms.dtype)


def pad_to_kernel(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Zero-pad a map (B, C, H, W) that is smaller than the kernel up to the kernel's size."""
    rows = max(conv.kernel_size[0] - x.shape[-2], 0)
    cols = max(conv.kernel_size[1] - x.shape[-1], 0)
    if not rows and not cols:
        return x
    return F.pad(x, (cols // 2, cols - cols // 2, rows // 2, rows - rows // 2))


class DepthwiseConv(torch.autograd.Function):
    """A depthwise convolution of stride 1 whose weight gradient is one as well.

    PyTorch's kernel for that gradient takes ten times as long on a CPU as the convolution. Here
    each channel of each image is convolved with its own gradient, and the images are summed up.
    Only first derivatives are there.
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
    if x.device.type != "cpu" or max(conv.kernel_size) <= 3:  # PyTorch's gradient is fast there
        return conv(x)
    return DepthwiseConv.apply(x, conv.weight, conv.bias, conv.padding)
