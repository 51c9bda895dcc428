"""Credits of pairs and sets against a plain reading of their rules."""

import itertools

import numpy as np
import pytest

from eat.evaluation.pairs import choice_metrics, pair_credit, pairs_of_sets, set_credit


def by_lot(predicted: list[int], merit: list[int]) -> list[float]:
    """Best, worst and both right, the mean over all orders that the scores allow."""
    found = []
    for order in itertools.permutations(range(len(predicted))):
        ordered = [predicted[i] for i in order]
        if ordered == sorted(ordered, reverse=True):
            best = merit[order[0]] == max(merit)
            worst = merit[order[-1]] == min(merit)
            found.append((best, worst, best and worst))
    return np.mean(found, axis=0).tolist()


def test_sets_earn_what_their_order_by_lot_earns_on_average() -> None:
    draw = np.random.default_rng(0)
    sets = [
        (draw.integers(4, size=size).tolist(), [0, 1, *draw.integers(3, size=size - 2)])
        for size in draw.integers(2, 6, size=150)
    ] + [([1, 1, 1], [0, 1, 2])]
    predicted, merit = (np.concatenate(part).astype(float) for part in zip(*sets, strict=True))
    numbers = np.repeat(np.arange(len(sets)), [len(one) for one, _ in sets])
    mixed = draw.permutation(len(predicted))
    found = set_credit(predicted[mixed], merit[mixed], numbers[mixed])
    np.testing.assert_allclose(found, [by_lot(*one) for one in sets])
    assert (found == 1 / 6).any()  # all scores of a set equal


def test_pairs_of_a_set_are_all_that_differ_and_none_between_sets() -> None:
    merit, sets = np.array([1.0, 2, 2, 5, 0]), np.array([0, 1, 0, 0, 1])
    found = {tuple(pair) for pair in pairs_of_sets(merit, sets).tolist()}
    expected = {
        (i, j) for i in range(5) for j in range(5) if sets[i] == sets[j] and merit[i] > merit[j]
    }
    assert found == expected and len(pairs_of_sets(merit, sets)) == 4


def test_equal_scores_count_half_and_none_that_is_no_number() -> None:
    predicted = np.array([1.0, 2.0, 2.0, np.nan])
    pairs = np.array([[1, 0], [0, 1], [1, 2], [3, 0]])
    np.testing.assert_array_equal(pair_credit(predicted, pairs), [1, 0, 0.5, np.nan])
    merit, sets = np.arange(4.0), np.array([0, 0, 1, 1])
    np.testing.assert_array_equal(set_credit(predicted, merit, sets), [[1, 1, 1], [np.nan] * 3])


def test_accuracy_is_over_pairs_and_shares_are_over_sets() -> None:
    earned = np.array([[3, 3, 1, 1, 1], [0.5, 1, 0, 1, 0]])
    found = choice_metrics(earned)
    assert found == {"pair_accuracy": 3.5 / 4, "best": 0.5, "worst": 1.0, "best_and_worst": 0.5}
    assert choice_metrics(earned[:, :2]) == {"pair_accuracy": pytest.approx(0.875)}
