"""The faster forms compute what the plain operations do, and so do their gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eat.models.kernels import Linear, biased_softmax, convolve, convolve_depthwise, products_for


def same(found: Tensor, wanted: Tensor, *inputs: Tensor) -> None:
    """Two results agree, and so do the gradients with respect to all inputs."""
    torch.testing.assert_close(found, wanted)
    slope = torch.randn_like(wanted)
    ours, theirs = (torch.autograd.grad(y, inputs, slope) for y in (found, wanted))
    torch.testing.assert_close(ours, theirs)


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


@pytest.mark.parametrize(("kernel", "products"), [((3, 4), True), ((1, 1), True), ((4, 5), False)])
def test_a_convolution_as_products_is_the_convolution(
    kernel: tuple[int, int], products: bool
) -> None:
    assert products_for(24, 2, kernel) == products
    torch.manual_seed(0)
    conv = nn.Conv2d(24, 2, kernel).double()
    x = torch.randn(2, 7, 9, 24, dtype=torch.float64, requires_grad=True)
    wanted = conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    found = convolve(conv, x)
    same(found, wanted, x, conv.weight, conv.bias)


@pytest.mark.parametrize(
    ("kernel", "padding", "size"),
    [
        (8, 0, (14, 14)),
        (4, 0, (4, 6)),
        (5, 2, (6, 5)),
        (7, 3, (4, 3)),
        (3, 1, (5, 4)),
        (1, 0, (3, 3)),
    ],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_depthwise_convolution_has_the_gradients_of_one(
    kernel: int, padding: int, size: tuple[int, int], layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 6, kernel, padding=padding, groups=6).double()
    x = torch.randn(3, 6, *size, dtype=torch.float64).contiguous(memory_format=layout)
    x.requires_grad_()
    wanted = F.conv2d(x, conv.weight, conv.bias, padding=padding, groups=6)
    same(convolve_depthwise(conv, x), wanted, x, conv.weight, conv.bias)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_under_autocast_gradients_have_the_precision_of_what_they_are_of(
    dtype: torch.dtype,
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 6, 5, groups=6)
    x = torch.randn(40, 6, 9, 9).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = convolve_depthwise(conv, x)
    assert y.dtype == torch.bfloat16
    slope = torch.randn_like(y)
    inputs = (x, conv.weight, conv.bias)
    found = torch.autograd.grad(y, inputs, slope)
    assert [gradient.dtype for gradient in found] == [dtype, torch.float32, torch.float32]
    wanted = torch.autograd.grad(conv(x.float()), inputs, slope.float())
    for ours, theirs in zip(found, wanted, strict=True):
        difference = (ours.float() - theirs.float()).abs().max()
        assert difference <= 0.01 * theirs.float().abs().max()


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
