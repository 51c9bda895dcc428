"""nni's record of a search, sound and spoilt."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from eat.cli import main

COLUMNS = {
    "TrialJobEvent": "timestamp integer, trialJobId text, event text, data text, logPath text, "
    "sequenceId integer, message text, environmentId text",
    "MetricData": "timestamp integer, trialJobId text, parameterId text, type text, "
    "sequence integer, data text",
    "ExperimentProfile": "params text, id text, execDuration integer, startTime integer, "
    "endTime integer, logDir text, nextSequenceId integer, revision integer",
}
PROFILE = {"experimentName": "x", "trainingService": {"platform": "local"}}
DRAWN = {"parameters": {"optim.lr": 0.1}}
ODD = ["", "x", "null", "3", "[]", "{}", '"a"', "NaN", "[" * 3000, "9" * 5000]


def record(folder: Path, profile: object, drawn: object, result: object) -> Path:
    """A search of one trial, with what nni keeps as JSON given as text or as values."""

    def text(value: object) -> str:
        return value if isinstance(value, str) else json.dumps(value)

    (folder / "db").mkdir(parents=True)
    (folder / "run").mkdir()
    (folder / "run" / "config.yaml").write_text("optim: {lr: 0.1}\n")
    rows = [
        ("TrialJobEvent", (1, "t", "RUNNING", text(drawn), str(folder / "run"), 0, None, "e")),
        ("TrialJobEvent", (2, "t", "SUCCEEDED", None, str(folder / "run"), 0, None, "e")),
        ("MetricData", (2, "t", "0", "FINAL", 0, text(result))),
        ("ExperimentProfile", (text(profile), "id", 0, 0, None, "", 1, 1)),
    ]
    with closing(sqlite3.connect(folder / "db" / "nni.sqlite")) as database:
        for table, columns in COLUMNS.items():
            database.execute(f"create table {table} ({columns})")
        for table, values in rows:
            database.execute(f"insert into {table} values ({','.join('?' * len(values))})", values)
        database.commit()
    return folder


def best(folder: Path) -> int:
    return main(["best", str(folder), "--out", str(folder / "out")])


def test_the_best_trial_is_written_as_a_run(tmp_path: Path) -> None:
    search = record(tmp_path / "search", PROFILE, DRAWN, '"{\\"default\\": 0.5}"')
    assert best(search) == 0
    config = yaml.safe_load((search / "out" / "config.yaml").read_text())
    assert config == {"optim": {"lr": 0.1}, "run": {"folder": None, "resume": "never"}}


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
