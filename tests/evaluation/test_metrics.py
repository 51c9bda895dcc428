"""Metrics, by hand and against slow versions, ties included."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eat.evaluation.metrics import (
    UndefinedMetricWarning,
    accuracy,
    emd,
    mse,
    partial_srcc,
    plcc,
    ratio,
    score_metrics,
    srcc,
)
from eat.training.losses import LOSSES

Metric = Callable[[list[float], list[float]], float]


def naive_plcc(p: list[float], t: list[float]) -> float:
    mean_p, mean_t = sum(p) / len(p), sum(t) / len(t)
    top = sum((a - mean_p) * (b - mean_t) for a, b in zip(p, t, strict=True))
    below = sum((a - mean_p) ** 2 for a in p) * sum((b - mean_t) ** 2 for b in t)
    return top / math.sqrt(below)


def naive_ranks(values: list[float]) -> list[float]:
    """1 plus the number of smaller values plus half the number of other equal ones."""
    return [1 + sum(w < v for w in values) + (sum(w == v for w in values) - 1) / 2 for v in values]


def naive_srcc(p: list[float], t: list[float]) -> float:
    return naive_plcc(naive_ranks(p), naive_ranks(t))


# Few values and many images: ties everywhere.
pairs = st.lists(
    st.tuples(st.integers(0, 4).map(float), st.integers(1, 10).map(float)), min_size=2, max_size=30
).filter(lambda rows: all(len(set(column)) > 1 for column in zip(*rows, strict=True)))


@settings(deadline=None)
@given(pairs)
def test_correlations_agree_with_slow_ones_on_ties(rows: list[tuple[float, float]]) -> None:
    p, t = (list(column) for column in zip(*rows, strict=True))
    assert srcc(p, t) == pytest.approx(naive_srcc(p, t), abs=1e-9)
    assert plcc(p, t) == pytest.approx(naive_plcc(p, t), abs=1e-9)


@settings(deadline=None)
@given(pairs)
def test_srcc_sees_only_the_order(rows: list[tuple[float, float]]) -> None:
    p, t = (np.array(column) for column in zip(*rows, strict=True))
    assert srcc(np.exp(p), t) == pytest.approx(srcc(p, t), abs=1e-9)
    assert srcc(-p, t) == pytest.approx(-srcc(p, t), abs=1e-9)


def test_srcc_by_hand() -> None:
    # Ranks 1, 2, 3, 4 and 2, 1, 4, 3: 1 - 6 * 4 / (4 * 15) = 0.6.
    assert srcc([0.1, 0.2, 0.3, 9.0], [5, 4, 7, 6]) == pytest.approx(0.6)
    # Ranks 1, 2.5, 2.5 and 1, 2, 3: 1.5 / sqrt(1.5 * 2).
    assert srcc([1, 2, 2], [1, 2, 3]) == pytest.approx(math.sqrt(0.75))


def test_plcc_by_hand() -> None:
    # Deviations -1, 0, 1 and -2, 1, 1: 3 / sqrt(2 * 6).
    assert plcc([1, 2, 3], [1, 4, 4]) == pytest.approx(math.sqrt(0.75))
    assert plcc([1, 2, 3], [30, 20, 10]) == pytest.approx(-1)


@pytest.mark.parametrize("metric", [srcc, plcc])
@pytest.mark.parametrize(
    ("predicted", "target", "reason"),
    [
        ([1.0], [2.0], "needs at least two images, got 1"),
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], "all 3 predictions equal 1"),
        ([1.0, 2.0, 3.0], [5.5, 5.5, 5.5], "all 3 targets equal 5.5"),
        ([1.0, math.nan, 3.0], [1.0, 2.0, 3.0], "1 predictions not finite"),
        ([1.0, 2.0, 3.0], [math.inf, math.nan, 3.0], "2 targets not finite"),
    ],
)
def test_an_undefined_correlation_is_nan_and_says_why(
    metric: Metric, predicted: list[float], target: list[float], reason: str
) -> None:
    with pytest.warns(UndefinedMetricWarning, match=f"{metric.__name__.upper()}.*{reason}"):
        assert math.isnan(metric(predicted, target))


@pytest.mark.parametrize("metric", [srcc, plcc, mse, lambda p, t: accuracy(p, t, 5)])
@pytest.mark.parametrize(
    ("predicted", "target", "message"),
    [
        ([1.0, 2.0], [1.0, 2.0, 3.0], r"got \(2,\) and \(3,\)"),
        ([[1.0], [2.0]], [1.0, 2.0], r"got \(2, 1\) and \(2,\)"),
        ([[1.0], [2.0]], [[1.0], [2.0]], r"expected two vectors"),
        ([], [], "at least one image, got none"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(
    metric: Metric, predicted: list[float], target: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        metric(predicted, target)


def test_a_score_at_the_threshold_is_negative() -> None:
    assert accuracy([5.0, 5.0, 5.1, 4.0], [4.0, 5.1, 6.0, 5.0], 5) == 0.75
    assert accuracy([5.0], [5.0], 5) == 1
    assert accuracy([np.nextafter(5, 6)], [5.0], 5) == 0


def test_the_ratio_is_the_papers() -> None:
    assert ratio(0.759, 0.817) == pytest.approx(0.929, abs=5e-4)  # Table 1, AVA


def test_a_partial_correlation_is_that_of_what_the_third_leaves() -> None:
    a, b, c = [1, 2, 3, 4, 5], [2, 1, 4, 3, 5], [1, 3, 2, 5, 4]  # SRCC of pairs: 0.8, 0.8, 0.3
    assert srcc(a, b) == pytest.approx(0.8) and srcc(b, c) == pytest.approx(0.3)
    assert partial_srcc(b, c, a) == pytest.approx((0.3 - 0.64) / (1 - 0.64))
    assert partial_srcc(a, np.exp(b), c) == pytest.approx((0.8 - 0.24) / math.sqrt(0.36 * 0.91))


def test_a_merit_that_is_followed_is_told_from_one_that_comes_along() -> None:
    draw = np.random.default_rng(0)
    front, back = draw.uniform(size=(2, 4000))
    scores = 0.5 * front + 0.5 * back
    assert partial_srcc(scores, front, back) > 0.97 > 0.75 > srcc(scores, front)
    assert abs(partial_srcc(front + draw.normal(size=4000), back, front)) < 0.05
    with pytest.warns(UndefinedMetricWarning, match="are those that are given"):
        assert math.isnan(partial_srcc(scores, front, 2 * front))


def test_the_ratio_to_an_accuracy_of_0_is_undefined() -> None:
    with pytest.warns(UndefinedMetricWarning, match="ratio is undefined: accuracy is 0"):
        assert math.isnan(ratio(0.5, 0.0))


def test_mse_by_hand() -> None:
    assert mse([1, 2, 4], [1, 4, 3]) == pytest.approx(5 / 3)


def test_emd_is_the_mean_of_each_images_distance() -> None:
    predicted, target = [[0.5, 0.5], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]
    # Cumulative differences 0.5, 0 and 1, 0.
    assert emd(predicted, target) == pytest.approx((math.sqrt(0.125) + math.sqrt(0.5)) / 2)
    assert emd(target, target) == 0


def test_emd_does_not_depend_on_batches_and_equals_the_loss_per_image() -> None:
    import torch

    draw = np.random.default_rng(0)
    p, t = draw.dirichlet(np.ones(10), 8), draw.dirichlet(np.ones(10), 8)
    halves = (emd(p[:4], t[:4]) + emd(p[4:], t[4:])) / 2
    assert emd(p, t) == pytest.approx(halves, rel=1e-12)
    loss = LOSSES["emd_per_image"](torch.from_numpy(p), torch.from_numpy(t))
    assert emd(p, t) == pytest.approx(loss.item(), rel=1e-12)


@pytest.mark.parametrize("shapes", [((2, 10), (2, 9)), ((10,), (10,))])
def test_emd_of_shapes_that_do_not_fit_is_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match=r"two \(N, K\) arrays"):
        emd(np.zeros(shapes[0]), np.zeros(shapes[1]))


def test_score_metrics_by_hand() -> None:
    metrics = score_metrics([4.0, 6.0, 5.0, 7.0], [3.0, 5.0, 6.0, 9.0], threshold=5, scale=10)
    assert metrics == {
        "srcc": pytest.approx(0.8),
        "plcc": pytest.approx(naive_plcc([4, 6, 5, 7], [3, 5, 6, 9])),
        "accuracy": 0.5,
        "ratio": pytest.approx(1.6),
        "mse": pytest.approx((1 + 1 + 1 + 4) / 4 / 100),
    }


def test_metrics_of_constant_scores_are_nan_only_where_undefined() -> None:
    with pytest.warns(UndefinedMetricWarning):
        metrics = score_metrics([5.5, 5.5], [4.0, 6.0], threshold=5)
    assert {name for name, value in metrics.items() if math.isnan(value)} == {
        "srcc",
        "plcc",
        "ratio",
    }
    assert metrics["accuracy"] == 0.5
