"""Rows and seeds of an experiment as runs: trained if need be, measured, and recorded."""

import hashlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from eat.config import DataConfig, TrainConfig
from eat.data.labels.table import vote_columns
from eat.evaluation.slices import slice_column
from eat.experiments.measures import describe_run, measure
from eat.experiments.photographs import draw_photographs
from eat.experiments.report import write_report
from eat.experiments.results import Record, Results
from eat.experiments.table import Configure, Experiment, Row, configs_of
from eat.experiments.workers import workers_digest
from eat.system.files import file_digest
from eat.system.plugins import in_file_name
from eat.system.stops import TrainingError
from eat.training.folder import FREE, FolderLock
from eat.training.setup import own_files, read_run_splits
from eat.training.trainer import Report, train

Say = Callable[[str], object]
# Has named runs carried out elsewhere, and calls a function from time to time until they are.
Search = Callable[[list[str], Callable[[], object]], object]
PAUSE = 5.0  # seconds until it is seen again whether other processes have finished a run


@dataclass(frozen=True)
class Job:
    """A run of an experiment: one row with one seed."""

    row: Row
    config: TrainConfig
    digest: str

    @property
    def key(self) -> tuple[str, int, str]:
        """The run's key in ``Results``."""
        return self.row.name, self.config.run.seed, self.digest

    @property
    def name(self) -> str:
        """The run's name among those of the experiment."""
        return f"{self.row.name}, seed {self.config.run.seed}"


def data_digest(data: DataConfig) -> str:
    """SHA-256 of a run's images and labels, wherever they stand."""
    splits = read_run_splits(TrainConfig(data=replace(data, val_fraction=0.0)))
    digest = hashlib.sha256()
    for split, table in splits.tables().items():
        columns = dict.fromkeys(["image", "score", *vote_columns(table), *(data.targets or [])])
        digest.update(f"{split}\n{table[[*columns]].to_csv(index=False)}".encode())
    return digest.hexdigest()


weights_digest = cache(file_digest)


def run_digest(config: TrainConfig, data: str) -> str:
    """SHA-256 of what decides a run's results: its options, its data, its first weights.

    Options at their defaults are left out: an option that a later version adds then changes no
    digest.
    """
    usual = TrainConfig().to_dict()
    options = {
        f"{group}.{name}": value
        for group, values in config.to_dict().items()
        for name, value in values.items()
        if group != "faults" and f"{group}.{name}" not in FREE and value != usual[group][name]
    }
    if config.model.weights is not None:
        options["model.weights"] = weights_digest(config.model.weights)
    content = json.dumps(options | own_files(config) | {"data": data}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def make_jobs(experiment: Experiment, configure: Configure, seeds: int, runs: Path) -> list[Job]:
    """The runs of an experiment, all rows of a seed before those of the next.

    Raises:
        ValueError: an option is out of range, or the data are wrong.
    """
    jobs, digests = [], dict[str, str]()
    rows = configs_of(experiment, configure)
    configure({}).check()
    for row, options in rows:
        try:
            options.check()
        except ValueError as error:
            raise ValueError(f"row {row.name!r}: {error}") from error
    for seed in range(seeds):
        for row, options in rows:
            run = replace(options.run, seed=options.run.seed + seed, resume="auto")
            config = replace(options, run=run)
            data = replace(config.data, size=None)
            if str(data) not in digests:
                digests[str(data)] = data_digest(data)
            digest = run_digest(config, digests[str(data)])
            name, data_name = str(config.model.name), in_file_name(config.data.name)
            run.folder = str(runs / f"{data_name}-{in_file_name(name)}-{digest}")
            if row.shots is not None:  # rows that differ in their workers alone share the run
                digest = f"{digest}-{workers_digest(experiment, row, config)}"
            jobs.append(Job(row, config, digest))
    return jobs


def tell_of_equal_rows(jobs: list[Job], say: Say) -> None:
    """Tell of rows that are one and the same run with this base model."""
    first: dict[str, Job] = {}
    for job in jobs:
        other = first.setdefault(job.digest, job)
        if other is not job:
            say(f"{job.name} is the same run as {other.name}")


def reproduce(
    experiment: Experiment,
    configure: Configure,
    *,
    seeds: int,
    out: Path,
    runs: Path,
    command: str,
    say: Say,
    search: Search | None = None,
) -> bool:
    """Train, measure and record all rows and seeds of an experiment that are not recorded yet.

    After each, ``out/NAME.csv`` has a line more, and ``NAME.md`` and ``NAME.png`` are made anew.

    Args:
        configure: the options of a run, given those that a row sets.
        seeds: how many; the first is that of the options.
        runs: folder of the run folders, which experiments share.
        command: that repeats this, for the records.
        say: told what happens.
        search: has ``reproduce_one`` called for each run, by name; None carries out one after the
            other here.

    Returns:
        Whether all rows have results.

    Raises:
        ValueError: options, data or the CSV are wrong.
        Interrupted: a signal stopped a run; the same call goes on with it.
    """
    jobs = make_jobs(experiment, configure, seeds, runs)
    tell_of_equal_rows(jobs, say)
    results = Results(out / f"{experiment.name}.csv")
    out.mkdir(parents=True, exist_ok=True)
    if torn := results.drop_torn_line():
        say(f"{results.path}: an unfinished last line is dropped: {torn[:60]!r}")
    results.renew()
    recorded = results.read()
    waiting = [job for job in jobs if not is_done(recorded.get(job.key))]
    say(f"{experiment.where}: {len(jobs)} runs, {len(jobs) - len(waiting)} of them recorded")
    if waiting and experiment.slice_by:  # before anything is trained
        slice_column(read_run_splits(jobs[0].config).train, experiment.slice_by)
    if search is None:
        work = partial(carry_out, experiment, results, command, say)
        for _ in one_by_one(waiting, work):
            write_report(experiment, select(results.read(), jobs), out, command)
    elif waiting:
        await_search(search, waiting, results, say)
    recorded = results.read()
    write_report(experiment, select(recorded, jobs), out, command)
    first = [j for j in jobs[: len(jobs) // seeds] if is_done(recorded.get(j.key))]
    folders = {job.row.name: Path(str(job.config.run.folder)) for job in first}
    images = Path(str(jobs[0].config.data.images))
    draw_photographs(experiment, folders, images, out / f"{experiment.name}.png")
    return all(is_done(recorded.get(job.key)) for job in jobs)


def reproduce_one(
    experiment: Experiment,
    configure: Configure,
    name: str,
    *,
    seeds: int,
    out: Path,
    runs: Path,
    command: str,
    say: Say,
    report: Report,
) -> bool:
    """Carry out one run of an experiment as a trial of a search, with the arguments of the whole.

    Args:
        name: that ``reproduce`` gave the run.
        report: called with the metrics of each epoch, and with those of the record at the end.

    Returns:
        Whether it has results.

    Raises:
        ValueError: options, data or the CSV are wrong, or there is no such run.
        Interrupted: a signal stopped the run.
    """
    jobs = make_jobs(experiment, configure, seeds, runs)
    job = next((job for job in jobs if job.name == name), None)
    if job is None:
        raise ValueError(f"{experiment.name} has no run {name!r}")
    results = Results(out / f"{experiment.name}.csv")

    def report_epoch(metrics: dict[str, float], final: bool) -> None:
        if not final:
            report(metrics, False)

    work = partial(carry_out, experiment, results, command, say, report=report_epoch)
    for _ in one_by_one([job], work):
        write_report(experiment, select(results.read(), jobs), out, command)
    record = results.read().get(job.key)
    if record is None or not is_done(record):
        return False
    found = {metric: record[metric] for metric in ("srcc", "plcc", "accuracy", "mse", "emd")}
    report({metric: value for metric, value in found.items() if value is not None}, True)
    return True


def await_search(search: Search, jobs: list[Job], results: Results, say: Say) -> None:
    """Have runs carried out by a search, and tell what came of each."""
    left = {job.key: job for job in jobs}

    def tell() -> None:
        for key, record in results.read().items():
            if key in left and is_done(record):
                say(f"{left.pop(key).name}: SRCC {record['srcc'] or math.nan:.4f}")

    search([job.name for job in jobs], tell)
    tell()
    recorded = results.read()
    for key, job in left.items():
        reason = recorded[key]["failed"] if key in recorded else "no result, see its trial's log"
        say(f"{job.name}: failed: {reason}")


def is_done(record: Record | None) -> bool:
    """Whether a run has results; one that failed is tried again."""
    return record is not None and not record["failed"]


def select(recorded: Mapping[tuple[str, int, str], Record], jobs: list[Job]) -> list[Record]:
    """What is recorded of these runs, in their order."""
    return [recorded[job.key] for job in jobs if job.key in recorded]


def one_by_one(jobs: Iterable[Job], carry_out: Callable[[Job], None]) -> Iterator[Job]:
    """Carry out runs, and yield each one when it is recorded, by this process or by another."""
    waiting = deque(jobs)
    busy = 0  # jobs in a row that other processes are at
    while waiting:
        job = waiting.popleft()
        try:
            carry_out(job)
        except FileExistsError:  # back to it after the others
            waiting.append(job)
            busy += 1
            if busy == len(waiting):
                time.sleep(PAUSE)
                busy = 0
            continue
        busy = 0
        yield job


def carry_out(
    experiment: Experiment,
    results: Results,
    command: str,
    say: Say,
    job: Job,
    report: Report | None = None,
) -> None:
    """Train a run as far as it is not trained, measure it, and record it.

    Raises:
        FileExistsError: another process is at it.
    """
    row, config, folder = job.row, job.config, Path(str(job.config.run.folder))
    folder.mkdir(parents=True, exist_ok=True)
    claim = FolderLock(folder, name=".claim")  # held until it is recorded, longer than the run's
    try:
        known = results.read().get(job.key)
        if is_done(known):  # by another process
            return
        say(f"{experiment.where}: {job.name}, in {folder}")
        record = describe_run(experiment, row, config, job.digest) | {"command": command}
        try:
            if not (folder / "result.json").is_file():
                train(config, report)
            record |= measure(experiment, row, config, folder)
        except TrainingError as error:
            say(f"{job.name}: failed: {error}")
            record["failed"] = " ".join(str(error).split())  # as in the CSV
        if known is None or known["failed"] != record.get("failed"):
            results.add(record)
    finally:
        claim.close()
