"""Photographs to scores."""

import csv
import glob
import io
import itertools
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from eat.checkpoint import load_checkpoint
from eat.data.scales import to_scores
from eat.data.transforms import ImageError, normalise
from eat.inference import autocast, cast_weights, compile_frozen, pick_device, use_own_points

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
ONE_TO_TEN = (1.0, 10.0)


@dataclass(frozen=True)
class Score:
    """The score of one photograph.

    Attributes:
        image: its path as given.
        score: 1 (worst) to 10; a model trained on another scale is stretched to this one.
        votes: predicted shares of the votes, if the model predicts a distribution; else empty.
        error: why there is no score (which then is NaN); empty if there is.
    """

    image: str
    score: float
    votes: tuple[float, ...] = ()
    error: str = ""


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """Files, folders (searched through, in name order) and glob patterns as a list of files.

    A file that is named is taken whatever its suffix; in folders only image suffixes count. No file
    comes twice. A path or pattern that matches nothing is kept, to be reported as missing.
    """
    found: dict[Path, None] = {}
    for given in paths:
        path = Path(given)
        if path.is_dir():
            found.update(dict.fromkeys(sorted(map(Path, _images_below(path)))))
        elif not glob.has_magic(str(given)) or path.exists():
            found[path] = None
        else:
            matches = sorted(glob.glob(str(given), recursive=True)) or [str(given)]
            found.update(dict.fromkeys(map(Path, matches)))
    return list(found)


def _images_below(folder: str | Path) -> Iterator[str]:
    """Files with an image suffix, by what the listing says of them: only links are looked up."""
    try:
        entries = os.scandir(folder)
    except PermissionError:
        return
    with entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _images_below(entry.path)
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and entry.is_file():
                yield entry.path


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class _Batch:
    """Files on their way through the model; ``outputs`` may still be under way on the device."""

    files: list[Path]
    errors: dict[int, str]
    outputs: Tensor


class Scorer:
    """Scores photographs with a checkpoint. The score of one does not hang on the others.

    Every forward pass has the same number of images, the last one filled up, because kernels may
    round differently for another number; interest points are each image's own in both profiles.

    Args:
        checkpoint: a run's checkpoint.
        device: auto or cpu.
        precision: fp32, bf16 or fp16.
        batch_size: images a forward pass; None takes 1 on a CPU and 16 on a GPU.
        workers: threads that decode images ahead of the model; None takes one a core, at most 16.
        compile: compile the model, which takes about a minute; worth it for many images, on a CPU
            in bf16 with 8 images a pass.

    Raises:
        WeightsError: the checkpoint cannot be read.
        ValueError: ``batch_size`` or ``workers`` is below 1, or there is no compiler.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        device: Literal["auto", "cpu"] = "auto",
        precision: Literal["fp32", "bf16", "fp16"] = "fp32",
        batch_size: int | None = None,
        workers: int | None = None,
        compile: bool = False,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("workers", workers)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: expected at least 1")
        self.device = pick_device(device)
        self.precision = precision
        self.workers = workers or min(available_cores(), 16)
        self.batch_size = batch_size or (16 if self.device.type == "cuda" else 1)
        model, self.info = load_checkpoint(checkpoint)
        use_own_points(model)
        cast_weights(model, precision)
        self.model = model.to(self.device)
        if compile:
            compile_frozen(model, self._empty_batch().to(self.device), precision)

    @property
    def num_votes(self) -> int:
        """Vote shares that the model predicts; 0 if it predicts a score alone."""
        return self.model.num_outputs if self.model.num_outputs > 1 else 0

    def __call__(self, paths: str | Path | Iterable[str | Path]) -> Iterator[Score]:
        """Score files, folders and glob patterns, in order; unreadable files carry an error."""
        if isinstance(paths, str | Path):
            paths = [paths]
        files = find_images(paths)
        yield from self._scores(self._through_model(self._decoded(files)))

    def _decode(self, file: Path) -> Tensor | str:
        """Pixels, or why there are none."""
        try:
            return self.info.preprocess.evaluation(file)
        except ImageError as error:
            return str(error)

    def _decoded(self, files: list[Path]) -> Iterator[tuple[Path, Tensor | str]]:
        """Files and their pixels in order, decoded by threads, at most two batches ahead."""
        pool = ThreadPoolExecutor(self.workers)
        ahead: deque[tuple[Path, Future[Tensor | str]]] = deque()
        room = 2 * max(self.batch_size, self.workers)
        try:
            for file in files:
                ahead.append((file, pool.submit(self._decode, file)))
                if len(ahead) > room:
                    done, pixels = ahead.popleft()
                    yield done, pixels.result()
            while ahead:
                done, pixels = ahead.popleft()
                yield done, pixels.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _empty_batch(self) -> Tensor:
        size = self.info.preprocess.size
        return torch.zeros(self.batch_size, 3, size, size, dtype=torch.uint8)

    def _through_model(self, decoded: Iterator[tuple[Path, Tensor | str]]) -> Iterator[_Batch]:
        """Batches whose forward pass was started."""
        while part := list(itertools.islice(decoded, self.batch_size)):
            pixels = self._empty_batch()
            errors: dict[int, str] = {}
            for i, (_, found) in enumerate(part):
                if isinstance(found, str):
                    errors[i] = found
                else:
                    pixels[i] = found
            with torch.inference_mode(), autocast(self.device, self.precision):
                outputs = self.model(normalise(pixels.to(self.device)))
            yield _Batch([file for file, _ in part], errors, outputs)

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

    def _score_batch(self, batch: _Batch) -> list[Score]:
        outputs, errors = batch.outputs.double().cpu().numpy(), batch.errors
        scores = self._to_ten(outputs)
        return [
            Score(str(file), float("nan"), error=errors[i])
            if i in errors
            else Score(str(file), float(scores[i]), self._votes(outputs[i]))
            for i, file in enumerate(batch.files)
        ]

    def _to_ten(self, outputs: np.ndarray) -> np.ndarray:
        dataset = self.info.scale
        share = (to_scores(outputs, dataset) - dataset.low) / (dataset.high - dataset.low)
        return ONE_TO_TEN[0] + share * (ONE_TO_TEN[1] - ONE_TO_TEN[0])

    @staticmethod
    def _votes(output: np.ndarray) -> tuple[float, ...]:
        return tuple(output.tolist()) if len(output) > 1 else ()


def as_csv(scores: Iterable[Score], num_votes: int) -> Iterator[str]:
    """Lines of a CSV: image, score, and v1..vK for the vote shares. Errors are left out."""

    def line(values: Iterable[object]) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(values)
        return text.getvalue()

    yield line(["image", "score", *(f"v{k + 1}" for k in range(num_votes))])
    for score in scores:
        if not score.error:
            votes = (f"{share:.6f}" for share in score.votes)
            yield line([score.image, f"{score.score:.6f}", *votes])


def as_json_lines(scores: Iterable[Score]) -> Iterator[str]:
    """One JSON object a photograph: image, score, votes where there are; or image and error."""
    for score in scores:
        entry: dict[str, object] = {"image": score.image}
        if score.error:
            entry["error"] = score.error
        else:
            entry["score"] = round(score.score, 6)
            if score.votes:
                entry["votes"] = [round(share, 6) for share in score.votes]
        yield json.dumps(entry)
