"""Enhanced attention (section 4.1): its equations, one by one and against loops."""

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from enhanced import attention, features, images, nano
from torch import Tensor

from eat import create_model
from eat.models.backbone import EAT
from eat.models.deformable import (
    InterestPoints,
    kept_grid,
    position_bias,
    sample_features,
)
from eat.models.variants import RELEASED

# What a score depends on


def test_the_score_of_an_image_does_not_depend_on_its_batch_in_the_paper_profile() -> None:
    model, x = nano().eval(), images(3)
    with torch.no_grad():
        alone = torch.cat([model(image[None]) for image in x])
        torch.testing.assert_close(model(x), alone, rtol=1e-10, atol=1e-12)


def test_the_score_depends_on_the_batch_in_the_released_profile_through_averaged_points() -> None:
    model, x = nano(**RELEASED).eval(), images(3)
    with torch.no_grad():
        alone = torch.cat([model(image[None]) for image in x])
        assert (model(x) - alone).abs().max() > 1e-8
        assert torch.equal(model(x[:1]), alone[:1])
    model = nano(**RELEASED | {"average_points": False}).eval()
    with torch.no_grad():
        alone = torch.cat([model(image[None]) for image in x])
        torch.testing.assert_close(model(x), alone, rtol=1e-10, atol=1e-12)


def test_evaluation_is_deterministic() -> None:
    model, x = nano(drop_path_rate=0.5).eval(), images(2)
    with torch.no_grad():
        assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("rotate", [True, False])
def test_training_forwards_differ_only_where_offsets_rotate(rotate: bool) -> None:
    model, x = nano(rotate=rotate).train(), images(2)
    with torch.no_grad():
        assert torch.equal(model(x), model(x)) is not rotate


# Against loops


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bound_positions": False},  # some samples lie outside the map
        {"num_groups": 4},
        {"num_groups": 1},
        {"interest_kernel": 2, "offset_kernel": 2},
        {"interest_kernel": 1, "pad_offsets": True, "range_factor": 2.0, "bound_positions": False},
    ],
)
def test_without_guidance_it_is_plain_deformable_attention_around_learned_points(
    settings: dict[str, Any],
) -> None:
    module, x = attention(eta=1.0, **settings).train(), features()
    module.exploration.zero_()  # the angles are 0
    # point_spacing is float32 on purpose, so range_factor costs seven digits
    atol = 1e-6 if "range_factor" in settings else 1e-11
    expected = oracles.plain_deformable(module, x)
    np.testing.assert_allclose(module(x).detach(), expected, rtol=0, atol=atol)


def test_with_guidance_it_attends_to_the_guided_positions() -> None:
    module, x = attention().train(), features()
    record: dict[str, Tensor] = {}
    out = module(x, record)
    for b, image in enumerate(oracles.array(x)):
        points = oracles.interest_points(module, image)
        raw = oracles.raw_offsets(module, oracles.linear(image, module.q))
        weight = np.where((raw * points > 0).all(-1), 1, 0.25)
        guided = oracles.array(record["offsets"][b])
        np.testing.assert_allclose(
            np.linalg.norm(guided, axis=-1), weight * np.linalg.norm(raw, axis=-1), rtol=1e-10
        )
        positions = np.tanh(points + guided)
        np.testing.assert_allclose(record["positions"][b].detach(), positions, atol=1e-12)
        expected = oracles.attend_to(module, image, positions.reshape(2, -1, 2))
        np.testing.assert_allclose(out[b].detach(), expected, rtol=0, atol=1e-11)


# Points (Eq. 4)


def test_a_kernel_of_8_on_a_14_by_14_map_gives_7_by_7_points() -> None:
    points = InterestPoints(4, 8)(torch.randn(2, 14, 14, 4))
    assert points.shape == (2, 1, 7, 7, 2)


def test_a_grid_first_made_while_scoring_serves_in_training() -> None:
    like = torch.zeros(0, dtype=torch.float64)
    with torch.inference_mode():
        kept_grid(5, 3, like)
    module = attention((5, 3))
    module(features(size=(5, 3))).sum().backward()
    assert module.bias_table.grad is not None
    assert kept_grid(5, 3, like) is kept_grid(5, 3, like)


@pytest.mark.parametrize(("size", "points"), [(384, (17, 12)), (512, (25, 16)), (640, (33, 20))])
def test_kernels_stay_and_points_grow_with_the_image(size: int, points: tuple[int, int]) -> None:
    model = EAT(dims=(8, 8, 8, 8), heads=(1, 1, 1, 1), stages=("L", "L", "E", "E"), img_size=size)
    found = []
    for stage, side in ((2, size // 16), (3, size // 32)):
        found.append(model.stages[stage].blocks[0].attn.points(torch.zeros(1, side, side, 8)))
    assert [p.shape[2:4] for p in found] == [(n, n) for n in points]


def test_stages_3_and_4_of_the_paper_profile_have_49_points_each_at_224() -> None:
    model = create_model("eat_nano", img_size=224, window_size=7, interest_kernels=(50, 22, 8, 1))
    record: dict[str, dict[str, Tensor]] = {"stages.2.blocks.1": {}, "stages.3.blocks.1": {}}
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, 224, 224), record)
    assert [r["points"].shape[2:4] for r in record.values()] == [(7, 7), (7, 7)]


@pytest.mark.parametrize(
    ("size", "points"), [((4, 4), (1, 1)), ((7, 12), (1, 5)), ((1, 1), (1, 1))]
)
def test_a_map_smaller_than_the_kernel_is_zero_padded_to_one_point(
    size: tuple[int, int], points: tuple[int, int]
) -> None:
    module = attention(size, interest_kernel=8, offset_kernel=8)
    record: dict[str, Tensor] = {}
    x = features(size=size)
    assert module(x, record).shape == (2, *size, 8)
    assert record["positions"].shape == (2, 2, *points, 2)
    if size == (4, 4):  # the map lies in the middle of the kernel
        weight = module.interest.conv.weight[:, :, 2:6, 2:6]
        by_hand = (torch.einsum("bhwc,ochw->bo", x, weight) + module.interest.conv.bias).tanh()
        torch.testing.assert_close(record["points"][:, 0, 0, 0], by_hand)


def test_points_are_one_for_all_groups_and_offsets_are_not() -> None:
    record: dict[str, Tensor] = {}
    attention().eval()(features(), record)
    assert record["points"].shape == (2, 1, 3, 4, 2)
    assert record["offsets"].shape == (2, 2, 3, 4, 2)
    assert not torch.equal(record["offsets"][:, 0], record["offsets"][:, 1])
    assert not torch.equal(record["points"][0], record["points"][1])


def test_released_points_are_the_tanh_of_the_batch_average() -> None:
    net = InterestPoints(8, 1, average=True).double()
    x = features(3)
    single = torch.cat([net(image[None]) for image in x])
    torch.testing.assert_close(net(x), single.atanh().mean(0, keepdim=True).tanh())
    assert not torch.allclose(net(x), single.mean(0, keepdim=True), rtol=1e-6)


def test_positions_lie_inside_the_map_with_the_tanh_and_may_leave_it_without() -> None:
    x = 4 * features(8)
    record: dict[str, Tensor] = {}
    attention()(x, record)
    assert record["positions"].abs().max() < 1
    attention(bound_positions=False)(x, record)
    assert record["positions"].abs().max() > 1


def test_without_points_a_uniform_grid_of_as_many_takes_their_place() -> None:
    record: dict[str, Tensor] = {}
    attention(interest=False)(features(), record)
    assert record["points"].shape == (1, 1, 3, 4, 2)
    y, x = record["points"][0, 0, :, 0, 0], record["points"][0, 0, 0, :, 1]
    torch.testing.assert_close(y, torch.tensor([-2 / 3, 0, 2 / 3], dtype=torch.float64))
    torch.testing.assert_close(x, torch.tensor([-0.75, -0.25, 0.25, 0.75], dtype=torch.float64))


GRID_OF_2 = torch.tensor([-0.5, 0.5], dtype=torch.float64)


@pytest.mark.parametrize("interest", [True, False])
@pytest.mark.parametrize("offsets", [True, False])
def test_every_row_of_table_5_has_as_many_points(interest: bool, offsets: bool) -> None:
    """The default profile at 224 has 7 x 7 points in both late stages."""
    settings: dict[str, Any] = {"img_size": 224, "window_size": 7, "dims": (8, 8, 8, 16)}
    settings |= {"heads": (1, 1, 1, 2), "stages": ("L", "L", "E", "E")}
    model = EAT(interest=interest, offsets=offsets, **settings).eval()
    record: dict[str, dict[str, Tensor]] = {"stages.2.blocks.0": {}, "stages.3.blocks.0": {}}
    with torch.no_grad():
        model(torch.randn(1, 3, 224, 224), record)
    assert [r["positions"].shape[2:4] for r in record.values()] == [(7, 7), (7, 7)]


def test_a_grid_that_nothing_moves_stays_as_it_is() -> None:
    record: dict[str, Tensor] = {}
    attention((4, 4), interest=False, offsets=False)(features(size=(4, 4)), record)
    assert torch.equal(record["positions"][0, 0], record["points"][0, 0])
    torch.testing.assert_close(record["positions"][0, 0, :, 0, 0], GRID_OF_2)


def test_a_grid_that_offsets_move_is_bound_by_equation_10() -> None:
    record: dict[str, Tensor] = {}
    attention((4, 4), interest=False)(features(size=(4, 4)), record)
    torch.testing.assert_close(record["points"][0, 0, :, 0, 0], GRID_OF_2)
    moved = record["points"] + record["offsets"]
    torch.testing.assert_close(record["positions"], moved.tanh())


def test_without_offsets_the_positions_are_the_points() -> None:
    record: dict[str, Tensor] = {}
    attention(offsets=False, bound_positions=False)(features(), record)
    assert "offsets" not in record
    assert torch.equal(record["positions"][:, 1], record["points"][:, 0])


# Sampling and bias (Eqs. 10 and 1)


def test_sampled_features_by_hand() -> None:
    # A 2 x 2 map; rows are y. -1 and 1 are the pixels' centres, and outside there is nothing.
    first = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    x = torch.stack((first, 10 * first), dim=-1)[None]  # two groups of one channel
    positions = torch.tensor(
        [
            [[-1.0, -1.0], [0.0, 0.0], [0.5, -0.5], [-1.0, 1.5], [-3.0, 0.0]],
            [[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [0.0, -1.0], [0.0, 3.0]],
        ]
    )[None]
    expected = torch.tensor([[1, 2.5, 2.75, 1.5, 0], [40.0, 20, 30, 20, 0]]).T[None]
    torch.testing.assert_close(sample_features(x, positions), expected)


def test_position_bias_by_hand() -> None:
    # Queries at x = -0.5 and 0.5; the table has entries for displacements -1, 0 and 1.
    table = torch.tensor([[[10.0, 20.0, 40.0]]])
    positions = torch.tensor([[0.0, 0.5], [0.0, -0.5]]).view(1, 1, 2, 2)
    # Displacements (query - position) / 2: -0.5 and 0 for the first query, 0 and 0.5 for the other.
    expected = torch.tensor([[15.0, 20.0], [20.0, 30.0]]).view(1, 1, 2, 2)
    torch.testing.assert_close(position_bias(table, positions, 1, 2), expected)


def test_y_and_x_are_not_mixed_up_on_a_map_that_is_not_square() -> None:
    x = torch.zeros(1, 3, 5, 1)
    x[0, 2, 1] = 1  # y = 1, x = -0.5
    positions = torch.tensor([[1.0, -0.5], [-0.5, 1.0]]).view(1, 1, 2, 2)
    assert sample_features(x, positions).flatten().tolist() == [1, 0]
    table = torch.zeros(1, 5, 9)
    table[0, 4, 4] = 1  # displacement 1 in y, 0 in x
    bias = position_bias(table, torch.tensor([-4 / 3, 0.0]).view(1, 1, 1, 2), 3, 5)
    # Only the last row's middle query is one whole map below the position.
    assert bias.flatten().argmax() == 2 * 5 + 2
    torch.testing.assert_close(bias.max(), torch.tensor(1.0))


# Gradients


def test_gradients_reach_interest_network_offset_network_and_features() -> None:
    module, x = attention().train(), features().requires_grad_()
    record: dict[str, Tensor] = {}
    out = module(x, record)
    for name in ("points", "offsets", "positions"):
        record[name].retain_grad()
    out.square().sum().backward()
    wanted = [x, record["points"], record["offsets"], record["positions"]]
    wanted += [*module.interest.parameters(), *module.offset.parameters()]
    assert all(tensor.grad.abs().max() > 1e-6 for tensor in wanted)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        RELEASED,
        {"stages": ("LD", "LD", "LD", "LD")},
        {"stages": ("E", "E", "E", "E")},
        {"stages": ("LS", "LS", "LS", "LS")},
        {"stages": ("L", "L", "L", "L")},
        {"interest": False},
        {"offsets": False},
    ],
    ids=["paper", "released", "D", "E", "S", "L", "without interest", "without offsets"],
)
def test_every_parameter_gets_a_gradient(settings: dict[str, Any]) -> None:
    model = nano(**settings).train()
    target = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]], dtype=torch.float64)
    (model(images(2)) - target).square().sum().backward()
    for name, parameter in model.named_parameters():
        largest = parameter.grad.abs().max()
        if name.endswith("attn.k.bias"):  # shifts all logits of a query alike: no effect at all
            assert largest < 1e-12, name
        else:
            assert largest > 1e-12, name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eta": 0.0}, r"eta must lie in \(0, 1\], got 0.0"),
        ({"eta": 1.5}, r"eta must lie in \(0, 1\], got 1.5"),
        ({"num_groups": 3}, r"num_heads \(4\) must divide dim \(8\), and num_groups \(3\)"),
        ({"offset_kernel": 5}, "interest kernel of 3 and an offset kernel of 5 without padding"),
        ({"pad_offsets": True}, "different numbers of points"),
        ({"pad_offsets": True, "offset_kernel": 4}, "must be odd, got 4"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention(**settings)
