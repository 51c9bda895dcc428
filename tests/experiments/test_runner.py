"""Rows and seeds as runs: trained once, recorded at once, and continued."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import rows_on

from eat.config import TrainConfig
from eat.data.labels.reading import read_labels
from eat.data.labels.table import LabelError
from eat.evaluation.metrics import srcc
from eat.experiments import measures, runner
from eat.experiments.measures import measure_run
from eat.experiments.results import COLUMNS, Results
from eat.experiments.runner import reproduce, reproduce_one, run_digest
from eat.experiments.table import Experiment, Published, Row
from eat.system.stops import Interrupted, TrainingError
from eat.training.folder import FolderLock

GRID = Row(
    "grid", {"model.settings.interest": False}, published=Published(srcc=0.7, gflops=140, epochs=60)
)
TABLE = Experiment("small", "Small", "Table 0", "ava", 25, (Row("full"), GRID))
OTHER = Experiment("other", "Another", "Figure 0", "ava", 25, (Row("k", kernel=3),), plot="points")


class Bench:
    """Calls of ``reproduce`` in one place, with the runs that were trained for each."""

    def __init__(self, sample: Path, folder: Path) -> None:
        self.folder, self.configure = folder, rows_on(sample)
        self.said: list[str] = []

    def __call__(self, experiment: Experiment = TABLE, seeds: int = 2) -> bool:
        self.said.clear()
        return reproduce(
            experiment,
            self.configure,
            seeds=seeds,
            out=self.folder / experiment.name,
            runs=self.folder / "runs",
            command="eat reproduce small",
            say=self.said.append,
        )

    def trained(self) -> list[str]:
        """What the last call said it would run."""
        return [line.split(": ")[1].partition(",")[0] for line in self.said if " in /" in line]

    def records(self, name: str = "small") -> list[dict[str, str]]:
        with (self.folder / name / f"{name}.csv").open() as file:
            return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Two rows of two seeds, run to their end."""
    bench = Bench(sample, tmp_path_factory.mktemp("experiments"))
    assert bench()
    return bench


@pytest.fixture
def bench(finished: Bench, sample: Path, tmp_path: Path) -> Bench:
    """A copy of the finished experiment, to be damaged."""
    shutil.copytree(finished.folder, tmp_path / "copy")
    return Bench(sample, tmp_path / "copy")


def test_each_row_and_seed_is_a_line_of_the_csv(finished: Bench) -> None:
    records = finished.records()
    assert [(r["row"], r["seed"]) for r in records] == [
        ("full", "0"), ("grid", "0"), ("full", "1"), ("grid", "1"),
    ]  # fmt: skip
    full, grid = records[:2]
    assert float(full["srcc_low"]) <= float(full["srcc"]) <= float(full["srcc_high"])
    assert full["images_seen"] == "48" and full["converged_epoch"] == "1"
    assert full["reduced"].startswith("sample (48 training images), not AVA; eat_nano, not")
    assert full["point_spread"] and full["points"] and not grid["points"]
    assert float(grid["published_gflops"]) == 140 and grid["source"] == "Table 0"
    assert len({r["digest"] for r in records}) == 4


def test_a_run_folder_is_one_that_training_made(finished: Bench) -> None:
    runs = sorted((finished.folder / "runs").iterdir())
    assert len(runs) == 4
    assert all((run / "result.json").exists() and (run / "config.yaml").exists() for run in runs)


def test_the_report_has_the_paper_beside_ours_and_what_is_reduced(finished: Bench) -> None:
    text = (finished.folder / "small" / "small.md").read_text()
    assert "| grid [2] | 2 |" in text and "| 0.7 | 140 | 60 |" in text
    assert "SRCC minus full" in text and "from three seeds on" in text
    assert "- [1] sample (48 training images), not AVA;" in text and "1 epochs, not 60" in text
    assert (finished.folder / "small" / "small.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_recorded_is_not_run_again_though_its_folder_is_gone(bench: Bench) -> None:
    shutil.rmtree(bench.folder / "runs")
    assert bench() and bench.trained() == []
    assert len(bench.records()) == 4


def test_a_line_that_a_kill_cost_is_measured_again_from_the_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bench.folder / "small" / "small.csv"
    before = path.read_bytes()
    path.write_bytes(before[:-20])
    monkeypatch.setattr(runner, "train", pytest.fail)
    assert bench() and bench.trained() == ["grid"]
    assert path.read_bytes() == before
    assert "an unfinished last line is dropped" in bench.said[0]


def test_a_stopped_experiment_keeps_what_is_finished_and_goes_on(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, real = Bench(sample, tmp_path), runner.train

    def second_stops(config: TrainConfig, *rest: Any) -> Any:
        if "interest" in config.model.settings:
            raise Interrupted(15, "epoch 0")
        return real(config)

    monkeypatch.setattr(runner, "train", second_stops)
    with pytest.raises(Interrupted):
        bench(seeds=1)
    assert [r["row"] for r in bench.records()] == ["full"]
    monkeypatch.undo()
    assert bench(seeds=1) and bench.trained() == ["grid"]


def test_a_row_that_fails_is_recorded_and_the_others_go_on_and_it_is_tried_again(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, real = Bench(sample, tmp_path), runner.train

    def first_fails(config: TrainConfig, *rest: Any) -> Any:
        if "interest" not in config.model.settings:
            raise TrainingError("the loss became\nnan")
        return real(config)

    monkeypatch.setattr(runner, "train", first_fails)
    for _ in range(2):
        assert not bench(seeds=1)
        assert [r["failed"] for r in bench.records()] == ["the loss became nan", ""]
    assert "- full, seed 0: the loss became nan" in (tmp_path / "small" / "small.md").read_text()
    monkeypatch.undo()
    assert bench(seeds=1) and bench.trained() == ["full"]


def test_two_experiments_share_a_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "train", pytest.fail)
    assert bench(OTHER)  # its k_in is the model's own
    ours = [r for r in bench.records() if r["row"] == "full"]
    assert [r["digest"] for r in bench.records("other")] == [r["digest"] for r in ours]


def test_a_run_that_another_process_is_at_is_awaited(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bench.folder / "small" / "small.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-2]))  # of seed 1 nothing is recorded
    folder = next((bench.folder / "runs").glob(f"*{lines[-2].split(',')[3]}"))
    other = FolderLock(folder, name=".claim")

    def other_ends(seconds: float) -> None:
        path.open("a").write(lines[-2])
        other.close()

    monkeypatch.setattr(runner.time, "sleep", other_ends)
    assert bench() and bench.trained() == ["grid"]
    assert len(bench.records()) == 4


def test_a_search_gets_the_runs_that_are_left_and_what_came_of_them_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bench.folder / "small" / "small.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-2]))  # of seed 1 nothing is recorded
    monkeypatch.setattr(runner, "train", pytest.fail)
    given: list[list[str]] = []
    place = {"out": path.parent, "runs": bench.folder / "runs"}
    more = place | {"seeds": 2, "command": "", "say": bench.said.append}

    def search(names: list[str], each: Callable[[], object]) -> None:
        given.append(names)
        told: list[Any] = []
        one = reproduce_one(
            TABLE, bench.configure, names[0], report=lambda *what: told.append(what), **more
        )
        assert one and len(told) == 1 and told[0][1]
        assert told[0][0]["srcc"] == float(bench.records()[-1]["srcc"])
        each()

    assert not reproduce(TABLE, bench.configure, search=search, **more)
    assert given == [["full, seed 1", "grid, seed 1"]]
    assert [record["row"] for record in bench.records()] == ["full", "grid", "full"]
    assert bench.said[-2] == f"full, seed 1: SRCC {float(bench.records()[-1]['srcc']):.4f}"
    assert bench.said[-1] == "grid, seed 1: failed: no result, see its trial's log"
    path.write_text("".join(lines))
    assert reproduce(TABLE, bench.configure, search=pytest.fail, **more)  # nothing is left


def test_a_run_has_converged_where_it_comes_within_a_500th_of_its_best(bench: Bench) -> None:
    run = next((bench.folder / "runs").iterdir())
    line = json.loads((run / "metrics.jsonl").read_text()) | {"points": {"x": {"points": 0.25}}}
    epochs = [line | {"epoch": e, "srcc": s} for e, s in enumerate((None, 0.6979, 0.6981, 0.7), 1)]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(epoch)}\n" for epoch in epochs))
    found = measure_run(run)
    assert (found["converged_epoch"], found["images_seen"]) == (3, 4 * 48)
    assert found["point_spread"] == '{"x": 0.25}'


def test_a_digest_tells_results_apart_and_not_places() -> None:
    usual = TrainConfig()
    assert run_digest(usual, "a") == run_digest(TrainConfig(), "a") != run_digest(usual, "b")
    elsewhere = replace(usual, data=replace(usual.data, labels="x", workers=7))
    assert run_digest(elsewhere, "a") == run_digest(usual, "a")
    other = replace(usual, run=replace(usual.run, seed=1))
    assert run_digest(other, "a") != run_digest(usual, "a")


def test_first_weights_count_by_their_content(tmp_path: Path) -> None:
    digests = set()
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
        config = TrainConfig()
        config.model.weights = str(tmp_path / name)
        digests.add(run_digest(config, ""))
    assert len(digests) == 2


@pytest.mark.parametrize("left", ["", "experiment,ro"])
def test_a_csv_that_was_only_begun_is_begun_anew(tmp_path: Path, left: str) -> None:
    results = Results(tmp_path / "a.csv")
    results.path.write_text(left)
    assert results.drop_torn_line() == left
    for row in ("a", 'b, with "quotes"'):
        results.add({"row": row, "seed": 0, "digest": "d", "srcc": 0.5})
    assert [r["srcc"] for r in results.read().values()] == [0.5, 0.5]
    assert [key[0] for key in results.read()] == ["a", 'b, with "quotes"']


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("row,srcc\n", "its columns are row, srcc: expected those of eat reproduce"),
        (",".join(COLUMNS) + "\nsmall,full\n", r"line 2 is damaged"),
        (",".join(COLUMNS) + "\nsmall,full,zero" + "," * (len(COLUMNS) - 3) + "\n", "line 2 is"),
    ],
)
def test_a_foreign_or_damaged_csv_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        Results(tmp_path / "a.csv").read()


def test_a_csv_of_another_version_gets_todays_columns(tmp_path: Path) -> None:
    results = Results(tmp_path / "a.csv")
    results.path.write_text('digest,srcc,seed,row\nd,0.5,3,"a, b"\n')
    before = results.read()
    results.renew()
    assert results.path.read_text().startswith(",".join(COLUMNS) + "\n")
    assert results.read() == before
    results.add({"row": "c", "seed": 0, "digest": "e"})
    found = {key: record["srcc"] for key, record in results.read().items()}
    assert found == {("a, b", 3, "d"): 0.5, ("c", 0, "e"): None}


def test_slices_are_measured_on_runs_that_another_table_has_trained(
    bench: Bench, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "MIN_SLICE", 4)
    monkeypatch.setattr(runner, "train", pytest.fail)
    rows = TABLE.rows[:1]
    assert bench(replace(TABLE, name="sliced", rows=rows, slice_by=("theme", "tag")), seeds=1)
    record = bench.records("sliced")[0]
    found = json.loads(record["slices"])
    table = read_labels("sample", sample)
    run = next(path for path in (bench.folder / "runs").iterdir() if record["digest"] in path.name)
    table = pd.read_csv(run / "predictions.csv").merge(table.drop(columns="score"), on="image")
    parts = {tag: table[(table["tag1"] == tag) | (table["tag2"] == tag)] for tag in found}
    assert found and all(len(part) >= 4 for part in parts.values())
    for tag, part in parts.items():
        assert found[tag] == pytest.approx(srcc(part["predicted"], part["score"]), abs=1e-6)
    text = (bench.folder / "sliced" / "sliced.md").read_text()
    assert all(f"| {tag} | " in text for tag in found)


def test_labels_without_a_column_to_slice_by_are_refused_before_training(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "train", pytest.fail)
    with pytest.raises(LabelError, match="no column theme or mood to slice by; the labels have"):
        Bench(sample, tmp_path)(replace(TABLE, slice_by=("theme", "mood")))


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("metrics.jsonl", "{}\n", "KeyError"),
        ("result.json", "{", "JSONDecodeError"),
        ("predictions.csv", None, "predictions.csv gives an SRCC of"),
    ],
)
def test_a_damaged_run_is_recorded_with_what_to_do_and_the_others_go_on(
    bench: Bench, name: str, content: str | None, found: str
) -> None:
    damaged = next(path for path in (bench.folder / "runs").iterdir())
    (bench.folder / "small" / "small.csv").unlink()
    file = damaged / name
    file.write_text(content or "".join(file.read_text().splitlines(keepends=True)[:9]))
    assert not bench()
    failed = [record["failed"] for record in bench.records() if record["failed"]]
    assert len(bench.records()) == 4 and len(failed) == 1
    assert found in failed[0] and f"{damaged} is damaged" in failed[0] and "remove it" in failed[0]
    shutil.rmtree(damaged)
    assert bench()


def test_the_csv_of_another_experiment_is_refused(bench: Bench) -> None:
    shutil.copytree(bench.folder / "small", bench.folder / "other")
    (bench.folder / "other" / "small.csv").rename(bench.folder / "other" / "other.csv")
    with pytest.raises(ValueError, match=r"other.csv: line 2 is of 'small': move the file away"):
        bench(OTHER)


def test_a_row_that_no_model_fits_and_rows_that_are_equal_are_told(
    bench: Bench, sample: Path
) -> None:
    with pytest.raises(ValueError, match="small: no row fits the base model, .* 4 tokens a side"):
        bench(replace(TABLE, rows=(Row("k", kernel=99),)))
    assert bench(replace(TABLE, rows=(*TABLE.rows, replace(GRID, name="again"))))
    assert "again, seed 0 is the same run as grid, seed 0" in bench.said
