"""Rows that adapt their general model to single test workers: Tables 3, 6 and 7."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from eat.config import DataConfig, TrainConfig
from eat.config.personal import PersonalizeOptions
from eat.data.labels.table import LabelError
from eat.data.registry import DATASETS
from eat.experiments.results import Record
from eat.experiments.table import Configure, Experiment, Row, Which, Workers
from eat.personal.journal import PATHS
from eat.personal.protocol import Panel, personalize, read_panel, settings_of
from eat.personal.report import Personalization
from eat.system.files import finite, write_atomically
from eat.system.stops import TrainingError
from eat.training.setup import read_run_splits

PAPER_WORKERS = {"flickr_aes": 37, "aadb": 22}
GROUPS: dict[Which, str] = {"first": "personal", "second": "second.personal"}  # of options
# What a second data set does not take over from the first.
OWN = {f"data.{name}": None for name in ("low", "high", "test", "val", "cache")}


def with_workers(
    experiment: Experiment,
    configure: Configure,
    second: Mapping[str, Any],
    given: Mapping[Which, Mapping[str, Any]],
    runs: Path,
) -> Experiment:
    """An experiment with the second data set in the options of its rows, and with test workers.

    Where test workers are listed or drawn, and the general model is trained on the same ratings,
    their images become its test split (``data.test``), so that it never sees them.

    Args:
        configure: the options of a run.
        second: ``data`` options of the second data set, by their last names.
        given: options of the protocol for the workers of either.
        runs: folder for the lists of workers that were drawn.

    Raises:
        ValueError: an option is out of range, or the ratings cannot be read or lack workers.
    """
    shots = max(row.shots or 0 for row in experiment.rows)
    differing: dict[Which, dict[str, Any]] = {"first": {}}
    if experiment.second:
        differing["second"] = OWN | {f"data.{name}": value for name, value in second.items()}
    workers: dict[Which, Workers] = {}
    for which, options in differing.items():
        config = configure(options)
        config.check()
        data = config.data
        found = Workers(data.name, {**ratings_of(data), **given.get(which, {})})
        panel = named_panel(found.options | {"shots": shots}, GROUPS[which])
        chosen = {"test_workers", "num_test_workers"} & found.options.keys()
        if chosen and data.test is None and found.options["labels"] == data.labels:
            options["data.test"] = listed(panel.workers, runs)
        if any(row.train_on == row.test_on == which for row in experiment.rows):
            check_unseen(panel, configure(options))
        workers[which] = found
    rows = (replace(row, options=row.options | differing[row.train_on]) for row in experiment.rows)
    return replace(experiment, workers=workers, rows=tuple(rows))


def ratings_of(data: DataConfig) -> dict[str, Any]:
    """Where the ratings of a data set's workers are, if nothing else is said."""
    labels, images = str(data.labels), str(data.images)
    found = {"name": data.name, "labels": labels, "images": images, "missing": data.missing}
    if data.name == "sample":  # as eat sample --workers writes them
        return found | {"name": "flickr_aes", "labels": str(Path(labels) / "flickr_aes")}
    bounds = {"low": data.low, "high": data.high}
    return found | {name: value for name, value in bounds.items() if value is not None}


def listed(workers: list[str], runs: Path) -> str:
    """A file that lists workers, named by its content."""
    content = "".join(f"{line}\n" for line in ("worker", *workers)).encode()
    path = runs / f"workers-{hashlib.sha256(content).hexdigest()[:16]}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return str(path)


@lru_cache(maxsize=8)
def _panel(options: str) -> Panel:
    return read_panel(PersonalizeOptions(**json.loads(options)))


def named_panel(options: Mapping[str, Any], group: str) -> Panel:
    """The test workers; errors name options as ``eat reproduce`` has them."""
    try:
        return _panel(json.dumps(options))
    except LabelError as error:
        text = str(error).replace("take fewer --shots, or ", "")
        own = re.sub("--(?=test_workers|num_test|skip_small)", f"--{group}.", text)
        raise LabelError(own) from error


def protocol_options(experiment: Experiment, row: Row, config: TrainConfig) -> PersonalizeOptions:
    """Options of the protocol for a row. Steps are as long as those of the model's training."""
    usual = {"lr": config.optim.lr, "device": config.run.device}
    given = usual | experiment.workers[row.test_on].options
    return PersonalizeOptions(**given, shots=row.shots or 0)


def workers_digest(experiment: Experiment, row: Row, config: TrainConfig) -> str:
    """SHA-256 of what a row's results depend on beside its run: the protocol and the ratings.

    Raises:
        ValueError: the ratings are wrong.
    """
    options = protocol_options(experiment, row, config)
    panel = _panel(json.dumps(asdict(options)))
    settings = {k: v for k, v in settings_of(options, panel).items() if k not in PATHS}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def check_unseen(panel: Panel, config: TrainConfig) -> None:
    """Refuse to train a general model on images of the workers whom it is tested on.

    Raises:
        ValueError: it would be.
    """
    splits = read_run_splits(config).tables()
    seen = {image for name in splits.keys() - {"test"} for image in splits[name]["image"]}
    images = {*panel.table["image"]}
    if both := images & seen:
        raise ValueError(
            f"{config.data.labels}: {len(both)} of the {len(images)} images of the test workers "
            f"would train the general model, such as {min(both)}; give the ratings as labels too, "
            "and the workers by --personal.test_workers or --personal.num_test_workers"
        )


def measure_workers(
    experiment: Experiment, row: Row, config: TrainConfig, folder: Path
) -> tuple[Record, list[str]]:
    """Adapt a finished run's model to each test worker.

    Finished workers are kept in a folder in the run's, from which another call goes on.

    Returns:
        Columns of the row's record, and what makes them less than the paper's.

    Raises:
        TrainingError: an adaptation diverged.
    """
    out = folder / f"personal-{row.shots}-{workers_digest(experiment, row, config)}"
    options = protocol_options(experiment, row, config)
    options = replace(options, out=str(out), model=config.model.name)
    try:
        found = personalize(str(folder / "checkpoints" / "best.safetensors"), options)
    except ValueError as error:
        raise TrainingError(str(error)) from error
    personal, general, gain = found.statistics().values()
    record: Record = {
        "ratings": experiment.workers[row.test_on].data,
        "shots": row.shots,
        "repeats": options.repeats,
        "workers": len(found.results),
        "personal_srcc": personal["mean"],
        "general_srcc": general["mean"],
        "gain": gain["mean"],
        "gain_low": gain["low"],
        "gain_high": gain["high"],
    }
    record |= {f"personal_{name}": personal[name] for name in ("deviation", "low", "high")}
    return finite(record), reduced_workers(experiment, row, record, found)


def reduced_workers(
    experiment: Experiment, row: Row, record: Record, found: Personalization
) -> list[str]:
    """What makes an adaptation less than the paper's."""
    usual, settings = PersonalizeOptions(name="", labels="", images=""), found.settings
    data, paper = record["ratings"], experiment.paper_data(row.test_on)
    count, expected = record["workers"], PAPER_WORKERS.get(paper, 0)
    pairs = [
        (data != paper, f"workers of {data}, not of {DATASETS[paper].title}"),
        (count < expected, f"{count} test workers, not {expected}"),
        (settings["repeats"] < usual.repeats, f"{settings['repeats']} draws, not {usual.repeats}"),
        (settings["epochs"] < usual.epochs, f"{settings['epochs']} steps, not {usual.epochs}"),
        (bool(found.undefined), f"{found.undefined} draws without an SRCC"),
    ]
    return [text for holds, text in pairs if holds]
