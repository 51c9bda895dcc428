"""Scores on the scales of the data sets."""

from __future__ import annotations

from collections.abc import Mapping
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


Scales = Mapping[str, ScoreScale]  # by target: a column of the labels that a model predicts


def split_outputs(outputs: Scores, scales: Scales) -> dict[str, Scores]:
    """Model outputs (N, K) by target: all of them for one target, (N, 1) each for several."""
    if len(scales) == 1:
        return dict.fromkeys(scales, outputs)
    return {name: outputs[:, k : k + 1] for k, name in enumerate(scales)}


def mean_scores(
    outputs: NDArray, scales: Scales, sources: Scales | None = None
) -> dict[str, NDArray[np.float64]]:
    """Outputs (N, K) of a model as mean scores (N,) by target.

    Args:
        outputs: of the model, as ``to_scores`` takes them for one target; of several a score each.
        scales: that the scores are wanted on.
        sources: that the model was trained on, if others.
    """
    sources = sources or scales
    return {
        name: rescale(to_scores(part, sources[name]), sources[name], scales[name])
        for name, part in split_outputs(outputs, sources).items()
    }


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
