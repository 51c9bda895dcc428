"""The cost of enhanced attention and of models: Eq. 12, and a count of what is computed."""

from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from eat.models import create_model
from eat.models.cost import count_macs, enhanced_attention_macs, eq12, kernel_for, model_cost
from eat.models.deformable import DeformableAttention


@pytest.mark.parametrize(("size", "kernel"), [((14, 14), 8), ((7, 7), 1), ((9, 12), 3)])
def test_the_count_is_that_of_a_counter(size: tuple[int, int], kernel: int) -> None:
    module = DeformableAttention(
        64,
        8,
        num_groups=2,
        feature_size=size,
        interest_kernel=kernel,
        offset_kernel=kernel,
        pad_offsets=False,
        range_factor=None,
    )
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(torch.zeros(1, *size, 64))
    rows, cols = (side - kernel + 1 for side in size)
    macs = enhanced_attention_macs(*size, 64, rows, cols, k_in=kernel, k_of=kernel)
    assert counter.get_total_flops() == 2 * macs


def test_equation_12_by_hand() -> None:
    # H = W = 2, C = 3, one point, k_in = 2, k_of = 4:
    # 4 * 9 + 2 * 3 + 3 * 9 = 69, (16 + 3) * 3 = 57, 4 * 3 = 12
    assert eq12(2, 2, 3, 1, 1, k_in=2, k_of=4) == 69 + 57 + 12


def test_equation_12_leaves_out_the_output_projection_and_counts_points_as_queries() -> None:
    ours = enhanced_attention_macs(14, 14, 512, 7, 7, k_in=8, k_of=8)
    paper = eq12(14, 14, 512, 7, 7, k_in=8, k_of=8)
    output = 196 * 512**2
    queries = 2 * (196 - 49) * 49 * 512
    extra_key = 49 * 512**2
    interest = 64 * (2 * 196 - 49) * 512  # two channels, as terms of every token
    offsets = -49 * 512
    assert ours - paper == output + queries - extra_key + interest + offsets


def test_a_fixed_number_of_points_asks_for_a_kernel_that_grows_with_the_map() -> None:
    assert [kernel_for(side, 7) for side in (14, 20, 28, 40)] == [8, 14, 22, 34]
    with pytest.raises(ValueError, match=r"points must lie in \[1, 7\]"):
        kernel_for(7, 8)


def test_a_model_is_counted_without_computing_as_with() -> None:
    build = partial(create_model, "eat_nano", 10, 64)
    model, image = build().eval(), torch.zeros(1, 3, 64, 64)
    cost = model_cost(build)
    assert cost.params == sum(parameter.numel() for parameter in model.parameters())
    assert cost.macs == count_macs(model, image)
    assert cost.points == (4 - 3 + 1) ** 2  # stage 3 has 4 x 4 tokens at 64 pixels, and k_in 3
    stage_3 = eq12(4, 4, 128, 2, 2, k_in=3, k_of=3)
    assert cost.eq12 == stage_3 + eq12(2, 2, 256, 2, 2, k_in=1, k_of=1)


def test_a_model_that_compares_images_is_counted_for_one_of_them() -> None:
    cost = model_cost(partial(create_model, "tanet_ava"))
    # ResNet-18 has 1.8 G, MobileNetV2 0.3 G.
    assert cost.macs / 1e9 == pytest.approx(2.13, abs=0.01)


def test_memory_is_what_the_backward_pass_needs() -> None:
    small, large = (model_cost(partial(create_model, "eat_nano", 10, s)) for s in (96, 192))
    assert 3.5 < large.memory / small.memory < 4.5  # tokens: four times as many
    assert model_cost(partial(create_model, "swin_tiny", img_size=64)).points is None


def test_equation_12_is_not_for_blocks_without_offsets() -> None:
    assert model_cost(partial(create_model, "eat_nano", img_size=64, offsets=False)).eq12 is None
