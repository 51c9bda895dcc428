"""Adaptation of a general model to single raters: the draws, the pixels and the steps."""

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eat.checkpoint import load_checkpoint
from eat.data.registry import DATASETS, DatasetSpec
from eat.data.scales import rescale
from eat.data.transforms import Preprocessing, normalise, packed
from eat.evaluation.metrics import UndefinedMetricWarning, srcc
from eat.evaluation.released import load_released
from eat.inference import autocast, pick_device, use_own_points
from eat.models import EAT
from eat.personal.report import WorkerResult

KEPT_BYTES = 2**30  # decoded pixels that a process keeps of the worker in hand


@dataclass(frozen=True)
class Protocol:
    """How a general model is adapted and tested; arguments as of ``personalize``."""

    shots: int = 10
    repeats: int = 10
    seed: int = 0
    epochs: int = 20
    lr: float = 1e-5
    head_lr: float | None = None
    scope: Literal["all", "head"] = "all"
    select: Literal["last", "best_on_test"] = "last"
    batch_size: int = 16
    precision: Literal["fp32", "bf16"] = "fp32"

    def __post_init__(self) -> None:
        for name in ("shots", "repeats", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected at least 1")
        for name in ("seed", "lr", "head_lr"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: expected at least 0")


@dataclass(frozen=True)
class Rater:
    """A test worker: ``images``, sorted, and the worker's rating of each, on the data's scale."""

    worker: str
    images: tuple[str, ...]
    ratings: tuple[float, ...]


@dataclass(frozen=True)
class Draw:
    """One repeat's draw: the rows adapted on, the rows tested on, and seeds of the adaptation.

    Attributes:
        shots: (k,) rows, in increasing order.
        rest: (N - k,) all other rows.
        seeds: (epochs, k) seeds of the augmentation.
        torch_seed: of drop path.
    """

    shots: NDArray[np.int64]
    rest: NDArray[np.int64]
    seeds: NDArray[np.int64]
    torch_seed: int


def draw_shots(worker: str, count: int, repeat: int, protocol: Protocol) -> Draw:
    """Draw exactly k of a worker's ``count`` images.

    The draw hangs on seed, worker, k, repeat and ``count`` alone: not on other workers, their
    order, or the number of processes.
    """
    key = int.from_bytes(hashlib.blake2b(worker.encode(), digest_size=8).digest(), "big")
    generator = np.random.default_rng([protocol.seed, key, protocol.shots, repeat])
    order = generator.permutation(count)
    torch_seed = int(generator.integers(2**63))
    seeds = generator.integers(2**63, size=(protocol.epochs, protocol.shots))
    return Draw(np.sort(order[: protocol.shots]), np.sort(order[protocol.shots :]), seeds,
                torch_seed)  # fmt: skip


def mean_scores(outputs: Tensor, source: DatasetSpec, target: DatasetSpec) -> Tensor:
    """Model outputs as mean scores on ``target``'s scale, differentiable.

    Args:
        outputs: (N, K) vote shares from ``source.low`` to ``source.high``, taken as they are, or
            (N, 1) scores over ``source.target_scale``.
        source: the data set that the model was trained on.
        target: the data set of the ratings.

    Returns:
        (N,) float32.
    """
    outputs = outputs.float()
    if outputs.shape[1] == 1:
        scores = outputs[:, 0] * source.target_scale
    else:
        bins = torch.linspace(source.low, source.high, outputs.shape[1], device=outputs.device)
        scores = outputs @ bins
    return rescale(scores, source.scale, target.scale)


class RaterImages:
    """Pixels of one worker's images, decoded once each while they fit into ``KEPT_BYTES``.

    Args:
        paths: of the images.
        preprocessing: with ``train_resize`` set.
    """

    def __init__(self, paths: list[Path], preprocessing: Preprocessing) -> None:
        self.paths = paths
        self.preprocessing = preprocessing
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}
        sides = preprocessing.size, preprocessing.train_resize
        self.room = KEPT_BYTES // (3 * sum(side * side for side in sides))

    def _decode(self, row: int) -> tuple[Tensor, Tensor]:
        if row in self.kept:
            return self.kept[row]
        how = self.preprocessing
        image = how.read(self.paths[row])
        pair = tuple(packed(how.resize(image, s)) for s in (how.size, how.train_resize))
        if len(self.kept) < self.room:
            self.kept[row] = pair
        return pair

    def evaluation(self, row: int) -> Tensor:
        """As ``Preprocessing.evaluation``: uint8 (3, size, size)."""
        return self._decode(row)[0]

    def training(self, row: int, seed: int) -> Tensor:
        """As ``Preprocessing.training``, draw for draw: uint8 (3, size, size)."""
        return self.preprocessing.augment(self._decode(row)[1], seed)


class Adapter:
    """One working copy of the general model, adapted to one rater after the other.

    After each adaptation the parameters that changed are restored from the one kept state.

    Args:
        checkpoint: the general model.
        released: it is one of the two that the authors published.
        name: data set of the ratings.
        images: folder of the images.
        protocol: what to do.
        device: auto or cpu.

    Raises:
        WeightsError: the checkpoint cannot be read.
    """

    def __init__(
        self,
        checkpoint: str,
        released: bool,
        name: str,
        images: str,
        protocol: Protocol,
        device: str,
    ) -> None:
        model, info = load_released(checkpoint) if released else load_checkpoint(checkpoint)
        use_own_points(model)
        model.set_epoch(1, 1)  # the model's training is over: Eq. 9 leaves no rotation
        self.device = pick_device(device)
        self.model: EAT = model.to(self.device)
        self.source, self.target = info.dataset_row, DATASETS[name]
        self.folder, self.protocol = Path(images), protocol
        size = info.preprocess.size
        self.preprocessing = replace(
            info.preprocess, train_resize=round(size * 256 / 224), flip=True
        )
        head = list(model.head.parameters())
        known = {id(p) for p in head}
        body = [p for p in model.parameters() if id(p) not in known]
        if protocol.scope == "head":
            for parameter in body:
                parameter.requires_grad_(False)
            body = []
        head_lr = protocol.lr if protocol.head_lr is None else protocol.head_lr
        self.groups = [{"params": head, "lr": head_lr}]
        self.groups += [{"params": body, "lr": protocol.lr}] if body else []
        self.changing = head + body
        self.general = [parameter.detach().clone() for parameter in self.changing]

    def __call__(self, rater: Rater) -> WorkerResult:
        """All repeats for one rater.

        Raises:
            ImageError: an image cannot be read.
            ValueError: the loss became infinite or NaN.
        """
        images = RaterImages([self.folder / name for name in rater.images], self.preprocessing)
        ratings = np.array(rater.ratings)
        result = WorkerResult(rater.worker, len(ratings), [], [])
        with warnings.catch_warnings():
            # whoever collects the results tells it once, with worker and repeat
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            before = self._predict(images)
            for repeat in range(self.protocol.repeats):
                draw = draw_shots(rater.worker, len(ratings), repeat, self.protocol)
                try:
                    adapted = self._adapt(images, ratings, draw)
                except FloatingPointError as error:
                    raise ValueError(
                        f"adapting to worker {rater.worker}, repeat {repeat + 1}: {error}; a lower "
                        "lr may help"
                    ) from error
                finally:
                    self._restore()
                result.personalised.append(adapted)
                result.general.append(srcc(before[draw.rest], ratings[draw.rest]))
        return result

    def _adapt(self, images: RaterImages, ratings: NDArray[np.float64], draw: Draw) -> float:
        """Adapt to one draw and return the SRCC on the rest."""
        optimizer = torch.optim.Adam(self.groups, fused=True)
        devices = [torch.cuda.current_device()] if self.device.type == "cuda" else []
        found = []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(draw.torch_seed)
            for seeds in draw.seeds:
                self._step(optimizer, images, ratings, draw.shots, seeds)
                if self.protocol.select == "best_on_test":
                    found.append(srcc(self._predict(images)[draw.rest], ratings[draw.rest]))
        if found:
            return float(np.nanmax(found)) if np.isfinite(found).any() else float("nan")
        return srcc(self._predict(images)[draw.rest], ratings[draw.rest])

    def _step(
        self,
        optimizer: torch.optim.Optimizer,
        images: RaterImages,
        ratings: NDArray[np.float64],
        shots: NDArray[np.int64],
        seeds: NDArray[np.int64],
    ) -> None:
        """One step on all k images; their gradients are summed over parts of ``batch_size``."""
        self.model.train(self.protocol.scope == "all")  # no drop path in a body that stays
        optimizer.zero_grad(set_to_none=True)
        scale, loss = self.target.target_scale, 0.0
        for rows, part in zip(self._parts(shots), self._parts(seeds), strict=True):
            pixels = [images.training(row, seed) for row, seed in zip(rows, part, strict=True)]
            scores = mean_scores(self._forward(torch.stack(pixels)), self.source, self.target)
            wanted = torch.as_tensor(ratings[rows], dtype=torch.float32, device=self.device)
            share = ((scores - wanted) / scale).square().sum() / len(shots)
            share.backward()
            loss += share.item()
        if not np.isfinite(loss):
            raise FloatingPointError(f"the loss became {loss}")
        optimizer.step()

    def _parts(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        size = self.protocol.batch_size
        return (rows[start : start + size] for start in range(0, len(rows), size))

    def _forward(self, pixels: Tensor) -> Tensor:
        with autocast(self.device, self.protocol.precision):
            return self.model(normalise(pixels.to(self.device)))

    @torch.no_grad()
    def _predict(self, images: RaterImages) -> NDArray[np.float64]:
        """Mean scores (N,) of all the images, in the same batches for both models."""
        self.model.eval()
        scores = []
        with autocast(self.device, self.protocol.precision):  # one region casts the weights once
            for rows in self._parts(np.arange(len(images.paths))):
                outputs = self._forward(torch.stack([images.evaluation(row) for row in rows]))
                scores.append(mean_scores(outputs, self.source, self.target))
        return torch.cat(scores).double().cpu().numpy()

    @torch.no_grad()
    def _restore(self) -> None:
        for parameter, kept in zip(self.changing, self.general, strict=True):
            parameter.copy_(kept)
            parameter.grad = None
        self.model.eval()
