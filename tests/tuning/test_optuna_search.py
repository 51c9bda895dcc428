"""Searches by Optuna: killed and continued, with trials that are pruned, fail or are killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from conftest import small_run

from eat.cli import main, parse_train
from eat.config.commands import BestOptions
from eat.system.stops import Interrupted
from eat.tuning.optuna_engine import open_storage, speaking_to
from eat.tuning.results import open_search
from eat.tuning.search import run_trials, slots
from eat.tuning.space import Space
from eat.tuning.study import Study

pytest.importorskip("optuna", reason="Optuna is not installed")
ROOT = Path(__file__).parents[2]
PATIENCE = 120  # seconds for anything that takes a few
RULES = {"optim.lr": {"_type": "uniform", "_value": [0, 1]}}
# A trial that reports two epochs, and what it drew as its result, once a file is there.
TRIAL = """
import os, sys, time
from eat.tuning import trial
trial.end_with_parent()
drawn = trial.parameters()["optim.lr"]
trial.report({"srcc": drawn}, "srcc", final=False)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
for final in (False, True):
    trial.report({"srcc": drawn}, "srcc", final=final)
"""
SEARCH = """
import json, sys
from pathlib import Path
from eat.tuning.search import run_trials
from eat.tuning.space import Space
from eat.tuning.study import Study
out, rules, *command = sys.argv[1:]
given = dict(trials=5, start_step=None, space=Space(json.loads(rules)), options={})
run_trials(Study(Path(out), None, "study", **given), command, [{}, {}], print)
"""


def make_study(out: Path, storage: str | None = None, **given: Any) -> Study:
    given = {"trials": 5, "start_step": None, "space": Space(RULES), "options": {}} | given
    return Study(out, storage, "study", **given)


def command(tmp_path: Path, code: str = TRIAL) -> list[str]:
    return [sys.executable, "-c", code, str(tmp_path / "gate")]


def trials(out: Path) -> pd.DataFrame:
    return open_search(str(out), BestOptions()).trials


def wait(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"no {what} in {PATIENCE} s"
        time.sleep(0.1)


@pytest.mark.long
def test_a_search_that_is_killed_goes_on_with_the_same_trials(tmp_path: Path) -> None:
    out, words = tmp_path / "search", command(tmp_path)
    searching = [sys.executable, "-c", SEARCH, str(out), json.dumps(RULES), *words]
    process = subprocess.Popen(searching, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        reported = '"step":1'  # in the journal
        wait(lambda: sum(f.read_text().count(reported) for f in out.glob("*.log")) == 2, "epochs")
        # Its live trials are not taken for dead: here there is only another one to take.
        other = make_study(out)
        assert (taken := other.take()) is not None and taken.number == 2
        taken.lock.close()
    finally:
        process.kill()
        process.wait()
    before = trials(out)
    assert before["status"].tolist() == ["RUNNING"] * 3

    (tmp_path / "gate").touch()
    said: list[str] = []
    run_trials(make_study(out), words, [{}, {}], said.append)
    after = trials(out)
    assert after["status"].tolist() == ["SUCCEEDED"] * 5
    assert after["optim.lr"][:3].tolist() == before["optim.lr"].tolist()
    assert after["final"].tolist() == after["optim.lr"].tolist()
    assert after["epochs"].tolist() == [2] * 5  # what a trial reports once more counts once
    assert said[0].startswith("trial 0, after epoch 1: optim.lr ")
    assert len({*after["folder"]}) == 5 and make_study(out).take() is None

    assert make_study(out, trials=6).take().number == 5  # type: ignore[union-attr]


def test_a_signal_stops_trials_which_then_wait_to_be_taken_up(tmp_path: Path) -> None:
    study = make_study(tmp_path / "search", trials=2)

    def say(text: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="the same command goes on"):
        run_trials(study, command(tmp_path), [{}], say)
    assert trials(study.out)["status"].tolist() == ["RUNNING"]
    assert (taken := study.take()) is not None and taken.number == 0
    taken.lock.close()


# By the number of the trial: a good one, one below it, one that fails, one that is killed, and one
# without a defined result.
FATES = """
import os, signal, sys
from eat.tuning import trial
number = int(trial.trial_folder()[-1])
if number == 2:
    sys.exit("eat train: error: no such file")
if number == 3:
    os.kill(os.getpid(), signal.SIGKILL)
values = [0.5, 0.6, 0.7] if number == 0 else [0.4, 0.4, 0.9]
for value in values if number < 4 else [float("nan")]:
    trial.report({"srcc": value}, "srcc", final=False)
trial.report({"srcc": value}, "srcc", final=True)
"""


def test_trials_are_pruned_and_fail_one_by_one(tmp_path: Path) -> None:
    study, said = make_study(tmp_path, start_step=2), list[str]()
    run_trials(study, command(tmp_path, FATES), [{}], said.append)
    found = trials(tmp_path)
    wanted = ["SUCCEEDED", "EARLY_STOPPED", "FAILED", "FAILED", "SUCCEEDED"]
    assert found["status"].tolist() == wanted
    assert found["final"].dropna().tolist() == [0.7, -1.0]
    assert found["epochs"].tolist() == [3, 2, 0, 0, 1]
    assert found["error"].tolist()[2:4] == ["eat train: error: no such file", "killed by SIGKILL"]
    assert said[3] == "trial 1: pruned after epoch 2"
    assert said[5] == "trial 2: failed: eat train: error: no such file"


def test_folders_that_share_a_database_share_the_number_of_trials(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    here, there = (make_study(tmp_path / name, storage, trials=3) for name in ("a", "b"))
    taken = [study.take() for study in (here, there, here, there)]
    numbers = [one.number for one in taken if one is not None]
    assert numbers == [0, 1, 2] and taken[3] is None
    for one in taken[:3]:
        one.lock.close()  # type: ignore[union-attr]
    again = there.take()  # of what is left there
    assert again is not None and again.number == 1
    with closing(again.lock):
        assert there.take() is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"space": Space({"x": RULES["optim.lr"]})}, "other options: --space; take the same ones"),
        ({"options": {"optim": {"lr": 1.0}}}, r"optim.lr \(was 1e-05, now 1.0\)"),
        ({"storage": "sqlite:///other.db"}, r"another search \(storage differs\)"),
        ({"storage": "nonsense://u:secret@h/d"}, r"--storage nonsense://u:\*\*\*@h/d: "),
    ],
)
def test_a_folder_is_not_continued_with_another_search(
    given: dict[str, Any], message: str, tmp_path: Path
) -> None:
    out = tmp_path / "search"
    make_study(out)
    if "secret" in str(given):
        out = tmp_path / "new"
    with pytest.raises(ValueError, match=message) as refused:
        make_study(out, **given)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("text", ["{}\n", "x\n", '{"op_code": 99, "worker_id": "w"}\n', "[" * 5000])
def test_a_damaged_journal_is_one_message(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (journal := tmp_path / "journal.log").write_text(text)
    assert main(["best", str(journal)]) == 2
    error = capsys.readouterr().err
    assert f"{journal}: " in error and error.count("\n") == 1 and len(error) < 1000


def test_a_damaged_card_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (card := tmp_path / "search.json").write_text("{")
    assert main(["best", str(tmp_path)]) == 2
    assert f"{card}: damaged (no JSON): mend it" in capsys.readouterr().err


def test_gpus_and_cores_are_dealt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    for module in ("eat.system.cores", "eat.tuning.search"):
        monkeypatch.setattr(f"{module}.available_cores", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    first, second = slots(None, "auto")
    assert first == {"OMP_NUM_THREADS": "4", "CUDA_VISIBLE_DEVICES": "4"}
    assert second["CUDA_VISIBLE_DEVICES"] == "6"
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots(3, "auto")] == ["4", "6", "4"]
    assert slots(None, "cpu") == [{"OMP_NUM_THREADS": "4"}] * 2
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert slots(4, "cpu") == [{"OMP_NUM_THREADS": "3"}] * 4


@pytest.mark.long
def test_the_command_searches_runs_and_its_best_is_a_run(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (file := tmp_path / "run.yaml").write_text(yaml.safe_dump(small_run(sample, None).to_dict()))
    rules = {"init_lr": {"_type": "loguniform", "_value": [1e-4, 1e-3]}}
    (space := tmp_path / "space.json").write_text(json.dumps(rules))
    out = tmp_path / "search"
    argv = ["search", "--space", str(space), "--out", str(out), "--config", str(file)]
    argv += ["--trials", "1"]
    assert main([*argv, "--optim.epochs", "1"]) == 0
    assert "1 SUCCEEDED" in capsys.readouterr().out
    result = json.loads((out / "trial-0000" / "result.json").read_text())
    row = trials(out).iloc[0]
    assert row["final"] == pytest.approx(result["srcc"]) and row["epochs"] == 1

    assert main(["best", str(out), "--out", str(tmp_path / "best")]) == 0
    assert "best trial   0: " in capsys.readouterr().out
    again = parse_train(["--config", str(tmp_path / "best" / "config.yaml")])
    assert again.optim.lr == row["optim.lr"] and again.run.folder is None
    assert main([*argv, "--optim.epochs", "2"]) == 2
    assert "optim.epochs (was 1, now 2)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rules", "argv", "message"),
    [
        ({"optim.lrr": RULES["optim.lr"]}, [], "--optim.lrr"),
        (
            {"optim.epochs": {"_type": "choice", "_value": [1, "x"]}},
            [],
            "--optim.epochs: found 'x'",
        ),
        (RULES, ["--trials", "0"], "--trials is 0"),
        (RULES, ["--run.folder", "x"], "give --out"),
        ({"run.folder": {"_type": "choice", "_value": ["x"]}}, [], "give --out"),
        (RULES, ["--nni", "x"], "--nni and --port belong to --engine nni"),
        (RULES, ["--engine", "nni", "--storage", "x"], "--storage belongs to --engine optuna"),
        (RULES, ["--data.labels", "nowhere"], "nowhere: no such folder: make the sample by eat"),
    ],
)
def test_wrong_options_are_told_before_anything_is_made(
    rules: dict[str, Any],
    argv: list[str],
    message: str,
    sample: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (space := tmp_path / "space.json").write_text(json.dumps(rules))
    run = ["--data.name", "sample", "--data.labels", str(sample), "--data.images", str(sample)]
    words = ["search", "--space", str(space), "--out", str(tmp_path / "out"), *run, *argv]
    try:
        assert main(words) == 2
    except SystemExit as stop:
        assert stop.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_optuna_the_message_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match=r"pip install 'eat-iaa\[optuna\]', or take --engine nni"):
        make_study(tmp_path)


def test_what_is_no_journal_is_refused_and_left(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "diary.txt").write_text("mine\n")
    for name, told in {"pipe": "a pipe", "diary.txt": "there, and no journal"}.items():
        storage = str(tmp_path / name)
        with pytest.raises(ValueError, match=f"{name}.*{told}"), speaking_to(storage):
            open_storage(storage)
    assert (tmp_path / "diary.txt").read_text() == "mine\n"
