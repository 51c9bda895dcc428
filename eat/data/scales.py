"""Scores on the scales of the data sets."""

from dataclasses import dataclass

import numpy as np

from eat.data.registry import Dataset


@dataclass(frozen=True)
class ScoreScale:
    """Temporary."""

    low: float
    high: float
    target_scale: float
    positive_above: float
    num_votes: int = 0


def to_scores(outputs: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Model outputs as mean scores on the data set's own scale.

    Args:
        outputs: (N, K) shares of K evenly spaced scores from ``low`` to ``high``, taken as they
            are (the released model's need not sum to 1); or (N, 1) scores over ``target_scale``.
        dataset: the data set that the model was trained on.

    Returns:
        (N,) float64.
    """
    outputs = np.asarray(outputs, dtype=np.float64)
    if outputs.shape[1] == 1:
        return outputs[:, 0] * dataset.target_scale
    return outputs @ np.linspace(dataset.low, dataset.high, outputs.shape[1])


def rescale(scores: np.ndarray, source: Dataset, target: Dataset) -> np.ndarray:
    """Scores of one data set's scale on another's: the line that maps bounds to bounds."""
    share = (scores - source.low) / (source.high - source.low)
    return target.low + share * (target.high - target.low)
