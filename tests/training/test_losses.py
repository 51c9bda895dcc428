"""Losses, by hand and against numpy."""

from pathlib import Path

import numpy as np
import pytest
import torch

from eat.training.losses import LOSSES, choose_loss
from eat.training.setup import make_loss

EMD, EMD_PER_IMAGE, MSE = LOSSES["emd"], LOSSES["emd_per_image"], LOSSES["mse"]

# Cumulative differences 0.5, 0.25, 0 and 0, -0.5, 0: mean squares 0.3125 / 3 and 0.25 / 3.
PREDICTED = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.5, 0.5]])
TARGET = torch.tensor([[0.0, 0.5, 0.5], [0.0, 1.0, 0.0]])


def test_emd_takes_one_root_for_the_batch() -> None:
    assert EMD(PREDICTED, TARGET).item() == pytest.approx((0.5625 / 6) ** 0.5)


def test_emd_per_image_averages_the_roots() -> None:
    expected = ((0.3125 / 3) ** 0.5 + (0.25 / 3) ** 0.5) / 2
    assert EMD_PER_IMAGE(PREDICTED, TARGET).item() == pytest.approx(expected)


def test_the_two_emds_agree_on_one_image_and_else_the_batch_root_is_the_larger() -> None:
    one = EMD(PREDICTED[:1], TARGET[:1])
    torch.testing.assert_close(one, EMD_PER_IMAGE(PREDICTED[:1], TARGET[:1]))
    assert EMD(PREDICTED, TARGET) > EMD_PER_IMAGE(PREDICTED, TARGET)


def test_emd_counts_how_far_votes_must_move() -> None:
    votes = torch.eye(10)
    near, far = EMD(votes[:1], votes[1:2]), EMD(votes[:1], votes[9:])
    assert near.item() == pytest.approx((1 / 10) ** 0.5)
    assert far.item() == pytest.approx((9 / 10) ** 0.5)
    assert EMD(votes, votes).item() == 0


@pytest.mark.parametrize("per_image", [False, True])
def test_emd_against_numpy(per_image: bool) -> None:
    draw = np.random.default_rng(0)
    p, t = draw.dirichlet(np.ones(10), 7), draw.dirichlet(np.ones(10), 7)
    squares = [
        [(sum(p[i, : k + 1]) - sum(t[i, : k + 1])) ** 2 for k in range(10)] for i in range(7)
    ]
    means = [sum(row) / 10 for row in squares]
    expected = sum(m**0.5 for m in means) / 7 if per_image else (sum(means) / 7) ** 0.5
    loss = EMD_PER_IMAGE if per_image else EMD
    ours = loss(torch.from_numpy(p), torch.from_numpy(t))
    assert ours.item() == pytest.approx(expected, rel=1e-12)


def test_emd_of_half_precision_is_taken_in_float32() -> None:
    loss = EMD(PREDICTED.bfloat16(), TARGET.bfloat16())
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx((0.5625 / 6) ** 0.5, rel=1e-6)


@pytest.mark.parametrize("loss", [EMD, EMD_PER_IMAGE])
def test_emd_has_the_gradient_of_a_small_step(loss: object) -> None:
    p = torch.softmax(torch.randn(3, 10, dtype=torch.float64), -1).requires_grad_()
    t = torch.softmax(torch.randn(3, 10, dtype=torch.float64), -1)
    assert torch.autograd.gradcheck(lambda x: loss(x, t), p)


@pytest.mark.parametrize("shapes", [((2, 10), (2, 9)), ((2, 10), (3, 10)), ((10,), (10,))])
def test_emd_of_shapes_that_do_not_fit_is_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match=r"EMD needs two \(B, K\) tensors"):
        EMD(torch.zeros(shapes[0]), torch.zeros(shapes[1]))


def test_mse_by_hand_whether_scores_are_a_column_or_a_row() -> None:
    # A (3, 1) minus a (3,) would broadcast to (3, 3).
    column, row = torch.tensor([[0.1], [0.5], [0.9]]), torch.tensor([0.2, 0.5, 0.5])
    expected = pytest.approx((0.01 + 0.16) / 3)
    assert MSE(column, row).item() == expected
    assert MSE(row, column).item() == expected
    assert MSE(row, row).item() == 0


def test_mse_of_several_targets_is_a_mean_for_each_image() -> None:
    predicted, target = torch.tensor([[0.1, 0.5], [0.9, 0.5]]), torch.tensor([[0.2, 0.3], [0.9, 0]])
    terms = MSE.terms(predicted, target)
    np.testing.assert_allclose(terms, [(0.01 + 0.04) / 2, 0.25 / 2], rtol=1e-5)
    one = torch.randn(8, 1)
    assert torch.equal(MSE.terms(one, one + 0.1), (one - (one + 0.1)).square()[:, 0])


def test_mse_of_different_numbers_of_scores_is_refused() -> None:
    with pytest.raises(ValueError, match="as many predictions as targets"):
        MSE(torch.zeros(3, 1), torch.zeros(4))


@pytest.mark.parametrize(
    ("option", "model", "outputs", "name"),
    [
        (None, "eat_base", 10, "emd_per_image"),
        (None, "eat_base", 1, "mse"),
        (None, "eat_base_released", 10, "emd"),
        (None, "eat_base_released", 1, "mse"),
        ("released", "eat_base", 10, "emd"),
        ("released", "eat_base", 1, "mse"),
        ("emd", "eat_base", 10, "emd"),
        ("emd_per_image", "eat_base_released", 10, "emd_per_image"),
    ],
)
def test_the_loss_of_a_run(option: str | None, model: str, outputs: int, name: str) -> None:
    assert choose_loss(option, model, outputs) is LOSSES[name]


OWN = """
import torch
def absolute(predicted, target): return (predicted - target).abs().mean(dim=1)
def mean(predicted, target): return (predicted - target).abs().mean()
def each(predicted, target): return (predicted - target).abs()
def number(predicted, target): return 3.0
def constant(predicted, target): return torch.zeros(len(predicted))
def numpy(predicted, target): return predicted.numpy()
"""


def test_a_loss_of_ones_own_file_is_a_mean_over_images(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    loss = make_loss(f"{tmp_path}/own.py:absolute", "eat_nano", 3)
    assert loss(PREDICTED, TARGET).item() == pytest.approx((1 / 3 + 1 / 3) / 2)
    assert make_loss("mse", "eat_nano", 1) is MSE


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mean", r"returns \(\) for predictions and targets of \(5, 3\): expected \(5,\)"),
        ("each", r"returns \(5, 3\)"),
        ("number", "returns float"),
        ("constant", "its terms have no gradient"),
        ("numpy", r"own\.py, line 8: RuntimeError"),
        ("absolut", "did you mean 'absolute'"),
    ],
)
def test_a_loss_file_that_is_not_as_expected_is_told(
    name: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    with pytest.raises(ValueError, match=message):
        make_loss(f"{tmp_path}/own.py:{name}", "eat_nano", 3)


def test_an_unknown_loss_is_told() -> None:
    with pytest.raises(ValueError, match=r"optim\.loss is 'emdd': expected emd, emd_per_image"):
        choose_loss("emdd", "eat_nano", 10)
