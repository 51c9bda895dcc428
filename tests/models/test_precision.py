"""What is computed in float32 in a model that runs in half precision."""

import pytest
import torch

from eat.models.precision import biased_softmax


@pytest.mark.parametrize("bias_shape", [(1, 3, 5, 7), (4, 3, 5, 7), (7,)])
def test_the_softmax_in_half_precision_is_that_in_float32_rounded(bias_shape: tuple) -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 3, 5, 7).bfloat16().requires_grad_()
    bias = torch.randn(bias_shape, requires_grad=True)
    wide = logits.detach().float().requires_grad_()
    wanted = (wide + bias).softmax(dim=-1)
    found = biased_softmax(logits * 1, bias)
    assert torch.equal(found, wanted.bfloat16())
    slope = torch.randn_like(found)
    ours = torch.autograd.grad(found, (logits, bias), slope)
    theirs = torch.autograd.grad(wanted, (wide, bias), slope.float())
    assert ours[1].dtype == torch.float32
    for gradient, exact in zip(ours, theirs, strict=True):
        torch.testing.assert_close(gradient.float(), exact, rtol=0.02, atol=0.02)
