"""Guidance of offsets (Eqs. 7 to 9)."""

import math

import pytest
import torch
from enhanced import attention, features, nano
from torch import Tensor

from eat.models.deformable import DeformableAttention, guide_offsets
from eat.models.variants import RELEASED


def test_only_offsets_into_the_quadrant_of_their_point_keep_their_length() -> None:
    points = torch.tensor(
        [[0.5, 0.5], [0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5], [0.0, 0.5], [0.5, 0.5]]
    )
    offsets = torch.tensor([[0.4, 0.8], [-0.4, 0.8], [-0.4, 0.8], [0.4, 0.8], [0.4, 0.8], [0, 0.8]])
    expected = torch.tensor(
        [[0.4, 0.8], [-0.1, 0.2], [-0.4, 0.8], [0.1, 0.2], [0.1, 0.2], [0, 0.2]]
    )
    torch.testing.assert_close(guide_offsets(offsets, points, 0.25, None), expected)
    assert torch.equal(guide_offsets(offsets, points, 1.0, None), offsets)


def test_no_gradient_flows_through_the_quadrant_weight() -> None:
    points = torch.tensor([[0.5, 0.5], [0.5, 0.5]], requires_grad=True)
    offsets = torch.tensor([[0.4, 0.8], [-0.4, 0.8]], requires_grad=True)
    guided = guide_offsets(offsets, points, 0.25, None).sum()
    by_point, by_offset = torch.autograd.grad(guided, (points, offsets), allow_unused=True)
    assert by_point is None or not by_point.any()
    assert torch.equal(by_offset, torch.tensor([[1.0, 1.0], [0.25, 0.25]]))


def test_a_rotation_by_hand() -> None:
    # x = 0.6, y = 0.2, alpha = 30 degrees: x' = 0.6 * 0.866025 - 0.2 * 0.5 = 0.419615 and
    # y' = 0.2 * 0.866025 + 0.6 * 0.5 = 0.473205; the point lies elsewhere, so both times 0.25.
    offsets, points = torch.tensor([[0.2, 0.6]]), torch.tensor([[-0.1, 0.3]])
    guided = guide_offsets(offsets, points, 0.25, torch.tensor([math.pi / 6]))
    torch.testing.assert_close(guided, torch.tensor([[0.11830127, 0.10490381]]))
    quarter = guide_offsets(offsets, points, 1.0, torch.tensor([math.pi / 2]))
    torch.testing.assert_close(quarter, torch.tensor([[0.6, -0.2]]))


def test_the_weight_is_decided_before_the_rotation() -> None:
    # Rotated by 90 degrees, (y, x) = (0.2, 0.6) leaves the point's quadrant; it keeps its length.
    guided = guide_offsets(
        torch.tensor([[0.2, 0.6]]), torch.tensor([[0.5, 0.5]]), 0.25, torch.tensor([math.pi / 2])
    )
    torch.testing.assert_close(guided, torch.tensor([[0.6, -0.2]]))


@pytest.mark.parametrize("epoch", [0, 5, 19, 20])
def test_rotation_shrinks_with_the_finished_epochs(epoch: int) -> None:
    model = nano().train()
    model.set_epoch(epoch, 20)
    modules = [m for m in model.modules() if isinstance(m, DeformableAttention)]
    assert len(modules) == 2
    bound = (1 - epoch / 20) * math.pi / 2
    for module in modules:
        angles = module.rotation(torch.zeros(1, 1, 40, 50, 2, dtype=torch.float64), 3)
        assert angles.shape == (3, 1, 40, 50)
        assert angles.abs().max() <= bound * (1 + 1e-6)
        if epoch < 20:
            assert angles.max() > 0.99 * bound
            assert angles.min() < -0.99 * bound
            assert abs(angles.mean()) < 0.05 * bound


def test_the_last_of_20_epochs_still_rotates_by_up_to_a_twentieth_of_90_degrees() -> None:
    model = nano().train()
    model.set_epoch(19, 20)
    factors = [float(m.exploration) for m in model.modules() if hasattr(m, "exploration")]
    assert factors == pytest.approx([0.05, 0.05])


def test_before_the_first_epoch_is_set_rotation_is_full() -> None:
    assert float(attention().exploration) == 1


@pytest.mark.parametrize(("epoch", "epochs"), [(-1, 20), (21, 20), (0, 0)])
def test_an_epoch_outside_the_run_is_refused(epoch: int, epochs: int) -> None:
    with pytest.raises(ValueError, match="epoch must lie in"):
        nano().set_epoch(epoch, epochs)


def test_angles_are_drawn_for_each_point_and_image_and_shared_by_groups() -> None:
    module, x = attention(), features(3)
    module.exploration.fill_(0.5)
    still: dict[str, Tensor] = {}
    module.eval()(x, still)
    turned: dict[str, Tensor] = {}
    module.train()(x, turned)

    def direction(record: dict[str, Tensor]) -> Tensor:
        y, x = record["offsets"].detach().unbind(-1)
        return torch.atan2(y, x)

    angles = direction(turned) - direction(still)  # (images, groups, Hin, Win)
    angles = (angles + math.pi) % (2 * math.pi) - math.pi
    torch.testing.assert_close(angles[:, 0], angles[:, 1])
    assert angles.abs().max() <= math.pi / 4
    assert len(angles[:, 0].mul(1e6).round().unique()) == 3 * 3 * 4
    torch.testing.assert_close(turned["offsets"].norm(dim=-1), still["offsets"].norm(dim=-1))


def test_nothing_rotates_in_evaluation_nor_in_the_released_profile() -> None:
    points = torch.zeros(1, 1, 3, 4, 2)
    assert attention().eval().rotation(points, 2) is None
    assert attention(rotate=False).train().rotation(points, 2) is None
    released = [m for m in nano(**RELEASED).modules() if isinstance(m, DeformableAttention)]
    assert released and all(m.rotation(points, 2) is None for m in released)
