"""Options of ``eat reproduce`` for test workers, and for an experiment's second data set."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eat.config.commands import ReproduceOptions, SecondDataOptions
from eat.config.personal import WorkersOptions

if TYPE_CHECKING:
    from eat.config import DataConfig
    from eat.experiments.table import Configure, Experiment

GROUPS = {
    "personal": WorkersOptions,
    "second.data": SecondDataOptions,
    "second.personal": WorkersOptions,
}
Given = dict[str, dict[str, Any]]  # options that are given, by group and last name
OF_ONE = {"name", "labels", "low", "high", "test_workers", "num_test_workers"}  # data set alone
QUICK = {"repeats": 2, "epochs": 1}
OTHER_TASTE = {"seed": 1, "taste": 0.1}  # of the second sample


def is_workers_option(name: str) -> bool:
    """Whether ``--name`` is one of these options."""
    return name.removeprefix("--").rpartition(".")[0] in GROUPS


def given_options(found: Mapping[str, Any]) -> Given:
    """The options of a parsed command line that are not null."""
    return {
        group: {name: value for name, value in vars(found[group]).items() if value is not None}
        for group in GROUPS
    }


def add_workers(
    experiment: "Experiment", configure: "Configure", given: Given, options: ReproduceOptions
) -> "Experiment":
    """The experiment with the test workers of its data sets.

    Raises:
        ValueError: a data set or its ratings are not there, or do not fit.
    """
    from eat.experiments.workers import with_workers

    first, second, runs = configure({}).data, dict(given["second.data"]), Path(options.runs)
    check_workers(first.name, first.labels, "")
    if experiment.second:
        if "labels" not in second:
            second = second_sample(first, experiment.second, runs, quick=options.quick) | second
        second.setdefault("name", "sample" if first.name == "sample" else experiment.second)
        check_workers(second["name"], second["labels"], " --seed 1 --taste 0.1")
    own = (QUICK if options.quick else {}) | given["personal"]
    shared = {name: value for name, value in own.items() if name not in OF_ONE}
    of_second = shared | given["second.personal"]
    return with_workers(experiment, configure, second, {"first": own, "second": of_second}, runs)


def second_sample(first: "DataConfig", paper: str, runs: Path, *, quick: bool) -> dict[str, str]:
    """Data options of the second sample, which a quick run makes."""
    if first.name != "sample":
        raise ValueError(
            f"a second data set is needed, in the paper {paper}: give --second.data.name, "
            "--second.data.labels and --second.data.images"
        )
    folder = rated_sample(runs / "second", **OTHER_TASTE) if quick else Path("data/second")
    return {"name": "sample", "labels": str(folder), "images": str(folder / "images")}


def quick_options(runs: Path) -> dict[str, str]:
    """Options of a run on a small sample with workers, which is made if it is not there."""
    folder = rated_sample(runs / "rated")
    labels = {"--data.labels": str(folder), "--data.images": str(folder / "images")}
    return {"--data.name": "sample", "--data.size": "64"} | labels


def rated_sample(folder: Path, **settings: Any) -> Path:
    """A small sample with two test workers."""
    from eat.sample.make import make_sample, make_workers

    made = make_sample(folder, train=160, test=150, size=96, **settings)
    make_workers(made, workers=4, test_workers=2)
    return made


def check_workers(name: str, labels: str | None, options: str) -> None:
    """Refuse a sample without workers, and say how they are made."""
    if name == "sample" and labels and not (Path(labels) / "flickr_aes").exists():
        raise ValueError(
            f"{labels}: no sample with workers, which are needed here: make it by eat sample "
            f"{labels} --workers 30{options}"
        )
