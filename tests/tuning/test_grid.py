"""Jobs as trials of nni: what is written, how a search is awaited and stopped, and one trial."""

import csv
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from eat.cli import main
from eat.system.stops import Interrupted
from eat.tuning import grid, nni_engine
from eat.tuning import trial as tuning
from eat.tuning.grid import write_grid
from eat.tuning.nni_engine import free_port, read_config

ROOT = Path(__file__).parents[2]
JOBS = ["t: no 'offsets', seed 0", "t: full, seed 1"]
WORDS = ["reproduce", "t", "--out", "o u t"]


def test_a_search_is_written_as_a_grid_of_jobs_whose_trials_are_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here := tmp_path / "a folder").mkdir()
    monkeypatch.chdir(here)
    path = write_grid(here / "o u t" / "nni", "t", JOBS, WORDS, None)
    config = yaml.safe_load(path.read_text())
    assert config == {
        "trainingService": {"platform": "local"},
        "trialConcurrency": 1,
        "experimentName": "t",
        "searchSpaceFile": "search_space.json",
        "trialCommand": "exec bash trial.sh",
        "trialCodeDirectory": ".",
        "maxTrialNumber": 2,
        "tuner": {"name": "GridSearch"},
    }
    space = json.loads((path.parent / "search_space.json").read_text())
    assert space == {"job": {"_type": "choice", "_value": JOBS}}
    words = shlex.split((path.parent / "trial.sh").read_text())
    assert words == ["cd", str(here), "&&", "exec", sys.executable, "-m", "eat", *WORDS]


def test_of_a_users_config_the_machines_are_taken_and_nothing_that_ends_trials(
    tmp_path: Path,
) -> None:
    path = write_grid(tmp_path, "t", JOBS, WORDS, str(ROOT / "config_remote.yml"))
    config, shipped = (
        yaml.safe_load(file.read_text()) for file in (path, ROOT / "config_remote.yml")
    )
    assert config["trainingService"] == shipped["trainingService"]
    assert config["trialConcurrency"] == 2 and config["tuner"] == {"name": "GridSearch"}
    assert "assessor" not in config and config["maxTrialNumber"] == 2
    # On another machine nni finds Python.
    assert " && exec python -m eat reproduce t" in (path.parent / "trial.sh").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", r"own.yml: found \[1, 2\], expected a config of nni with trialConcurrency and"),
        ("{trialConcurrency: 2}", "found {'trialConcurrency': 2}, expected"),
        ("[1", "own.yml: line 1, column 3: expected"),
        (
            "{trialConcurrency: many, trainingService: {platform: local}}",
            "own.yml: nni refuses it: .*trial_concurrency",
        ),
        (
            "{trialConcurrency: 1, trainingService: {platform: nowhere}}",
            "own.yml: nni refuses it: ",
        ),
        (
            "{trialConcurrency: 1, trialGpuNumber: 99,"
            " trainingService: {platform: local, useActiveGpu: true}}",
            "own.yml: trialGpuNumber is 99, and this machine has",
        ),
    ],
)
def test_a_config_that_cannot_be_run_is_one_message(
    text: str, message: str, tmp_path: Path
) -> None:
    pytest.importorskip("nni", reason="nni is not installed")
    (own := tmp_path / "own.yml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_config(write_grid(tmp_path / "nni", "t", JOBS, WORDS, str(own)), str(own))


def test_without_nni_the_message_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nni.experiment", None)
    with pytest.raises(ValueError, match=r"pip install 'eat-iaa\[nni\]', or take --engine local"):
        read_config(tmp_path / "config.yml", None)


def test_a_port_that_is_taken_is_passed_over_or_if_given_refused() -> None:
    with socket.create_server(("", 0)) as other:
        taken = other.getsockname()[1]
        with pytest.raises(ValueError, match=f"--port: {taken} and .* are not free: give another"):
            free_port(taken)
    with pytest.raises(ValueError, match="70000"):
        free_port(70000)
    first = free_port(None)
    with socket.create_server(("", first)):
        assert free_port(None) > first


class Fake:
    """nni's server, which gives one status after the other."""

    def __init__(self, *statuses: str) -> None:
        self.statuses, self.id, self.logs, self.stopped = [*statuses], "id", "logs", False

    def status(self) -> str:
        return self.statuses.pop(0)

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """A search on a fake server, which returns what was said."""

    def run(server: Fake, each: Callable[[], object] = lambda: None) -> list[str]:
        said: list[str] = []
        monkeypatch.setattr(nni_engine, "read_config", lambda path, machines: path)
        monkeypatch.setattr(nni_engine, "Server", lambda config, port, known: server)
        monkeypatch.setattr(nni_engine, "PAUSE", 0.0)
        given: dict[str, Any] = {"machines": None, "port": None, "each": each, "say": said.append}
        grid.search("t", JOBS, WORDS, tmp_path, **given)
        return said

    return run


def test_a_search_is_awaited_and_the_server_stopped(search: Callable[..., list[str]]) -> None:
    server, looks = Fake("INITIALIZED", "", "RUNNING", "NO_MORE_TRIAL", "DONE"), list[int]()
    said = search(server, partial(looks.append, 1))
    assert len(looks) == 4 and server.stopped
    assert len(said) == 1 and said[0].startswith("nni: http://127.0.0.1:")


@pytest.mark.parametrize("last", ["GONE", "ERROR", ""])
def test_a_server_that_dies_fails_or_falls_silent_ends_the_search(
    last: str, search: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nni_engine, "SILENCE", 0.0)
    server = Fake("RUNNING", last)
    with pytest.raises(
        OSError, match="nni.s server or tuner has failed or was stopped; logs are in"
    ):
        search(server)
    assert server.stopped


def test_a_signal_stops_the_server(search: Callable[..., list[str]]) -> None:
    server = Fake("RUNNING", "RUNNING")
    with pytest.raises(Interrupted) as stop:
        search(server, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert server.stopped and stop.value.exit_code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], nni_engine.Server]:
    """A server whose process is a shell, which has run a command."""
    experiment = pytest.importorskip("nni.experiment", reason="nni is not installed")

    def start(command: str) -> nni_engine.Server:
        class Experiment:
            id = "id"

            def __init__(self, config: object, known: str | None) -> None:
                self._proc: Any = None

            def start(self, port: int, run_mode: object) -> None:
                words, out = ["sh", "-c", f"{command} echo; wait"], subprocess.PIPE
                self._proc = subprocess.Popen(words, stdout=out, start_new_session=True)
                self._proc.stdout.readline()

            def get_status(self) -> str:
                raise RuntimeError("no answer")

        monkeypatch.setattr(experiment, "Experiment", Experiment)
        monkeypatch.setattr(experiment.rest, "delete", lambda port, api: None)
        monkeypatch.setattr(nni_engine, "LEAVE", 0.1)
        monkeypatch.setattr(nni_engine, "TERMINATE", 0.3)
        home = SimpleNamespace(experiment_working_directory=str(tmp_path))
        return nni_engine.Server(SimpleNamespace(canonical_copy=lambda: home), 1)

    return start


def test_a_server_that_does_not_end_is_killed(
    started: Callable[[str], nni_engine.Server], tmp_path: Path
) -> None:
    server = started("trap '' TERM; sleep 60 &")
    assert server.logs == tmp_path / "id" and server.status() == ""
    server.stop()
    assert server.status() == "GONE" and server._process.returncode == -signal.SIGKILL
    assert server._guard.returncode is not None


def test_the_server_ends_with_the_process_that_started_it(
    started: Callable[[str], nni_engine.Server],
) -> None:
    server = started("sleep 60 &")
    server._guard.stdin.close()  # as its end does
    assert server._process.wait(timeout=60) == -signal.SIGTERM
    server.stop()


@pytest.fixture
def trial(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[object], tuple[int, list[Any]]]:
    """A trial of a job, of an experiment with a row that fails; with what nni was told."""
    nni = pytest.importorskip("nni", reason="nni is not installed")
    (tmp_path / "mine.yaml").write_text(
        "{title: Mine, where: Table 9, data: ava, epochs: 25, rows: [{name: EAT, letters: SSEE},"
        " {name: wild, letters: SSSS, options: {optim.lr: 1000}}]}"
    )
    small = "{dims: [16, 32, 32, 64], heads: [1, 1, 2, 4]}"
    argv = ["reproduce", str(tmp_path / "mine.yaml"), "--data.name", "sample", "--quick", "true"]
    argv += ["--data.labels", str(sample), "--data.images", str(sample / "images")]
    argv += ["--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs"), "--seeds", "2"]
    argv += ["--data.size", "64", "--model.settings", small, "--engine", "nni"]

    def run(parameters: object) -> tuple[int, list[Any]]:
        told: list[Any] = []
        for kind in ("intermediate", "final"):
            report = partial(lambda kind, result: told.append((kind, result["default"])), kind)
            monkeypatch.setattr(nni, f"report_{kind}_result", report)
        monkeypatch.setattr(nni, "get_next_parameter", lambda: parameters)
        monkeypatch.setattr(tuning, "end_with_parent", lambda: None)
        monkeypatch.setenv("NNI_PLATFORM", "unittest")
        return main(argv), told

    return run


def test_a_trial_carries_out_its_job_alone_and_reports_it(
    trial: Callable[[object], tuple[int, list[Any]]], tmp_path: Path
) -> None:
    code, told = trial({"job": "mine: EAT, seed 1"})
    with (tmp_path / "out" / "mine.csv").open() as file:
        records = list(csv.DictReader(file))
    assert code == 0 and [(r["row"], r["seed"]) for r in records] == [("EAT", "1")]
    assert [kind for kind, _ in told] == ["intermediate", "intermediate", "final"]
    assert told[-1][1] == float(records[0]["srcc"])
    assert {"mine.md", "mine.png"} < {path.name for path in (tmp_path / "out").iterdir()}
    assert len([*(tmp_path / "runs").iterdir()]) == 1
    # Carried out already, it is only reported.
    assert trial({"job": "mine: EAT, seed 1"}) == (0, told[-1:])


def test_a_trial_that_fails_is_recorded_and_fails(
    trial: Callable[[object], tuple[int, list[Any]]], tmp_path: Path
) -> None:
    code, told = trial({"job": "mine: wild, seed 0"})
    assert code == 1 and "final" not in [kind for kind, _ in told]
    assert "the loss became nan" in (tmp_path / "out" / "mine.csv").read_text()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"optim.lr": 1}, "nni's parameters are {'optim.lr': 1}: expected a job alone"),
        ({"job": "mine: other, seed 0"}, "mine has no run 'other, seed 0'"),
    ],
)
def test_a_trial_of_something_else_is_refused(
    parameters: object,
    message: str,
    trial: Callable[[object], tuple[int, list[Any]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert trial(parameters) == (2, [])
    assert message in capsys.readouterr().err
