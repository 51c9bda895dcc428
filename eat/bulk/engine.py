"""Bulk scoring by Ray Data: shards in, a Parquet file of scores each."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from tqdm import tqdm

from eat.bulk.cluster import Cluster, ClusterError, ray_cluster
from eat.bulk.gathering import Gathering
from eat.bulk.output import OutFolder
from eat.bulk.pipeline import TRIES, Pipeline, plan
from eat.bulk.shards import Shard, find_shards, in_waves
from eat.bulk.shipping import ship
from eat.bulk.summary import Tally
from eat.bulk.work import Decoder
from eat.checkpoint.precision import check_int8
from eat.config.commands import ScoreOptions
from eat.config.model import MOST_BATCH, MOST_WORKERS
from eat.scoring import Scorer
from eat.system.schema import check_range
from eat.system.stops import STOP_SIGNALS, Interrupted, number_of
from eat.system.words import brief

# Shards that Ray knows of at a time, for each model: its memory grows with them, and each wave of
# them starts the models anew.
WAVE = 250
SHARD_SIZE = 1000  # images of a shard that is cut from a folder or list
# A lost machine takes shards with it until Ray has noticed, which takes half a minute: those go
# through the others once more.
ROUNDS = 3
CHUNK = 64  # images that are handed on at a time
OF_MODEL = ("checkpoint", "model", "general", "precision", "batch_size", "compile", "own_rule",
            "scale", "percentile")  # fmt: skip
OF_OUTPUT = "device", "compile", "sha256", "image_column", "key_column"


def score_in_bulk(given: Sequence[str], options: ScoreOptions) -> Tally:
    """Score shards into a folder. Those that are finished there are passed over.

    Args:
        given: as of ``find_shards``.
        options: those of the command.

    Raises:
        ValueError: an option is wrong, nothing is found, or the folder holds something else.
        OSError: naming it: a folder cannot be read or written, or Ray not be used.
        Interrupted: by a signal; what is finished stays.
    """
    place, size = _check(options), options.shard_size or SHARD_SIZE
    of_model = {name: getattr(options, name) for name in OF_MODEL}
    scorer = Scorer(**of_model | {"compile": False}, device="cpu")
    settings = scorer.settings() | {name: getattr(options, name) for name in OF_OUTPUT}
    out = OutFolder(place, settings | {"shard_size": size})
    tally = Tally()
    for shard in find_shards(given, size, place):
        if out.has(shard):
            tally.skipped.add(out.finished[shard.name])
        else:
            tally.todo += 1
    before = out.read_summary()
    try:
        if tally.todo:
            todo = (shard for shard in find_shards(given, size, place) if not out.has(shard))
            with _stopped_at_once(), ray_cluster(options.address) as cluster:
                pipeline = _pipeline(options, scorer, tally.todo, cluster)
                _score(todo, out, pipeline, tally)
    except KeyboardInterrupt as stop:
        raise Interrupted(
            number_of(stop),
            f"{tally.done.shards} of {tally.todo} shards; their scores are in {place}: the same "
            "call goes on",
        ) from None
    finally:
        out.write_summary(tally.summary(before))
    return tally


def _check(options: ScoreOptions) -> str:
    """The folder of scores, of options that are in range."""
    for name in ("actors", "workers"):
        check_range(name, getattr(options, name), 1, MOST_WORKERS)
    for name in ("shard_size", "batch_size"):
        check_range(name, getattr(options, name), 1, MOST_BATCH)
    if options.out is None:
        raise ValueError("--engine ray writes a folder of scores: give --out FOLDER")
    if options.device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device is {options.device!r}: expected auto, cpu or cuda with "
                         "--engine ray, which picks the GPUs")  # fmt: skip
    if options.precision == "int8":
        check_int8(options.device.replace("auto", "cpu"), compiled=options.compile)
    return options.out


def _pipeline(options: ScoreOptions, scorer: Scorer, todo: int, cluster: Cluster) -> Pipeline:
    """The processes for so many shards."""
    gpu = cluster.gpus > 0 and options.device != "cpu"
    if options.device == "cuda" and not gpu:
        raise ValueError("device is 'cuda', but Ray has no GPU: expected auto or cpu")
    if options.precision == "int8" and gpu:
        check_int8("cuda", compiled=options.compile)
    decoder = Decoder(
        scorer.info.preprocessing,
        chunk=scorer.batch_size * max(1, CHUNK // scorer.batch_size),
        sha256=options.sha256,
        column=options.image_column,
        key=options.key_column,
    )
    shipped = ship({n: getattr(options, n) for n in OF_MODEL}, own=cluster.is_own)
    return plan(
        cluster,
        shipped,
        decoder,
        todo=todo,
        models=options.actors,
        threads=options.workers,
        gpu=gpu,
    )


def _score(todo: Iterator[Shard], out: OutFolder, pipeline: Pipeline, tally: Tally) -> None:
    """Score shards, and write each as soon as all of its rows have come."""
    bar = tqdm(total=tally.todo + tally.skipped.shards, initial=tally.skipped.shards, desc="score",
               unit="shard", disable=None)  # fmt: skip
    with bar:
        for wave in in_waves(todo, WAVE * pipeline.models):
            left = wave
            for _ in range(ROUNDS):
                if left:
                    left = _score_wave(left, out, pipeline, tally, bar)
            for shard in left:
                tally.failed[shard.title] = (
                    f"{shard.title}: {ROUNDS * TRIES} processes died over it, perhaps for want of "
                    "memory or by a file that crashes its decoder"
                )
                bar.update()


def _score_wave(
    wave: list[Shard], out: OutFolder, pipeline: Pipeline, tally: Tally, bar: "tqdm[Any]"
) -> list[Shard]:
    """Score shards that Ray knows of at one time; those that were lost with their processes."""
    import ray

    shards = dict(enumerate(wave))
    gathering = Gathering(shards)
    try:
        for block in pipeline.rows(shards):
            tally.add_times(block)
            for one in gathering.add(block):
                if one.rows is None:
                    title, error = one.shard.title, one.error
                    tally.failed[title] = error if one.shard.url in error else f"{title}: {error}"
                else:
                    tally.done.add(out.write(one.shard, one.rows))
                bar.set_postfix_str(f"{tally.rate:.1f} images/s", refresh=False)
                bar.update()
    except ray.exceptions.RayError as error:
        raise ClusterError(f"Ray: {brief(getattr(error, 'cause', None) or error)}") from error
    return gathering.left()


@contextmanager
def _stopped_at_once() -> Iterator[None]:
    """Raise the first stop signal as KeyboardInterrupt(number), and pass over others after it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        for other in STOP_SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt(number)

    before: dict[int, Any] = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
