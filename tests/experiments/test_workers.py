"""Rows that adapt one general model to test workers."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL, small_run

from eat.config import TrainConfig
from eat.data.labels.reading import read_labels
from eat.data.labels.table import LabelError
from eat.experiments import runner
from eat.experiments.runner import make_jobs, reproduce
from eat.experiments.table import Experiment, Published, Row
from eat.experiments.workers import with_workers
from eat.personal import protocol

ROWS = (
    Row("few", shots=3, published=Published(personal=0.5, deviation=0.01)),
    Row("more", shots=6),
)
TABLE = Experiment("small", "Small", "Table 0", "flickr_aes", 30, ROWS)
CROSSED = tuple(
    Row(f"{a} on {b}", shots=3, train_on=a, test_on=b)
    for a in ("first", "second")
    for b in ("first", "second")
)
SHORT = {"name": "table", "repeats": 2, "epochs": 1, "batch_size": 16}


@pytest.fixture(scope="module")
def ratings(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ratings 1..10 of all images: the test images by T1 and T2, the others by A1 and A2."""
    table = read_labels("sample", sample)
    lines = ["worker,image,score"]
    for place, (image, split, score) in enumerate(
        table[["image", "split", "score"]].itertuples(index=False)
    ):
        for number in (1, 2):
            rating = (score + place * number) % 9 + 1
            lines.append(f"{'T' if split == 'test' else 'A'}{number},{image},{rating:.3f}")
    path = tmp_path_factory.mktemp("ratings") / "ratings.csv"
    path.write_text("\n".join([*lines, ""]))
    return path


class Bench:
    """Calls of ``reproduce`` in one place."""

    def __init__(self, sample: Path, ratings: Path, folder: Path) -> None:
        self.sample, self.folder = sample, folder
        self.workers = SHORT | {"labels": str(ratings), "test_workers": ["T1", "T2"]}
        self.said: list[str] = []

    def configure(self, row: Mapping[str, Any]) -> TrainConfig:
        config = small_run(self.sample, Path("unused"))
        config.optim.epochs, config.model.settings = 1, SMALL
        for name, value in row.items():
            group, _, last = name.partition(".")
            setattr(getattr(config, group), last, value)
        return config

    def prepared(self, experiment: Experiment = TABLE, **options: Any) -> Experiment:
        given = {"first": self.workers | options, "second": self.workers | options}
        second = {"labels": str(self.sample)}
        return with_workers(experiment, self.configure, second, given, self.folder / "runs")

    def __call__(self, experiment: Experiment = TABLE, **options: Any) -> bool:
        self.said.clear()
        return reproduce(
            self.prepared(experiment, **options),
            self.configure,
            seeds=1,
            out=self.folder / "out",
            runs=self.folder / "runs",
            command="eat reproduce small",
            say=self.said.append,
        )

    def records(self) -> list[dict[str, str]]:
        with (self.folder / "out" / "small.csv").open() as file:
            return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(sample: Path, ratings: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Both rows, run to their end."""
    bench = Bench(sample, ratings, tmp_path_factory.mktemp("experiments"))
    assert bench()
    return bench


def test_rows_of_one_general_model_share_its_run(finished: Bench) -> None:
    few, more = finished.records()
    assert len([*(finished.folder / "runs").glob("sample-*")]) == 1
    assert few["srcc"] == more["srcc"] and few["digest"] != more["digest"]
    assert (few["shots"], few["workers"], few["repeats"]) == ("3", "2", "2")
    numbers = {name: float(few[name]) for name in ("personal_srcc", "general_srcc", "gain")}
    assert numbers["gain"] == pytest.approx(numbers["personal_srcc"] - numbers["general_srcc"])
    assert few["personal_deviation"] and float(few["gain_low"]) <= numbers["gain"]
    assert "2 test workers, not 37; 2 draws, not 10; 1 steps, not 20" in few["reduced"]


def test_the_report_has_workers_and_the_papers_deviation(finished: Bench) -> None:
    text = (finished.folder / "out" / "small.md").read_text()
    assert "| 0.500 ± 0.010 |" in text and "personalised minus general" in text
    assert "SRCC minus few" not in text and "personalised minus few" in text


def test_another_protocol_is_measured_on_the_same_run(
    finished: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "train", pytest.fail)
    before = len(finished.records())
    assert finished(repeats=1) and len(finished.records()) == before + 2
    assert finished() and "2 of them recorded" in finished.said[0]


def test_a_stopped_adaptation_goes_on_with_the_next_worker(
    finished: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, adapted = protocol.adapt_all, list[str]()

    def stops(checkpoint: str, options: Any, raters: Any) -> Iterator[Any]:
        adapted.extend(rater.worker for rater in raters[:1])
        yield from real(checkpoint, options, raters[:1])
        if len(raters) > 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(protocol, "adapt_all", stops)
    monkeypatch.setattr(runner, "train", pytest.fail)
    for _ in range(2):  # a row each; the last worker of either is left
        with pytest.raises(KeyboardInterrupt):
            finished(lr=0.01)
    assert finished(lr=0.01) and adapted == ["T1", "T2", "T1", "T2"]


def test_listed_workers_of_the_labels_are_kept_from_the_general_model(
    sample: Path, ratings: Path, tmp_path: Path
) -> None:
    bench = Bench(sample, ratings, tmp_path)
    table = {"data.name": "table", "data.labels": str(ratings)}
    configure = bench.configure
    bench.configure = lambda row: configure(table | row)  # type: ignore[method-assign]
    made = bench.prepared()
    (job, _) = make_jobs(made, bench.configure, 1, tmp_path / "runs")
    assert Path(str(job.config.data.test)).read_text() == "worker\nT1\nT2\n"
    drawn = bench.prepared(test_workers=None, num_test_workers=2).rows[0].options["data.test"]
    assert len(Path(drawn).read_text().split()) == 3


def test_a_general_model_never_sees_the_test_workers_images(
    sample: Path, ratings: Path, tmp_path: Path
) -> None:
    bench = Bench(sample, ratings, tmp_path)
    with pytest.raises(ValueError, match="48 of the 48 images of the test workers would train"):
        bench.prepared(test_workers=["A1"])
    with pytest.raises(LabelError, match="give their list as --personal.test_workers"):
        bench.prepared(test_workers=None)


def test_a_row_takes_its_model_from_one_data_set_and_its_workers_from_the_other(
    finished: Bench, sample: Path, tmp_path: Path
) -> None:
    crossed = Experiment("crossed", "", "", "flickr_aes", 30, CROSSED, second="aadb")
    few = tmp_path / "few.txt"  # the second data set has fewer training images
    lines = (sample / "AVA.txt").read_text().splitlines(keepends=True)
    few.write_text("".join(lines[8:]))
    second = {"labels": str(few), "test": str(sample / "generic_test.jpgl")}
    given = {"first": finished.workers, "second": finished.workers | {"test_workers": ["T1"]}}
    made = with_workers(crossed, finished.configure, second, given, tmp_path)
    jobs = make_jobs(made, finished.configure, 1, tmp_path)
    assert [Path(str(job.config.data.labels)).name for job in jobs] == [
        sample.name, sample.name, "few.txt", "few.txt",
    ]  # fmt: skip
    models = [job.config.run.folder for job in jobs]
    assert models[0] == models[1] != models[2] == models[3]
    assert len({job.digest.partition("-")[2] for job in jobs}) == 2  # by the workers
