"""Metrics of the field, pure functions of whole-split vectors."""

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]


class UndefinedMetricWarning(UserWarning):
    """A metric has no value on this input, and NaN stands for it."""


def _undefined(metric: str, reason: str) -> float:
    warnings.warn(f"{metric} is undefined: {reason}", UndefinedMetricWarning, stacklevel=4)
    return float("nan")


def _vectors(predicted: ArrayLike, target: ArrayLike) -> tuple[Array, Array]:
    p, t = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    if p.shape != t.shape or p.ndim != 1:
        raise ValueError(f"expected two vectors of one length, got {p.shape} and {t.shape}")
    if not p.size:
        raise ValueError("expected at least one image, got none")
    return p, t


def _correlation(name: str, predicted: ArrayLike, target: ArrayLike) -> float:
    p, t = _vectors(predicted, target)
    if p.size < 2:
        return _undefined(name, "it needs at least two images, got 1")
    for values, what in ((p, "predictions"), (t, "targets")):
        if not np.isfinite(values).all():
            return _undefined(name, f"{np.count_nonzero(~np.isfinite(values))} {what} not finite")
        if (values == values[0]).all():
            return _undefined(name, f"all {p.size} {what} equal {values[0]:g}")
    found = stats.spearmanr(p, t) if name == "SRCC" else stats.pearsonr(p, t)
    return float(found.statistic)


def srcc(predicted: ArrayLike, target: ArrayLike) -> float:
    """Spearman's rank correlation of two vectors (N,), in [-1, 1]; ties take their mean rank.

    NaN, with an ``UndefinedMetricWarning``, for one image, constant or non-finite vectors.
    """
    return _correlation("SRCC", predicted, target)


def plcc(predicted: ArrayLike, target: ArrayLike) -> float:
    """Pearson's linear correlation of two vectors (N,), in [-1, 1]; NaN as for ``srcc``."""
    return _correlation("PLCC", predicted, target)


def partial_srcc(predicted: ArrayLike, target: ArrayLike, given: ArrayLike) -> float:
    """Spearman's partial correlation of two vectors (N,) given a third, in [-1, 1].

    It is the correlation of what a line in the third's ranks leaves of the ranks of either. NaN as
    for ``srcc``, and where the third leaves nothing.
    """
    both, first = srcc(predicted, target), srcc(predicted, given)
    other = srcc(target, given)
    left = (1 - first**2) * (1 - other**2)
    if left <= 1e-12:
        return _undefined("partial SRCC", "a vector's ranks are those that are given")
    return float((both - first * other) / np.sqrt(left))


def accuracy(predicted: ArrayLike, target: ArrayLike, threshold: float) -> float:
    """Share of images on the same side of the threshold, in [0, 1].

    A score above the threshold is positive, one equal to it negative.
    """
    p, t = _vectors(predicted, target)
    return float(np.mean((p > threshold) == (t > threshold)))


def ratio(srcc: float, accuracy: float) -> float:
    """SRCC / accuracy, the paper's "ratio" (section 5.1). It is not an accuracy."""
    if accuracy == 0:
        return _undefined("ratio", "accuracy is 0")
    return srcc / accuracy


def mse(predicted: ArrayLike, target: ArrayLike) -> float:
    """Mean squared error of two vectors (N,), on their scale squared."""
    p, t = _vectors(predicted, target)
    return float(np.mean((p - t) ** 2))


def emd(predicted: ArrayLike, target: ArrayLike) -> float:
    """Mean over images of sqrt(mean over K of squared cumulative differences); shares (N, K).

    In [0, 1] for distributions. This is NIMA's distance, which does not depend on batches.
    """
    p, t = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    if p.shape != t.shape or p.ndim != 2:
        raise ValueError(f"expected two (N, K) arrays of one shape, got {p.shape} and {t.shape}")
    return float(np.sqrt(np.mean(np.cumsum(p - t, axis=1) ** 2, axis=1)).mean())


def bootstrap_interval(
    statistic: Callable[..., ArrayLike], *arrays: Array, samples: int = 1000, seed: int = 0
) -> tuple[Array, Array]:
    """95% percentile bootstrap interval over images.

    Args:
        statistic: takes the arrays' resampled rows, drawn alike with replacement; returns a number
            or (M,) numbers.
        *arrays: arrays of N rows each.
        samples: draws.
        seed: of the draws.

    Returns:
        The 2.5th and the 97.5th percentile, each shaped as the statistic. Draws on which it is NaN
        do not count.
    """
    draw = np.random.default_rng(seed)
    count = len(arrays[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # undefined on a draw is nothing to tell
        rows = (draw.integers(count, size=count) for _ in range(samples))
        values = np.array([statistic(*(array[row] for array in arrays)) for row in rows], float)
        low, high = np.nanpercentile(values, [2.5, 97.5], axis=0)
    return low, high


def score_metrics(
    predicted: ArrayLike, target: ArrayLike, *, threshold: float, scale: float = 1.0
) -> dict[str, float]:
    """SRCC, PLCC, accuracy, ratio and MSE of mean scores (N,) on the data set's own scale.

    Scores above ``threshold`` are positive. The MSE is that of scores over ``scale`` (10 for
    TAD66K, as in the paper's Table 2).
    """
    p, t = _vectors(predicted, target)
    rank, right = srcc(p, t), accuracy(p, t, threshold)
    return {
        "srcc": rank,
        "plcc": plcc(p, t),
        "accuracy": right,
        "ratio": ratio(rank, right),
        "mse": mse(p / scale, t / scale),
    }
