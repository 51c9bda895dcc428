"""Scores on the scales of the data sets."""

import numpy as np
import pandas as pd

from eat.data.dataset import targets
from eat.data.registry import DATASETS
from eat.data.scales import to_scores


def test_scores_undo_targets() -> None:
    votes = {f"votes_{k}": [float(k), 11.0 - k] for k in range(1, 11)}
    score = [7.0, 4.0]  # sum of k * k / 55, and its mirror image
    table = pd.DataFrame({"image": ["a", "b"], "score": score, **votes})
    shares = targets(table, DATASETS["ava"].scales(), 10).numpy()
    np.testing.assert_allclose(to_scores(shares, DATASETS["ava"].scale), score, rtol=1e-6)
    single = targets(table, DATASETS["tad66k"].scales(), 1).numpy()
    np.testing.assert_allclose(to_scores(single, DATASETS["tad66k"].scale), score, rtol=1e-6)


def test_released_outputs_are_scored_as_they_are() -> None:
    outputs = np.zeros((1, 10))
    outputs[0, 9] = 0.5  # does not sum to 1
    assert to_scores(outputs, DATASETS["ava"].scale).tolist() == [5.0]
