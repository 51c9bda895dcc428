"""The share of attention that falls on a mask, against shares worked out by hand."""

import pytest
import torch
from conftest import SMALL

import eat
from eat.evaluation.shares import (
    attention_on_masks,
    gradient_on_masks,
    looking_blocks,
    share_at_positions,
    share_in_windows,
)
from eat.models.attention import WindowAttention
from eat.models.deformable import uniform_grid

LEFT = torch.tensor([[1.0, 0.0], [1.0, 0.0]])[None]  # the left half of a map of 2 x 2 tokens


def positions(*places: tuple[float, float]) -> torch.Tensor:
    return torch.tensor(places).view(1, 1, 1, -1, 2)


def test_sampled_attention_counts_by_its_weight_and_the_mask_between_tokens() -> None:
    attention = torch.tensor([[0.5, 0.3, 0.2], [0.7, 0.1, 0.2]]).view(1, 1, 2, 3)
    places = positions((0, -1), (1, 1), (-1, 0))  # on the left, on the right, between the two
    share = share_at_positions(attention, places, LEFT)
    assert share.tolist() == pytest.approx([0.6 + 0.2 / 2])  # the mean over queries


def test_samples_outside_of_the_map_do_not_count() -> None:
    attention = torch.tensor([0.2, 0.4, 0.4]).view(1, 1, 1, 3)
    share = share_at_positions(attention, positions((0, -1), (0, 1), (0, 5)), LEFT)
    assert share.item() == pytest.approx(0.2 / (0.2 + 0.4))


def test_each_head_looks_at_the_positions_of_its_own_group() -> None:
    attention = torch.tensor([[0.9, 0.1], [0.5, 0.5]]).view(1, 2, 1, 2)
    first, second = positions((0, -1), (0, 1)), positions((0, 1), (0, 1))
    share = share_at_positions(attention, torch.cat((first, second), dim=1), LEFT)
    assert share.item() == pytest.approx((0.9 + 0) / 2)


def test_even_attention_on_a_uniform_grid_has_the_share_of_the_area() -> None:
    mask = torch.zeros(1, 8, 8)
    mask[:, :, :6] = 1
    grid = uniform_grid(8, 8, mask) * 8 / 7  # the centres of all tokens
    share = share_at_positions(torch.full((1, 1, 4, 64), 1 / 64), grid[None, None], mask)
    assert share.item() == pytest.approx(0.75, abs=1e-6)


def test_a_windows_attention_counts_by_its_keys_and_not_on_padding() -> None:
    layer = WindowAttention(4, 2, feature_size=(2, 3), window_size=2)
    mask = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])[None]
    attention = torch.full((1, 2 * 2, 4, 4), 0.25)  # two windows, the right half of one is padded
    attention[:, 0] = torch.tensor([0.7, 0.1, 0.1, 0.1])  # first window, first head
    share = share_in_windows(attention, mask, layer)
    left = 4 * (0.7 + 0.25) / 2  # of four queries; one key of the mask
    right = 2 * 0.5  # of two queries; both keys that are no padding
    assert share.item() == pytest.approx((left + right) / (4 + right))


def test_windows_of_a_mask_are_shifted_as_those_of_the_features() -> None:
    layer = WindowAttention(4, 1, feature_size=(4, 4), window_size=2, shift=1)
    mask = torch.arange(16.0).view(1, 4, 4, 1)
    assert layer.to_windows(mask)[0, 0, :, 0].tolist() == [5, 6, 9, 10]


def test_the_blocks_in_which_models_differ_are_looked_at_in_all_batches() -> None:
    settings = SMALL | {"stages": ["L", "S", "LSD", "LE"], "window_size": 3}
    model = eat.create_model("eat_nano", img_size=64, **settings).eval()
    masks = torch.ones(5, 64, 64)
    masks[3:] = 0
    batches = [torch.randn(count, 3, 64, 64) for count in (2, 2, 1)]
    names = ("stages.2.blocks.1", "stages.2.blocks.2", "stages.3.blocks.1")
    shares = attention_on_masks(model, batches, masks)
    assert shares == pytest.approx(dict.fromkeys(names, 0.6))


def test_gradients_on_a_mask_and_on_its_rest_are_all() -> None:
    torch.manual_seed(0)
    model = eat.create_model("eat_nano", img_size=64, **SMALL).eval()
    pixels = torch.randn(3, 3, *model.img_size)
    masks = torch.zeros(3, *pixels.shape[2:])
    masks[:, :, : pixels.shape[3] // 2] = 1

    def shares(masks: torch.Tensor) -> dict[str, float]:
        return gradient_on_masks(model, pixels.split(2), masks, lambda outputs: outputs[:, 0])

    left, right = shares(masks), shares(1 - masks)
    assert left.keys() == looking_blocks(model).keys() and len(left) >= 2
    for name, share in left.items():
        assert 0 < share < 1 and share + right[name] == pytest.approx(1)
