"""One person's taste: what a few opinions add to a general model's last linear layer.

The layer's outputs z = W x + b (of K votes before their softmax, or of a score) move along one
direction d, by a number of the photograph's own: z + t(x) d, with t(x) = u . x + v. For votes d are
the K scores less their mean, so that their distribution is tilted towards the better or the worse
ones; t = 0 is the general model. The result is W + d u' and b + v d: an ordinary model.

u and v are fitted by penalised least squares (of ratings) or the Bradley-Terry model (of choices).
The general model's own opinion d . z may grow, shrink or turn round at a low price; everything else
in u pays a price that cross-validation chooses (ridge regression).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import Linear
from torch.nn.functional import logsigmoid

PRICES = (1000.0, 30.0, 3.0, 0.3, 0.03)
GAIN_PRICE, LEVEL_PRICE = 1.0, 1e-6
STEPS, SMALLEST_GAIN = 50, 1e-6  # of Newton's method
FOLDS, INNER_FOLDS = 10, 5


class Loss(NamedTuple):
    """Losses (M,) of M opinions, with the first and second derivatives by what they are about."""

    value: Tensor
    slope: Tensor
    curvature: Tensor


class Opinions(Protocol):
    """What a person said of N photographs, which are numbered from 0."""

    metric: str

    @property
    def photographs(self) -> Tensor:
        """The distinct photographs that the opinions are about, in increasing order."""

    def __len__(self) -> int: ...

    def of(self, values: Tensor) -> Tensor:
        """Values (N, ...) of the photographs as those (M, ...) that the opinions are about."""

    def loss(self, about: Tensor) -> Loss:
        """How far the opinions are from scores, (M,) as ``of`` gives them."""

    def within(self, photographs: Tensor) -> "Opinions":
        """The opinions on those photographs alone, (N,) bool, that are true."""

    def agreement(self, scores: NDArray[np.float64], drawn: NDArray[np.int64]) -> float:
        """``metric`` of scores (N,), for photographs drawn with replacement."""


@dataclass(frozen=True)
class Ratings:
    """A rating (M,) of each of M photographs (M,), in increasing order."""

    photographs: Tensor
    ratings: Tensor
    metric = "SRCC"

    def __len__(self) -> int:
        return len(self.ratings)

    def of(self, values: Tensor) -> Tensor:
        return values[self.photographs]

    def loss(self, about: Tensor) -> Loss:
        error = about - self.ratings
        return Loss(error.square() / 2, error, torch.ones_like(error))

    def within(self, photographs: Tensor) -> "Ratings":
        rows = photographs[self.photographs]
        return Ratings(self.photographs[rows], self.ratings[rows])

    def agreement(self, scores: NDArray[np.float64], drawn: NDArray[np.int64]) -> float:
        place = np.empty(len(scores))
        place[self.photographs.numpy()] = self.ratings.numpy()
        with np.errstate(invalid="ignore"):  # NaN of constant ones
            ranks = rankdata(scores[drawn]), rankdata(place[drawn])
            return float(np.asarray(np.corrcoef(*ranks))[0, 1])


@dataclass(frozen=True)
class Choices:
    """The winners (M,) and the losers (M,) of M choices between two photographs.

    Attributes:
        spread: difference of two scores that makes a choice e : 1.
    """

    winners: Tensor
    losers: Tensor
    spread: float
    metric = "accuracy"

    @property
    def photographs(self) -> Tensor:
        return torch.cat([self.winners, self.losers]).unique()

    def __len__(self) -> int:
        return len(self.winners)

    def of(self, values: Tensor) -> Tensor:
        return values[self.winners] - values[self.losers]

    def loss(self, about: Tensor) -> Loss:
        wrong = (-about / self.spread).sigmoid()
        value = -(self.spread**2) * logsigmoid(about / self.spread)
        return Loss(value, -self.spread * wrong, wrong * (1 - wrong))

    def within(self, photographs: Tensor) -> "Choices":
        rows = photographs[self.winners] & photographs[self.losers]
        return Choices(self.winners[rows], self.losers[rows], self.spread)

    def agreement(self, scores: NDArray[np.float64], drawn: NDArray[np.int64]) -> float:
        times = np.bincount(drawn, minlength=len(scores))
        winners, losers = self.winners.numpy(), self.losers.numpy()
        weights = times[winners] * times[losers]
        right = np.sign(scores[winners] - scores[losers]) / 2 + 0.5  # a tie is half right
        return float(np.average(right, weights=weights)) if weights.any() else np.nan


@dataclass(frozen=True)
class Head:
    """The general model's last layer on N photographs, in float64.

    Attributes:
        features: (N, C) what it takes.
        logits: (N, K) what it gives.
        direction: (K,) along which opinions move the logits.
        score: logits (N, K) -> scores (N,), on the scale of the opinions.
    """

    features: Tensor
    logits: Tensor
    direction: Tensor
    score: Callable[[Tensor], Tensor]

    def moved(self, by: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (N,) of logits that are moved by (N,) times the direction, and their slopes."""
        with torch.enable_grad():
            at = by.detach().requires_grad_()
            scores = self.score(self.logits + at[:, None] * self.direction)
            (slopes,) = torch.autograd.grad(scores.sum(), at)
        return scores.detach(), slopes


class TasteModel:
    """t of N photographs as a linear function of few columns, and back to u and v.

    The columns: 1; the general model's opinion; and the features in the basis of their singular
    vectors, in which ridge regression is the same as in their own, and of at most N columns.
    """

    def __init__(self, head: Head) -> None:
        self.head = head
        opinion = head.logits @ head.direction
        self.level, self.spread = opinion.mean(), opinion.std().clamp_min(1e-12)
        self.centre = head.features.mean(0)
        centred = head.features - self.centre
        left, values, self.basis = torch.linalg.svd(centred, full_matrices=False)
        self.size = (values.square().sum() / len(left)).sqrt().clamp_min(1e-12)
        ones = torch.ones(len(left), 1, dtype=left.dtype)
        gain = ((opinion - self.level) / self.spread)[:, None]
        # A step of 1 moves a score by about 1.
        self.unit = 1 / head.moved(torch.zeros_like(opinion))[1].abs().mean().clamp_min(1e-12)
        self.columns = self.unit * torch.cat([ones, gain, left * values / self.size], dim=1)

    def fit(self, opinions: Opinions, price: float, start: Tensor) -> Tensor:
        """Coefficients of the columns for opinions, by Newton's method from others."""
        prices = torch.full_like(start, price)
        prices[0], prices[1] = LEVEL_PRICE, GAIN_PRICE
        found, objective = start, start.new_tensor(torch.inf)
        step, at = torch.zeros_like(start), start
        for _ in range(STEPS):
            scores, slopes = self.head.moved(self.columns @ at)
            loss = opinions.loss(opinions.of(scores))
            value = loss.value.sum() + (prices * at.square()).sum() / 2
            if not value <= objective:  # too far
                step = step / 2
            else:
                gained, objective, found = objective - value, value, at
                if gained < SMALLEST_GAIN * (1 + objective):
                    break
                jacobian = opinions.of(slopes[:, None] * self.columns)
                slope = jacobian.T @ loss.slope + prices * found
                curvature = jacobian.T @ (jacobian * loss.curvature[:, None]) + prices.diag()
                step = -torch.linalg.solve(curvature, slope)
            at = found + step
        return found

    def path(self, opinions: Opinions) -> list[Tensor]:
        """The coefficients at each of ``PRICES``, from the dearest on."""
        found = [self.columns.new_zeros(self.columns.shape[1])]
        for price in PRICES:
            found.append(self.fit(opinions, price, found[-1]))
        return found[1:]

    def cross_fitted(
        self,
        opinions: Opinions,
        folds: int,
        seed: int,
        fit: Callable[[Opinions], Sequence[Tensor]],
    ) -> list[Tensor]:
        """Scores (N,) by what ``fit`` makes of the opinions on the photographs of other folds."""
        order = torch.from_numpy(np.random.default_rng(seed).permutation(opinions.photographs))
        fold = torch.full((len(self.columns),), -1)
        fold[order] = torch.arange(len(order)) % folds
        rows = [fold == k for k in range(folds)]
        fits = [fit(opinions.within((fold >= 0) & ~held)) for held in rows]
        scores = []
        for coefficients in map(torch.stack, zip(*fits, strict=True)):
            # One level for all: that of a fold's others is low where its own ratings are high.
            coefficients[:, 0] = coefficients[:, 0].mean()
            by = torch.zeros(len(fold), dtype=self.columns.dtype)
            for held, found in zip(rows, coefficients, strict=True):
                by[held] = self.columns[held] @ found
            scores.append(self.head.moved(by)[0])
        return scores

    def best(self, opinions: Opinions, seed: int) -> Tensor:
        """The coefficients at the price whose cross-fitted scores lose least."""
        scores = self.cross_fitted(opinions, INNER_FOLDS, seed, self.path)
        losses = torch.stack([opinions.loss(opinions.of(one)).value.sum() for one in scores])
        return self.path(opinions)[int(losses.argmin())]

    def held_out(self, opinions: Opinions, seed: int) -> Tensor:
        """Scores (N,) of each photograph by the taste that the others' opinions show."""
        (scores,) = self.cross_fitted(opinions, FOLDS, seed, lambda known: [self.best(known, seed)])
        return scores

    def change(self, coefficients: Tensor, layer: Linear) -> tuple[Tensor, Tensor]:
        """What makes the general model's layer that of the taste: weight (K, C) and bias (K,)."""
        level, gain, rest = coefficients[0], coefficients[1] / self.spread, coefficients[2:]
        direction = self.head.direction
        weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
        own = rest @ self.basis / self.size
        u = self.unit * (gain * direction @ weight + own)
        v = self.unit * (level + gain * (direction @ bias - self.level) - self.centre @ own)
        return torch.outer(direction, u), direction * v
