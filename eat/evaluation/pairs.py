"""Choices that people made against a model's scores, as pure functions of whole vectors."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rows = NDArray[np.int64]


def pair_credit(predicted: Array, pairs: Rows) -> Array:
    """What a model earns for each pair: 1 if its winner has the higher score, 0.5 for equal ones.

    Args:
        predicted: (N,) scores.
        pairs: (P, 2) rows of winner and loser.

    Returns:
        (P,) in {0, 0.5, 1}; NaN where a score is.
    """
    return (1 + np.sign(predicted[pairs[:, 0]] - predicted[pairs[:, 1]])) / 2


def pairs_of_sets(merit: Array, sets: Rows) -> Rows:
    """All pairs of one set whose merits differ: (P, 2) rows of winner and loser.

    Args:
        merit: (N,), the higher the better.
        sets: (N,) number of the set of each.
    """
    found = [np.empty((0, 2), np.int64)]
    order = np.argsort(sets, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(sets[order])) + 1):
        winner, loser = np.nonzero(merit[rows, None] > merit[rows])
        found.append(np.stack((rows[winner], rows[loser]), axis=1))
    return np.concatenate(found)


def set_credit(predicted: Array, merit: Array, sets: Rows) -> Array:
    """What a model earns for each set: its best right, its worst right, and both.

    Equal scores earn what their order by lot would earn on average. Of photographs of equal merit,
    any may be the best.

    Args:
        predicted: (N,) scores.
        merit: (N,), the higher the better, not all equal within a set.
        sets: (N,) number of the set of each, 0..S - 1.

    Returns:
        (S, 3) in [0, 1]; NaN where a score is.
    """
    count = np.bincount(sets)

    def at(extreme: np.ufunc, values: Array) -> NDArray[np.bool_]:
        bounds = np.full(len(count), -np.inf if extreme is np.maximum else np.inf)
        extreme.at(bounds, sets, values)  # NaN if a value is
        return values == bounds[sets]

    def sums(chosen: NDArray[np.bool_]) -> Array:
        return np.bincount(sets, chosen, len(count)).astype(np.float64)

    with np.errstate(invalid="ignore"):  # of a set with NaN
        best, worst = at(np.maximum, merit), at(np.minimum, merit)
        top, bottom = at(np.maximum, predicted), at(np.minimum, predicted)
        best_right = sums(top & best) / sums(top)
        worst_right = sums(bottom & worst) / sums(bottom)
    by_lot = sums(best) * sums(worst) / (count * (count - 1))  # of sets whose scores are all equal
    both = np.where(sums(top & bottom) > 0, by_lot, best_right * worst_right)
    return np.stack((best_right, worst_right, both), axis=1)


def choice_metrics(earned: Array) -> dict[str, float]:
    """Metrics of choices.

    Args:
        earned: (U, 2) of pairs or sets of pairs: the sum of credits and the number of pairs; of
            sets with a best and a worst (U, 5): these, and the columns of ``set_credit``.

    Returns:
        pair_accuracy, over all pairs; of sets also best, worst and best_and_worst, the shares of
        sets.
    """
    found = {"pair_accuracy": float(earned[:, 0].sum() / earned[:, 1].sum())}
    shares = earned[:, 2:].mean(axis=0).tolist()
    return found | dict(zip(("best", "worst", "best_and_worst"), shares, strict=False))
