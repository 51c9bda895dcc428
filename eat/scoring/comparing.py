"""Which of several photographs, or crops of one, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eat.data.photos import find_photos
from eat.data.registry import DATASETS
from eat.data.transforms import Photo
from eat.scoring.scorer import Score, Scorer
from eat.system.schema import check_range

NORMAL_95 = 1.96  # standard errors to either side of a 95% interval
MOST_VOTERS = 10**9


@dataclass(frozen=True)
class Compared:
    """One of several photographs, beside the best of them.

    Attributes:
        photo: the file or crop, or what was given in its place.
        score: of the first target, if the model has several.
        difference: the best's score less this one's; 0 for the best.
        standard_error: of the difference, if each photograph is rated by so many voters; None for
            the best, for a model without votes, and if their number is not known.
        superiority: probability that a voter of the best gives it more than a voter of this one
            gives this one, ties counted half; None for the best and for a model without votes.
    """

    photo: Photo
    score: Score
    difference: float
    standard_error: float | None = None
    superiority: float | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% interval of the difference."""
        if self.standard_error is None:
            return None
        half = NORMAL_95 * self.standard_error
        return self.difference - half, self.difference + half


@dataclass(frozen=True)
class Comparison:
    """Photographs by their scores, the best first.

    Attributes:
        voters: of each photograph, that the standard errors are of; None if unknown, or if the
            model predicts no votes.
        rmse: the model's own error, the root of the mean squared error of its scores on the split
            that chose its epoch; None if unknown.
        target: what the scores are of.
        failed: the photographs that cannot be scored, with the reason.
    """

    photographs: list[Compared]
    voters: int | None
    rmse: float | None
    target: str
    failed: list[Score]

    def rows(self) -> list[dict[str, Any]]:
        """Plain values of each photograph: image, score, difference, ..., votes."""
        return [
            {"image": one.score.image, "score": one.score.score}
            | {"difference": one.difference, "standard_error": one.standard_error,
               "superiority": one.superiority}
            | ({"votes": [*one.score.votes]} if one.score.votes else {})
            for one in self.photographs
        ]  # fmt: skip


def compare(
    photos: Any, *, checkpoint: str | Path | Scorer, voters: int | None = None, **options: Any
) -> Comparison:
    """Compare photographs by their scores.

    A model that predicts votes gives for each photograph the distribution of a single vote. The
    difference of the mean scores of two photographs, each by n voters of its own, then has the
    variance (var_a + var_b) / n. It says nothing about the model's own error.

    Args:
        photos: two or more, as ``Scorer`` takes them, crops such as "photo.jpg[600x400+100+0]" too.
        checkpoint: the model, or a scorer that has it.
        voters: of each photograph; None takes what is usual in the data set that the model was
            trained on, if it is registered with a number.
        options: of ``Scorer``, if ``checkpoint`` is none.

    Raises:
        WeightsError: as ``Scorer``.
        ValueError: as ``Scorer``; there are fewer than two photographs that can be scored; or
            ``voters`` is out of range.
    """
    check_range("voters", voters, 1, MOST_VOTERS)
    files = list(find_photos(photos))
    if len(files) < 2:
        raise ValueError(
            f"found {', '.join(map(str, files)) or 'no photograph'}: expected two or more to "
            "compare, or crops of one: 'photo.jpg[WIDTHxHEIGHT+X+Y]'"
        )
    scorer = checkpoint if isinstance(checkpoint, Scorer) else Scorer(checkpoint, **options)
    scored = list(zip(files, scorer.score_files(files), strict=True))
    failed = [score for _, score in scored if score.error]
    scored = [(file, score) for file, score in scored if not score.error]
    if len(scored) < 2:
        raise ValueError(f"{len(scored)} of {len(files)} photographs can be scored, expected two "
                         f"or more: {failed[0].error}")  # fmt: skip
    scored.sort(key=lambda pair: -pair[1].score)
    target, scale = next(iter(scorer.scales.items()))
    values = np.linspace(scale.low, scale.high, scorer.num_votes)
    if voters is None and scorer.info.dataset in DATASETS:
        voters = DATASETS[scorer.info.dataset].voters or None
    best = scored[0][1]
    found = [Compared(*scored[0], difference=0.0)]
    for file, score in scored[1:]:
        error, superior = None, None
        if scorer.num_votes:
            a, b = vote_shares(best.votes), vote_shares(score.votes)
            superior = superiority(a, b)
            error = standard_error(a, b, values, voters) if voters else None
        found.append(Compared(file, score, best.score - score.score, error, superior))
    voters = voters if scorer.num_votes else None
    return Comparison(found, voters, model_error(scorer), target, failed)


def vote_shares(votes: Sequence[float]) -> NDArray[np.float64]:
    """Predicted votes (K,) as a distribution. The authors' outputs need not be one.

    NaN if no vote is above 0.
    """
    shares = np.clip(votes, 0, None)
    total = shares.sum()
    return shares / total if total > 0 else np.full(len(shares), np.nan)


def superiority(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Probability that a vote drawn from shares ``a`` (K,) is above one from ``b``, ties half."""
    return float(a @ (np.cumsum(b) - b / 2))


def standard_error(
    a: NDArray[np.float64], b: NDArray[np.float64], values: NDArray[np.float64], voters: int
) -> float:
    """Standard error of the difference of the mean scores of two photographs.

    Args:
        a: vote shares (K,) of the one.
        b: of the other.
        values: (K,) the scores that are voted for.
        voters: of each.
    """
    variances = [shares @ (values - shares @ values) ** 2 for shares in (a, b)]
    return math.sqrt(sum(variances) / voters)


def model_error(scorer: Scorer) -> float | None:
    """Root mean squared error of a model's scores, on the scorer's scale; None if unknown."""
    mse = scorer.info.metrics.get("mse")
    if not isinstance(mse, float) or not 0 <= mse < math.inf:
        return None
    (own, *_), (scale, *_) = scorer.info.scales.values(), scorer.scales.values()
    return math.sqrt(mse) * own.target_scale * (scale.high - scale.low) / (own.high - own.low)
