"""What must be computed in float32 though autocast runs the model in half precision."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

HALF = (torch.bfloat16, torch.float16)


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision to float32."""
    return x.float() if x.dtype in HALF else x


class HalfSoftmax(torch.autograd.Function):
    """Softmax of half-precision logits and a bias, computed in float32.

    Widened outside, the logits would have training keep the weights in both precisions. PyTorch's
    own softmax widens them too, but takes twice as long for rows of 49 on a CPU.
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
    if logits.dtype in HALF:
        return HalfSoftmax.apply(logits, bias)
    return logits.add_(bias).softmax(dim=-1)
