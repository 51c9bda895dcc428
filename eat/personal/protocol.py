"""Personalised assessment: k-shot adaptation of a general model to single raters (Tables 3, 6)."""

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from tqdm import tqdm

from eat.checkpoint import read_trained_on
from eat.data.labels.fields import read_ids
from eat.data.labels.identity import count_seen, identity_hashes
from eat.data.labels.reading import read_ratings
from eat.data.labels.table import LabelError, quote
from eat.data.registry import find_dataset
from eat.data.splits import with_images
from eat.evaluation.metrics import UndefinedMetricWarning
from eat.personal.adaptation import Adapter, Protocol, Rater
from eat.personal.report import Journal, Personalization, WorkerResult
from eat.system.pool import unordered

TITLES = {
    "all": "",
    "head": ", only the head adapted",
    "last": "",
    "best_on_test": ", OPTIMISTIC: best epoch chosen on the test images",
}


@lru_cache(maxsize=1)
def _adapter_of_process(arguments: tuple[Any, ...]) -> Adapter:
    return Adapter(*arguments)


def _adapt_in_process(arguments: tuple[Any, ...], rater: Rater) -> WorkerResult:
    return _adapter_of_process(arguments)(rater)


def adapt_all(
    arguments: tuple[Any, ...], raters: list[Rater], processes: int
) -> Iterator[WorkerResult]:
    """Results as they come; ``arguments`` are those of :class:`Adapter`."""
    if processes == 1 or len(raters) < 2:
        adapter = Adapter(*arguments) if raters else None
        yield from map(adapter, raters) if adapter else ()
        return
    yield from unordered(
        partial(_adapt_in_process, arguments),
        raters,
        min(processes, len(raters)),
        name=lambda rater: f"worker {rater.worker}",
        start="spawn",
        option="--processes",
    )


def choose_workers(
    ratings: pd.DataFrame,
    listed: list[str] | str | None,
    drawn: int | None,
    seed: int,
    source: str,
) -> list[str]:
    """The test workers, sorted: those listed, or drawn, or marked as test in the ratings.

    Raises:
        ValueError: they are both listed and to be drawn.
        LabelError: the ratings mark none and neither is given; one rated nothing; or there are
            fewer than are to be drawn.
    """
    everyone = sorted(ratings["worker"].unique())
    if listed is not None and drawn is not None:
        raise ValueError("give test_workers or num_test_workers, not both")
    if drawn is not None:
        if not 1 <= drawn <= len(everyone):
            raise LabelError(f"{source}: num_test_workers is {drawn}: expected 1 to "
                             f"{len(everyone)}, the workers in it")  # fmt: skip
        generator = np.random.default_rng(seed)
        return sorted(generator.choice(everyone, drawn, replace=False).tolist())
    if listed is None:
        chosen = sorted(ratings.loc[ratings["split"] == "test", "worker"].unique())
        if not chosen:
            raise LabelError(
                f"{source}: marks no worker as test worker; give their list as --test_workers, or "
                "draw some with --num_test_workers"
            )
        return chosen
    chosen = sorted(set(read_ids(listed) if isinstance(listed, str) else listed))
    unknown = sorted(set(chosen) - set(everyone))
    if unknown or not chosen:
        raise LabelError(
            f"{source}: has no ratings by {len(unknown)} of the {len(chosen)} test workers, "
            f"{quote(unknown) or 'none given'}; its workers are such as {quote(everyone)}"
        )
    return chosen


def make_raters(
    ratings: pd.DataFrame, workers: list[str], needed: int, skip_small: bool
) -> tuple[list[Rater], dict[str, int]]:
    """The workers with enough images, and the number of images of each of the others.

    Raises:
        LabelError: a worker has fewer than ``needed`` and ``skip_small`` is not set, or all have.
    """
    counts = ratings["worker"].value_counts()
    small = {w: int(counts.get(w, 0)) for w in workers if counts.get(w, 0) < needed}
    if small and (not skip_small or len(small) == len(workers)):
        worker, count = next(iter(small.items()))
        raise LabelError(
            f"worker {worker} rated {count} images, and shots + min_rest need {needed} "
            f"({len(small)} of {len(workers)} test workers have too few): take fewer --shots, or "
            "leave such workers out with --skip_small true"
        )
    raters = []
    for worker in workers:
        if worker not in small:
            rows = ratings[ratings["worker"] == worker].sort_values("image")
            raters.append(Rater(worker, tuple(rows["image"]), tuple(rows["score"].tolist())))
    return raters, small


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _warn_of_undefined(result: WorkerResult) -> None:
    pairs = enumerate(zip(result.personalised, result.general, strict=True), start=1)
    repeats = [str(number) for number, pair in pairs if np.isnan(pair).any()]
    if repeats:
        warnings.warn(
            f"SRCC is undefined for worker {result.worker}, repeat {', '.join(repeats)}: constant "
            "ratings or predictions on the remaining images; left out of the means",
            UndefinedMetricWarning,
            stacklevel=3,
        )


def personalize(
    checkpoint: str,
    *,
    name: str,
    labels: str,
    images: str,
    released: bool = False,
    shots: int = 10,
    repeats: int = 10,
    test_workers: list[str] | str | None = None,
    num_test_workers: int | None = None,
    seed: int = 0,
    out: str | None = None,
    epochs: int = 20,
    lr: float = 1e-5,
    head_lr: float | None = None,
    scope: Literal["all", "head"] = "all",
    select: Literal["last", "best_on_test"] = "last",
    batch_size: int = 16,
    processes: int = 1,
    device: Literal["auto", "cpu"] = "auto",
    precision: Literal["fp32", "bf16"] = "fp32",
    min_rest: int = 2,
    skip_small: bool = False,
    missing: Literal["error", "leave_out"] = "error",
    progress: bool = True,
) -> Personalization:
    """Adapt a general model to each test worker and measure both on the worker's other images.

    The protocol of Tables 3 and 6: for each worker and repeat exactly k rated images are drawn, a
    copy of the model is adapted to them by Adam on the squared error of score over target scale,
    all k a step, and SRCC is taken over all the worker's remaining images. Training images are
    resized to 256/224 of the model's side, flipped every other time and cropped. Interest points
    are each image's own, also in a model whose profile averages them over the batch, and no offset
    is rotated. The numbers do not hang on ``processes`` where torch computes with one thread.

    Args:
        checkpoint: the general model, a run's checkpoint. A model of vote shares is adapted and
            judged by its mean score, and scores are mapped to the ratings' scale.
        name: data set of the ratings.
        labels: file of single ratings, or the folder with the published one.
        images: image folder.
        released: the checkpoint is one of the two that the authors published.
        shots: k.
        repeats: draws for each worker.
        test_workers: list of ids, or a file with one; None takes the workers marked as test.
        num_test_workers: draw so many by the seed, from all, instead; the settings record them.
        seed: of the draws, the augmentation and drop path.
        out: folder for the results; a second call with the same settings continues there.
        epochs: steps of an adaptation.
        lr: learning rate.
        head_lr: that of the head, if another.
        scope: adapt all parameters, or the head alone.
        select: take the result after the last epoch; or, as one published variant does, the best
            epoch on the test images, which is optimistic.
        batch_size: images a forward pass. It bounds memory and changes no step.
        processes: processes that share the workers, of one thread each.
        device: auto or cpu.
        precision: of the forward passes, fp32 or bf16.
        min_rest: images that must remain to test on; SRCC needs 2. FLICKR-AES's smallest test
            worker keeps 5 in the 100-shot case.
        skip_small: leave out workers with fewer than k + ``min_rest`` images, and list them.
        missing: "error" or "leave_out" for rated images without a file.
        progress: show a bar on a terminal.

    Raises:
        WeightsError: the checkpoint cannot be read.
        LabelError: the ratings cannot be read, do not fit the images, or lack workers or images.
        ImageError: an image cannot be read.
        ChildProcessError: a process died; another call goes on from there.
        ValueError: an option is out of range, ``out`` holds results with other settings, or an
            adaptation diverged.

    Warns:
        UndefinedMetricWarning: ratings or predictions are constant, so that SRCC is undefined.
    """
    protocol = Protocol(shots, repeats, seed, epochs, lr, head_lr, scope, select, batch_size,
                        precision)  # fmt: skip
    if min_rest < 2 or processes < 1:
        raise ValueError(f"expected min_rest of at least 2 and processes of at least 1, got "
                         f"{min_rest} and {processes}")  # fmt: skip
    dataset = find_dataset(name)
    table = read_ratings(name, labels)
    chosen = choose_workers(table, test_workers, num_test_workers, seed, labels)
    table, left_out = with_images(table[table["worker"].isin(chosen)], images, missing)
    raters, skipped = make_raters(table, chosen, shots + min_rest, skip_small)
    settings = {
        "checkpoint": str(checkpoint),
        "weights": _digest(Path(checkpoint).read_bytes()),
        "released": released,
        "name": name,
        "labels": str(labels),
        "images": str(images),
        "ratings": _digest(repr(raters).encode()),
        **asdict(protocol),
        "min_rest": min_rest,
        "skip_small": skip_small,
        "test_workers": chosen,
        "left_out": sorted(set(left_out)),
    }
    journal = Journal(out, settings)
    todo = [rater for rater in raters if rater.worker not in journal.done]
    bar = tqdm(total=len(raters), initial=len(raters) - len(todo), desc="personalize",
               unit="worker", disable=None if progress else True)  # fmt: skip
    arguments = (str(checkpoint), released, name, str(images), protocol, device)
    with bar:
        for result in adapt_all(arguments, todo, processes):
            journal.add(result)
            _warn_of_undefined(result)
            bar.update()
    result = Personalization(
        title=f"{dataset.title}, {shots}-shot" + TITLES[scope] + TITLES[select],
        settings=settings,
        results=[journal.done[rater.worker] for rater in raters],
        skipped=skipped,
        notes=_notes(checkpoint, released, table, settings, num_test_workers),
    )
    if out:
        result.write(out)
    return result


def _notes(
    checkpoint: str,
    released: bool,
    table: pd.DataFrame,
    settings: dict[str, Any],
    drawn: int | None,
) -> list[str]:
    notes = []
    if settings["left_out"]:
        notes.append(f"{len(settings['left_out'])} rated images left out: no file")
    if drawn is not None:
        notes.append("test workers drawn by the seed; the settings list them")
    trained_on = None if released else read_trained_on(checkpoint)
    if trained_on is None:
        notes.append("the checkpoint lists no training images")
    else:
        seen, count = count_seen(table, trained_on), len(identity_hashes(table))
        warning = "WARNING: " if seen else ""
        notes.append(f"{warning}{seen} of the test workers' {count} images were among the "
                     f"{len(trained_on)} trained on")  # fmt: skip
    return notes
