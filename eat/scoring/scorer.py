"""Photographs to scores: the scorer."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eat.checkpoint import load_checkpoint
from eat.checkpoint.precision import make_ready
from eat.config.model import MOST_BATCH, MOST_WORKERS, Precision
from eat.data.decoding import Decoded, ImageError
from eat.data.photos import find_photos, is_one_photo, read_ahead
from eat.data.scales import ScoreScale, mean_scores
from eat.data.transforms import Photo, Preprocessing
from eat.models import AestheticModel
from eat.models.base import Record
from eat.models.weights import weights_file
from eat.system.cores import available_cores
from eat.system.device import autocast, check_compiler, fetch, pick_device
from eat.system.files import file_digest
from eat.system.schema import check_range

ONE_TO_TEN = ScoreScale(low=1, high=10, target_scale=10, positive_above=5.5)


@dataclass(frozen=True)
class Score:
    """The score of one photograph.

    Attributes:
        image: its path as given, or "image 3" for the third of those given, if it is no file.
        score: on the scorer's scale, the best highest; of several targets the first.
        votes: predicted shares of the votes, if the model predicts a distribution; else empty.
        error: why there is no score (which then is NaN); empty if there is.
        targets: the score of each target, by its name, of a model with ``data.targets``.
        percentile: how many of 100 photographs of the run's split have a lower score, if asked for.
        note: what to know of how the photograph was read, such as that it has more frames.
    """

    image: str
    score: float
    votes: tuple[float, ...] = ()
    error: str = ""
    targets: dict[str, float] = field(default_factory=dict)
    percentile: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Pixels:
    """A photograph as a model's preprocessing gives it.

    Attributes:
        pixels: uint8 (3, size, size); None if it cannot be read.
        error: why it cannot; empty if it can.
        note: as of ``Score``.
    """

    pixels: Tensor | None
    error: str = ""
    note: str = ""


def read_pixels(
    photo: Photo, preprocessing: Preprocessing, look: Callable[[Decoded], None] | None = None
) -> Pixels:
    """Decode and resize a photograph for a model; ``look`` as of ``Preprocessing.evaluation``."""
    notes: list[str] = []
    try:
        pixels = preprocessing.evaluation(photo, look, notes.append)
    except ImageError as error:
        return Pixels(None, str(error))
    return Pixels(pixels, note="; ".join(notes))


@dataclass
class _Batch:
    """Photographs on their way to scores; ``outputs`` may still be under way on the device."""

    photos: list[tuple[Photo, Pixels]]
    outputs: Callable[[], Tensor]


class Watch(Protocol):
    """Whoever sees what a scorer has of each photograph on its way to a score.

    Attributes:
        blocks: names of the blocks whose attention ``attended`` receives.
    """

    blocks: Sequence[str]

    def decoded(self, file: Any, photo: Decoded) -> None:
        """Take a decoded photograph, in one of the decoding threads, before it is resized."""

    def attended(self, files: Sequence[Any], record: Record) -> None:
        """Take what the blocks attended to in the photographs of a batch."""


class Scorer:
    """Scores photographs with a checkpoint. The score of one does not depend on the others.

    In fp32 it is the same to 1e-5 in a batch of any size. Each image has its own interest points,
    also in models that average them over a batch. A model that compares images with one another
    is refused, unless ``own_rule`` asks for a rule of ours. Several threads may call one scorer.

    The arguments are documented at ``eat.config.commands.ScoreOptions``; ``percentile`` None gives
    percentiles where the checkpoint knows them.

    Raises:
        WeightsError: the checkpoint cannot be read.
        ValueError: an option is out of range, the device or the compiler is not there, or the model
            scores no single images.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        model: str | None = None,
        general: str | None = None,
        device: str = "auto",
        precision: Precision = "fp32",
        batch_size: int | None = None,
        workers: int | None = None,
        compile: bool = False,
        own_rule: bool = False,
        scale: Literal["ten", "own"] = "ten",
        percentile: bool | None = False,
    ) -> None:
        check_range("batch_size", batch_size, 1, MOST_BATCH)
        check_range("workers", workers, 1, MOST_WORKERS)
        if scale not in ("ten", "own"):
            raise ValueError(f"scale is {scale!r}: expected ten or own")
        self.device = pick_device(device)
        self.precision = precision
        self.workers = workers or min(available_cores(), 16)
        self.batch_size = batch_size or (8 if self.device.type == "cpu" else 16)
        # One shape is all that a compiled model takes, and what GPUs choose their kernels by.
        self._fills = compile or self.device.type != "cpu"
        self._given = {"precision": precision, "compile": compile, "scale": scale}
        self._given |= {"own_rule": True} if own_rule else {}
        self._given |= {"percentile": True} if percentile else {}
        self.checkpoint = weights_file(checkpoint)
        net, self.info = load_checkpoint(checkpoint, model, general)
        self.scales = self.info.scales
        self._quantiles = () if percentile is False else self.info.score_quantiles
        if percentile and not self._quantiles:
            raise ValueError(f"{checkpoint} holds no percentiles: runs write them since 0.2")
        if scale == "ten":
            self.scales = dict.fromkeys(self.scales, ONE_TO_TEN)
        if own_rule:
            net.use_own_rule(self.info.batch_size)
        else:
            net.use_own_points()
        steps = self.info.preprocessing
        self.model = make_ready(net, steps, precision, self.device, compiled=compile)
        if compile:
            size = steps.size
            empty = torch.zeros(self.batch_size, 3, size, size, dtype=torch.uint8)
            compile_frozen(self.model, self._normalised(empty), precision)

    @property
    def num_votes(self) -> int:
        """Vote shares that the model predicts; 0 if it predicts a score alone."""
        return self.info.num_votes

    def settings(self) -> dict[str, Any]:
        """All that a score depends on, but for the machine and its rounding."""
        return {
            "checkpoint": file_digest(self.checkpoint),
            "device": self.device.type,
            **self._given,
        }

    def __call__(self, photos: Any) -> Iterator[Score]:
        """Score photographs, in order; those that cannot be read carry an error.

        Args:
            photos: one or an iterable of several, also mixed: files, folders and glob patterns,
                crops such as "photo.jpg[600x400+100+0]", encoded bytes, PIL images, or RGB pixels
                as uint8: arrays (H, W, 3) or tensors (3, H, W). Folders are searched through, and
                no file comes twice.
        """
        return self.score_files(find_photos(photos))

    def score_files(self, files: Iterable[Photo], watch: Watch | None = None) -> Iterator[Score]:
        """Score image files, in order; unreadable ones carry an error."""
        ahead = 2 * max(self.batch_size, self.workers)
        decode = partial(self._decode, watch=watch) if watch else self._decode
        decoded = read_ahead(decode, files, threads=self.workers, ahead=ahead)
        yield from self.score_pixels(decoded, watch)

    def score_pixels(
        self, decoded: Iterable[tuple[Photo, Pixels]], watch: Watch | None = None
    ) -> Iterator[Score]:
        """Score what ``read_pixels`` gave of photographs, in order."""
        yield from self._scores(self._through_model(iter(decoded), watch))

    def _decode(self, photo: Photo, watch: Watch | None = None) -> Pixels:
        look = partial(watch.decoded, photo) if watch else None
        return read_pixels(photo, self.info.preprocessing, look)

    def _normalised(self, pixels: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) as the model takes it, on its device."""
        return self.info.preprocessing.normalise(pixels.to(self.device, non_blocking=True))

    def _through_model(
        self, decoded: Iterator[tuple[Photo, Pixels]], watch: Watch | None
    ) -> Iterator[_Batch]:
        """Batches whose forward pass was started."""
        while group := list(itertools.islice(decoded, self.batch_size)):
            record: Record = {name: {} for name in watch.blocks} if watch else {}
            size = self.info.preprocessing.size
            count = self.batch_size if self._fills else len(group)
            # A copy of pinned memory does not wait for the batch before it.
            pinned = self.device.type == "cuda"
            pixels = torch.zeros(count, 3, size, size, dtype=torch.uint8, pin_memory=pinned)
            for i, (_, read) in enumerate(group):
                if read.pixels is not None:
                    pixels[i] = read.pixels
            with torch.inference_mode(), autocast(self.device, self.precision):
                model_input = self._normalised(pixels)
                outputs = self.model(model_input, record) if record else self.model(model_input)
            if watch and record:
                watch.attended([photo for photo, _ in group], record)
            yield _Batch(group, fetch(outputs))

    def _scores(self, batches: Iterator[_Batch]) -> Iterator[Score]:
        """Scores of batches in order.

        On a GPU the next forward pass is started before the outputs of the last are waited for.
        """
        waiting: deque[_Batch] = deque()
        for batch in batches:
            waiting.append(batch)
            if len(waiting) > (self.device.type == "cuda"):
                yield from self._score_batch(waiting.popleft())
        for batch in waiting:
            yield from self._score_batch(batch)

    def _score_batch(self, batch: _Batch) -> Iterator[Score]:
        outputs: NDArray[np.float64] = batch.outputs().double().numpy()
        scores = mean_scores(outputs, self.scales, self.info.scales)
        own = next(iter(mean_scores(outputs, self.info.scales).values()))
        for i, (photo, read) in enumerate(batch.photos):
            error = read.error
            if not error and not np.isfinite(outputs[i]).all():
                error = f"{photo}: the model's output is not finite in {self.precision}"
            if error:
                yield Score(str(photo), float("nan"), error=error)
            else:
                votes = tuple(outputs[i].tolist()) if self.num_votes else ()
                found = {name: float(values[i]) for name, values in scores.items()}
                first = next(iter(found.values()))
                targets, rank = found if self.info.targets else {}, None
                if self._quantiles:
                    shares = np.linspace(0, 100, len(self._quantiles))
                    rank = float(np.interp(own[i], self._quantiles, shares))
                yield Score(str(photo), first, votes, "", targets, rank, read.note)


def score(photos: Any, *, checkpoint: str | Path, **options: Any) -> Score | list[Score]:
    """Score photographs with a checkpoint that is loaded for this call alone.

    Args:
        photos: as ``Scorer`` takes them.
        checkpoint: the model. Loading it takes longer than a photograph: a ``Scorer`` keeps it.
        options: of ``Scorer``.

    Returns:
        The Score of one photograph, with an error if it cannot be read; of several, or of a folder
        or a pattern, a list.

    Raises:
        WeightsError, ValueError: as ``Scorer``.
    """
    scores = list(Scorer(checkpoint, **options)(photos))
    return scores[0] if is_one_photo(photos) else scores


def compile_frozen(model: AestheticModel, pixels: Tensor, precision: str) -> None:
    """Compile a model in place for one shape of input; its weights must not change afterwards.

    Args:
        model: on its device.
        pixels: (B, 3, H, W) normalised, of that shape and device.
        precision: as for ``autocast``.

    Raises:
        ValueError: there is no C++ compiler.
    """
    import torch._inductor.config

    check_compiler()
    model.compile(dynamic=False)
    # On a CPU the weights become constants of the program, packed for its matrix products.
    frozen = torch._inductor.config.patch(freezing=pixels.device.type == "cpu")
    with frozen, torch.inference_mode(), autocast(pixels.device, precision):
        model(pixels)
