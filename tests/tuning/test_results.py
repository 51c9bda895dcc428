"""nni's record of a search, sound and spoilt."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from records import DRAWN, PROFILE, record

from eat.cli import main
from eat.tuning.results import read_search

ODD = ["", "x", "null", "3", "[]", "{}", '"a"', "NaN", "[" * 3000, "9" * 5000]


def best(folder: Path) -> int:
    return main(["best", str(folder), "--out", str(folder / "out")])


def test_the_best_trial_is_written_as_a_run(tmp_path: Path) -> None:
    search = record(tmp_path / "search", PROFILE, DRAWN, '"{\\"default\\": 0.5}"')
    assert best(search) == 0
    config = yaml.safe_load((search / "out" / "config.yaml").read_text())
    assert config == {"optim": {"lr": 0.1}, "run": {"folder": None, "resume": "never"}}


def test_a_trial_is_listed_with_what_it_ran_with_and_each_epoch_once(tmp_path: Path) -> None:
    search = record(tmp_path / "search", PROFILE, "", '"0.5"')
    drawn = [{"parameter_id": i, "parameters": {"optim.lr": lr}} for i, lr in enumerate((0.1, 0.2))]
    other = str(tmp_path / "other")
    with closing(sqlite3.connect(search / "db" / "nni.sqlite")) as database:
        database.execute("delete from MetricData")
        for row in [
            (3, "t", "RUNNING", json.dumps(drawn[0]), str(search / "run"), 0, None, "e"),
            (4, "u", "RUNNING", json.dumps(drawn[1]), other, 1, None, "e"),
        ]:
            database.execute("insert into TrialJobEvent values (?, ?, ?, ?, ?, ?, ?, ?)", row)
        for time, (sequence, value) in enumerate(
            [(0, 0.1), (1, 0.2), (0, 0.1), (1, 0.2), (2, 0.3)]
        ):
            database.execute(
                "insert into MetricData values (?, 't', '1', 'PERIODICAL', ?, ?)",
                (time, sequence, json.dumps(str(value))),
            )
        database.commit()
    trials = read_search(search).trials.set_index("trial")
    assert trials.loc["t", "optim.lr"] == 0.2 and trials.loc["t", "epochs"] == 3
    assert trials.loc["u", "optim.lr"] == 0.2  # it has reported nothing
    Path(other).mkdir()
    (Path(other) / "nni_parameters.json").write_text(json.dumps(drawn[0]))
    assert read_search(search).trials.set_index("trial").loc["u", "optim.lr"] == 0.1


def test_a_grid_of_eat_reproduce_is_no_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = {"parameters": {"job": "table8: DAT, seed 0"}}
    search = record(tmp_path / "search", PROFILE, drawn, '"0.5"')
    assert best(search) == 2
    assert "the runs of a table by eat reproduce, not a search" in capsys.readouterr().err
    assert not (search / "out").exists()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_odd_json_in_a_record_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: int
) -> None:
    for i, odd in enumerate([*ODD, [], {}, {"trainingService": 3}, {"parameters": [1]}]):
        content: list[object] = [PROFILE, DRAWN, '"0.5"']
        content[place] = odd
        search = record(tmp_path / str(i), *content)
        code, error = best(search), capsys.readouterr().err
        assert code == 0 or (code, error.count("\n")) == (2, 1), odd
        assert code == 0 or str(search) in error or "no trial has a final result" in error, odd
        assert len(error) < 1000


@pytest.mark.parametrize("odd", ["", "[1]", "run: 3", "a: &a [*a]", "\0", "[" * 3000])
def test_an_odd_config_of_the_best_trial_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], odd: str
) -> None:
    search = record(tmp_path / "search", PROFILE, DRAWN, '"0.5"')
    (search / "run" / "config.yaml").write_text(odd)
    assert best(search) == 2
    assert "run/config.yaml: damaged: expected the options" in capsys.readouterr().err
