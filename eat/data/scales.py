"""Scores on the scales of the data sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Scores = TypeVar("Scores", "NDArray[np.float64]", "Tensor")


@dataclass(frozen=True)
class ScoreScale:
    """The scale of a data set's scores.

    Attributes:
        low: lowest score.
        high: highest score.
        target_scale: scores are divided by this to make the regression target.
        positive_above: scores above this are the positive class of the accuracy.
        num_votes: vote bins, evenly spaced from ``low`` to ``high``; 0 without votes.
    """

    low: float
    high: float
    target_scale: float
    positive_above: float
    num_votes: int = 0


def to_scores(outputs: NDArray, scale: ScoreScale) -> NDArray[np.float64]:
    """Model outputs as mean scores on the scale that the model was trained on.

    Args:
        outputs: (N, K) shares of K evenly spaced scores from ``low`` to ``high``, taken as they
            are (the released model's need not sum to 1); or (N, 1) scores over ``target_scale``.
        scale: of the data set that the model was trained on.

    Returns:
        (N,) float64.
    """
    values = np.asarray(outputs, dtype=np.float64)
    if values.shape[1] == 1:
        return values[:, 0] * scale.target_scale
    return values @ np.linspace(scale.low, scale.high, values.shape[1])


def rescale(scores: Scores, source: ScoreScale, target: ScoreScale) -> Scores:
    """Scores of one scale on another: the line that maps bounds to bounds."""
    share = (scores - source.low) / (source.high - source.low)
    return target.low + share * (target.high - target.low)
