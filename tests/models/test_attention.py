"""Window attention against loops, and its masks at sizes that it was not built for."""

import numpy as np
import pytest
import torch
from oracles import window_attention

from eat.models.attention import MASKED, WindowAttention, attend, shift_mask


def build(size: tuple[int, int], window: int, shift: int) -> WindowAttention:
    torch.manual_seed(0)
    module = WindowAttention(8, 2, feature_size=size, window_size=window, shift=shift).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


@pytest.mark.parametrize(
    ("size", "window", "shift"),
    [
        ((6, 9), 3, 0),
        ((6, 9), 3, 1),
        ((8, 8), 4, 2),
        ((9, 6), 3, 2),  # ceil(w / 2), as released
        ((5, 7), 3, 0),  # the window does not divide the map
        ((5, 7), 3, 1),
        ((3, 8), 3, 2),  # one window high: not shifted along that side
        ((2, 2), 4, 2),  # smaller than a window
    ],
)
def test_window_attention_is_attention_within_windows(
    size: tuple[int, int], window: int, shift: int
) -> None:
    module = build(size, window, shift)
    x = torch.randn(2, *size, 8, dtype=torch.float64)
    np.testing.assert_allclose(module(x).detach(), window_attention(module, x), atol=1e-12)


def test_a_shift_lets_neighbours_across_a_window_border_meet_and_no_others() -> None:
    module = build((6, 6), 3, 1)
    x = torch.randn(1, 6, 6, 8, dtype=torch.float64, requires_grad=True)
    # The window of token (3, 3) covers rows and columns 1 to 3.
    module(x)[0, 3, 3].sum().backward()
    reach = x.grad[0].abs().sum(-1) > 1e-12
    expected = torch.zeros(6, 6, dtype=torch.bool)
    expected[1:4, 1:4] = True
    assert torch.equal(reach, expected)


@pytest.mark.parametrize("size", [(12, 6), (10, 11), (3, 7), (21, 9)])
def test_another_size_gives_what_a_module_built_for_it_gives(size: tuple[int, int]) -> None:
    usual, native = build((6, 6), 3, 1), build(size, 3, 1)
    native.load_state_dict(usual.state_dict())
    x = torch.randn(1, *size, 8, dtype=torch.float64)
    torch.testing.assert_close(usual(x), native(x), rtol=0, atol=0)


def test_the_mask_is_kept_out_of_the_weights() -> None:
    assert set(build((6, 6), 3, 1).state_dict()) == {
        "qkv.weight",
        "qkv.bias",
        "proj.weight",
        "proj.bias",
        "bias_table",
    }


def test_the_shift_mask_of_a_row_of_two_windows() -> None:
    # One row of 4 tokens in windows of 2, shifted by 1: 1 2 | 3 0. Only 3 and 0 must not meet.
    mask = shift_mask(2, 4, 2, (0, 1))
    assert mask.shape == (2, 4, 4)
    assert not mask[0].any()
    apart = torch.tensor([[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]])
    assert torch.equal(mask[1], MASKED * apart)


def test_attention_of_two_keys_by_hand() -> None:
    # Logits 2 * 1 / sqrt(4) + 0 = 1 and 0 + 1 - log 3: weights 3/4 and 1/4.
    q = torch.tensor([2.0, 0, 0, 0]).view(1, 1, 1, 4)
    k = torch.tensor([[1.0, 0, 0, 0], [0, 5, 0, 0]]).view(1, 1, 2, 4)
    v = torch.tensor([[4.0, 0, 0, 0], [0, 8, 0, 0]]).view(1, 1, 2, 4)
    bias = torch.tensor([0, 1 - np.log(3)], dtype=torch.float32).view(1, 1, 1, 2)
    record: dict[str, torch.Tensor] = {}
    out = attend(q, k, v, bias, record)
    torch.testing.assert_close(out.flatten(), torch.tensor([3.0, 2, 0, 0]))
    torch.testing.assert_close(record["attention"].flatten(), torch.tensor([0.75, 0.25]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 7}, r"dim \(7\) must be a multiple of num_heads \(2\)"),
        ({"shift": 3}, r"shift must lie in \[0, 2\], got 3"),
        ({"shift": -1}, r"shift must lie in \[0, 2\], got -1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, int], message: str) -> None:
    settings = {"dim": 8, "num_heads": 2, "window_size": 3} | settings
    with pytest.raises(ValueError, match=message):
        WindowAttention(
            settings.pop("dim"), settings.pop("num_heads"), feature_size=(6, 6), **settings
        )
