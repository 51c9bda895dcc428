"""The k-shot protocol of personalised assessment (Tables 3, 6 and 7)."""

import hashlib
import json
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from eat.checkpoint import read_trained_on
from eat.config.personal import PersonalizeOptions
from eat.data.labels.fields import read_ids
from eat.data.labels.reading import read_ratings
from eat.data.labels.table import LabelError, quote
from eat.data.registry import find_dataset
from eat.data.splits import with_images
from eat.evaluation.metrics import UndefinedMetricWarning
from eat.evaluation.report import seen_note
from eat.models.weights import weights_file
from eat.personal.adaptation import Adapter, Rater
from eat.personal.journal import Journal
from eat.personal.report import Personalization, WorkerResult
from eat.system.files import file_digest
from eat.system.pool import unordered
from eat.system.schema import check_range

LOWEST = {
    "shots": 1, "repeats": 1, "epochs": 1, "batch_size": 1, "processes": 1, "min_rest": 2,
    "seed": 0, "lr": 0, "head_lr": 0,
}  # fmt: skip
# Options that no number depends on, or whose effect the settings record by another name.
NO_SETTINGS = ("num_test_workers", "out", "processes", "device", "missing", "progress",
               "model", "general")  # fmt: skip


def personalize(checkpoint: str, options: PersonalizeOptions) -> Personalization:
    """Adapt a general model to each test worker and measure both on the worker's other images.

    The protocol of Tables 3, 6 and 7: each repeat draws exactly k images of a worker. Adam adapts a
    copy of the model to their ratings by the squared error of score over target scale, all k in
    each step. SRCC is taken over all the worker's remaining images. Training images are resized to
    256/224 of the model's side, flipped every other time and cropped. Interest points are each
    image's own, also in a model whose profile averages them over the batch, and no offset is
    rotated. The numbers do not depend on ``processes`` where torch computes with one thread.

    Args:
        checkpoint: the general model, of a run or one of the authors'. A model of vote shares is
            adapted and judged by its mean score, and scores are mapped to the ratings' scale.
        options: as documented there.

    Raises:
        WeightsError: the checkpoint cannot be read.
        LabelError: the ratings cannot be read, do not fit the images, or lack workers or images.
        ImageError: an image cannot be read.
        ChildProcessError: a process died; another call continues.
        ValueError: an option is out of range, ``out`` holds results with other settings, or an
            adaptation diverged.

    Warns:
        UndefinedMetricWarning: ratings or predictions are constant, so that SRCC is undefined.
    """
    panel = read_panel(options)
    raters = panel.raters
    settings = settings_of(options, panel) | {
        "checkpoint": str(checkpoint),
        "weights": file_digest(weights_file(checkpoint)),
    }
    journal = Journal(options.out, settings)
    todo = [rater for rater in raters if rater.worker not in journal.done]
    bar = tqdm(total=len(raters), initial=len(raters) - len(todo), desc="personalize",
               unit="worker", disable=None if options.progress else True)  # fmt: skip
    with bar:
        for result in adapt_all(checkpoint, options, todo):
            journal.add(result)
            _warn_of_undefined(result)
            bar.update()
    found = Personalization(
        title=_title(find_dataset(options.name, options.low, options.high).title, options),
        settings=settings,
        results=[journal.done[rater.worker] for rater in raters],
        skipped=panel.skipped,
        notes=_notes(checkpoint, options, panel),
    )
    if options.out:
        found.write(options.out)
    return found


@dataclass(frozen=True)
class Panel:
    """The test workers of a data set, and what they rated.

    Attributes:
        workers: ids of all, sorted.
        raters: those of them with enough images.
        skipped: number of images of the others.
        table: their ratings, of images that are there.
        left_out: rated images that are not there.
    """

    workers: list[str]
    raters: list[Rater]
    skipped: dict[str, int]
    table: pd.DataFrame
    left_out: list[str]


def read_panel(options: PersonalizeOptions) -> Panel:
    """Read the ratings and choose the test workers.

    Raises:
        LabelError, ValueError: as ``personalize``.
    """
    check(options)
    ratings = read_ratings(options.name, options.labels, low=options.low, high=options.high)
    workers = choose_workers(ratings, options)
    table, left_out = with_images(
        ratings[ratings["worker"].isin(workers)], options.images, options.missing
    )
    raters, skipped = make_raters(table, workers, options)
    return Panel(workers, raters, skipped, table, sorted(set(left_out)))


def settings_of(options: PersonalizeOptions, panel: Panel) -> dict[str, Any]:
    """Everything but the general model that the results depend on."""
    return {name: v for name, v in asdict(options).items() if name not in NO_SETTINGS} | {
        "ratings": hashlib.sha256(repr(panel.raters).encode()).hexdigest(),
        "test_workers": panel.workers,
        "left_out": panel.left_out,
    }


def check(options: PersonalizeOptions) -> None:
    """Refuse options that the protocol cannot be carried out with.

    Raises:
        ValueError: naming the option, what was found and what is expected.
    """
    for name, lowest in LOWEST.items():
        check_range(name, getattr(options, name), lowest)
    if options.test_workers is not None and options.num_test_workers is not None:
        raise ValueError("give test_workers or num_test_workers, not both")


def choose_workers(ratings: pd.DataFrame, options: PersonalizeOptions) -> list[str]:
    """The test workers, sorted: those listed, or drawn, or marked as test in the ratings.

    Raises:
        LabelError: the ratings mark none and none are listed or drawn; a listed one rated nothing;
            or there are fewer than are to be drawn.
    """
    listed, drawn, source = options.test_workers, options.num_test_workers, options.labels
    everyone = sorted(ratings["worker"].unique())
    if drawn is not None:
        if not 1 <= drawn <= len(everyone):
            raise LabelError(
                f"{source}: num_test_workers is {drawn}: expected 1 to {len(everyone)}, the "
                "workers in it"
            )
        generator = np.random.default_rng(options.seed)
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
    ratings: pd.DataFrame, workers: list[str], options: PersonalizeOptions
) -> tuple[list[Rater], dict[str, int]]:
    """The workers with at least k + ``min_rest`` images, and the numbers of images of the others.

    Raises:
        LabelError: a worker has fewer and ``skip_small`` is not set, or all have.
    """
    needed, skip_small = options.shots + options.min_rest, options.skip_small
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


@lru_cache(maxsize=1)
def _adapter_of_process(checkpoint: str, options: str) -> Adapter:
    return Adapter(checkpoint, PersonalizeOptions(**json.loads(options)))


def _adapt_in_process(checkpoint: str, options: str, rater: Rater) -> WorkerResult:
    return _adapter_of_process(checkpoint, options)(rater)


def adapt_all(
    checkpoint: str, options: PersonalizeOptions, raters: list[Rater]
) -> Iterator[WorkerResult]:
    """Results as they come, of ``options.processes`` processes."""
    if options.processes > 1 and len(raters) > 1:
        yield from unordered(
            partial(_adapt_in_process, checkpoint, json.dumps(asdict(options))),
            raters,
            min(options.processes, len(raters)),
            name=lambda rater: f"worker {rater.worker}",
            start="spawn",
            option="--processes",
        )
    elif raters:
        yield from map(Adapter(checkpoint, options), raters)


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


def _title(dataset: str, options: PersonalizeOptions) -> str:
    title = f"{dataset}, {options.shots}-shot"
    if options.scope == "head":
        title += ", only the head adapted"
    if options.select == "best_on_test":
        title += ", OPTIMISTIC: best epoch chosen on the test images"
    return title


def _notes(checkpoint: str, options: PersonalizeOptions, panel: Panel) -> list[str]:
    """Remarks on the test workers' images."""
    left_out = len(panel.left_out)
    notes = [f"{left_out} rated images left out: no file"] if left_out else []
    if options.num_test_workers is not None:
        notes.append("test workers drawn by the seed; the settings list them")
    trained_on = read_trained_on(checkpoint)
    if trained_on is None:
        return [*notes, "the checkpoint lists no training images"]
    seen = seen_note(panel.table, options.images, trained_on, "images of the test workers")
    return [*notes, seen]
