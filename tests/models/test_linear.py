"""A linear layer computed as a convolution is a linear layer."""

import pytest
import torch
import torch.nn.functional as F

from eat.models.linear import Linear


@pytest.mark.parametrize("shape", [(2, 5, 6, 24), (3, 7, 24), (4, 24), (1, 24), (24,)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_linear_layer_and_its_gradients(shape: tuple, bias: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = Linear(24, 40, bias=bias, dtype=dtype)
    x = torch.randn(shape, dtype=dtype).requires_grad_()
    found, wanted = layer(x), F.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(found, wanted)
    slope = torch.randn_like(wanted)
    inputs = [x, *layer.parameters()]
    ours, theirs = (torch.autograd.grad(y, inputs, slope) for y in (found, wanted))
    torch.testing.assert_close(ours, theirs)


def test_tokens_need_not_lie_one_after_the_other() -> None:
    torch.manual_seed(0)
    layer = Linear(8, 3)
    x = torch.randn(2, 8, 4, 5).permute(0, 2, 3, 1)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))
