"""Adaptation of a general model to single raters: the draws, the pixels and the steps."""

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eat.checkpoint import CheckpointInfo, load_checkpoint
from eat.config.personal import PersonalizeOptions
from eat.data.registry import find_dataset
from eat.data.scales import ScoreScale, rescale, split_outputs
from eat.data.transforms import Preprocessing, packed
from eat.evaluation.metrics import UndefinedMetricWarning, srcc
from eat.models import AestheticModel
from eat.personal.report import WorkerResult
from eat.system.device import autocast, pick_device

KEPT_BYTES = 2**30  # decoded pixels of the present worker that a process keeps


@dataclass(frozen=True)
class Rater:
    """A test worker: ``images``, sorted, and the rating of each on the data set's scale."""

    worker: str
    images: tuple[str, ...]
    ratings: tuple[float, ...]


@dataclass(frozen=True)
class Draw:
    """The draw of one repeat: rows to adapt on, rows to test on, and seeds of the adaptation.

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


def draw_shots(worker: str, count: int, repeat: int, options: PersonalizeOptions) -> Draw:
    """Draw exactly k of a worker's ``count`` images.

    The draw depends on seed, worker, k, repeat and ``count`` alone: not on other workers, their
    order, or the number of processes.
    """
    key = int.from_bytes(hashlib.blake2b(worker.encode(), digest_size=8).digest(), "big")
    generator = np.random.default_rng([options.seed, key, options.shots, repeat])
    order = generator.permutation(count)
    torch_seed = int(generator.integers(2**63))
    seeds = generator.integers(2**63, size=(options.epochs, options.shots))
    shots, rest = order[: options.shots], order[options.shots :]
    return Draw(np.sort(shots), np.sort(rest), seeds, torch_seed)


def mean_scores(outputs: Tensor, info: CheckpointInfo, target: ScoreScale) -> Tensor:
    """Outputs (N, K) of a model as mean scores (N,), of the first target, on the scale ``target``.

    As ``eat.data.scales.mean_scores``, but differentiable, in float32.
    """
    source, outputs = info.scale, next(iter(split_outputs(outputs.float(), info.scales).values()))
    if outputs.shape[1] == 1:
        return rescale(outputs[:, 0] * source.target_scale, source, target)
    bins = torch.linspace(source.low, source.high, outputs.shape[1], device=outputs.device)
    return rescale(outputs @ bins, source, target)


class RaterImages:
    """Pixels of one worker's images, decoded once each while they fit into ``KEPT_BYTES``."""

    def __init__(self, paths: list[Path], preprocessing: Preprocessing) -> None:
        self.paths = paths
        self.preprocessing = preprocessing
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}
        self.sides = preprocessing.size, preprocessing.side(training=True)
        self.room = KEPT_BYTES // (3 * sum(side * side for side in self.sides))

    def _decode(self, row: int) -> tuple[Tensor, Tensor]:
        if row in self.kept:
            return self.kept[row]
        image = self.preprocessing.read(self.paths[row])
        small, large = (packed(self.preprocessing.resize(image, side)) for side in self.sides)
        if len(self.kept) < self.room:
            self.kept[row] = small, large
        return small, large

    def evaluation(self, row: int) -> Tensor:
        """As ``Preprocessing.evaluation``: uint8 (3, size, size)."""
        return self._decode(row)[0]

    def training(self, row: int, seed: int) -> Tensor:
        """As ``Preprocessing.training``, draw for draw: uint8 (3, size, size)."""
        return self.preprocessing.augment(self._decode(row)[1], seed)


def training_mode(model: AestheticModel, on: bool) -> None:
    """Switch training mode, but for BatchNorm: its statistics stay those of the general model."""
    model.train(on)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()


class Adapter:
    """One working copy of the general model, adapted to one rater after the other.

    After each adaptation the changed parameters are restored from the one copy that is kept.

    Raises:
        WeightsError: the checkpoint cannot be read.
    """

    def __init__(self, checkpoint: str, options: PersonalizeOptions) -> None:
        self.options = options
        self.device = pick_device(options.device)
        model, info = load_checkpoint(checkpoint, options.model, options.general)
        model.use_own_points()
        model.set_epoch(1, 1)  # the model's training is over: Eq. 9 leaves no rotation
        self.model = model.to(self.device)
        dataset = find_dataset(options.name, options.low, options.high)
        self.info, self.target = info, dataset.scale
        side = round(info.preprocessing.size * 256 / 224)
        self.preprocessing = replace(info.preprocessing, train_resize=side, flip=True)
        head = list(model.get_classifier().parameters())
        body = [p for p in model.parameters() if all(p is not other for other in head)]
        if options.scope == "head":
            if not head:
                raise ValueError("scope is head, which a model of your own does not name: take all")
            for parameter in body:
                parameter.requires_grad_(False)
            body = []
        head_lr = options.lr if options.head_lr is None else options.head_lr
        self.groups = [{"params": head, "lr": head_lr}]
        self.groups += [{"params": body, "lr": options.lr}] if body else []
        self.changing = head + body
        self.general = [parameter.detach().clone() for parameter in self.changing]

    def __call__(self, rater: Rater) -> WorkerResult:
        """Carry out all repeats for one rater.

        Raises:
            ImageError: an image cannot be read.
            ValueError: the loss became infinite or NaN.
        """
        images = RaterImages(
            [Path(self.options.images) / name for name in rater.images], self.preprocessing
        )
        ratings = np.array(rater.ratings)
        result = WorkerResult(rater.worker, len(ratings), [], [])
        with warnings.catch_warnings():
            # The caller warns once for each worker, naming the repeats.
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            before = self._predict(images)
            for repeat in range(self.options.repeats):
                draw = draw_shots(rater.worker, len(ratings), repeat, self.options)
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
                if self.options.select == "best_on_test":
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
        """Take one step on all k images; gradients are accumulated over micro-batches."""
        training_mode(self.model, self.options.scope == "all")  # no drop path in a frozen body
        optimizer.zero_grad(set_to_none=True)
        scale, loss = self.target.target_scale, 0.0
        for batch in self._micro_batches(len(shots)):
            rows = shots[batch]
            pixels = [images.training(row, s) for row, s in zip(rows, seeds[batch], strict=True)]
            scores = mean_scores(self._forward(torch.stack(pixels)), self.info, self.target)
            wanted = torch.as_tensor(ratings[rows], dtype=torch.float32, device=self.device)
            share = ((scores - wanted) / scale).square().sum() / len(shots)
            share.backward()
            loss += share.item()
        if not np.isfinite(loss):
            raise FloatingPointError(f"the loss became {loss}")
        optimizer.step()

    def _micro_batches(self, count: int) -> Iterator[slice]:
        size = self.options.batch_size
        return (slice(start, start + size) for start in range(0, count, size))

    def _forward(self, pixels: Tensor) -> Tensor:
        with autocast(self.device, self.options.precision):
            return self.model(self.preprocessing.normalise(pixels.to(self.device)))

    @torch.no_grad()
    def _predict(self, images: RaterImages) -> NDArray[np.float64]:
        """Mean scores (N,) of all the images, in the same batches for both models."""
        self.model.eval()
        scores, rows = [], range(len(images.paths))
        # One autocast region casts the weights once.
        with autocast(self.device, self.options.precision):
            for batch in self._micro_batches(len(rows)):
                pixels = torch.stack([images.evaluation(row) for row in rows[batch]])
                scores.append(mean_scores(self._forward(pixels), self.info, self.target))
        return torch.cat(scores).double().cpu().numpy()

    @torch.no_grad()
    def _restore(self) -> None:
        for parameter, kept in zip(self.changing, self.general, strict=True):
            parameter.copy_(kept)
            parameter.grad = None
        self.model.eval()
