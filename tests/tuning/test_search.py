"""Searches by nni itself: killed and continued, with trials that fail or are killed, over SSH."""

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import small_run

from eat.cli import main, parse_train
from eat.training.trainer import train
from eat.tuning.results import SearchError, find_search, read_search

pytest.importorskip("nni", reason="nni is not installed")
ROOT = Path(__file__).parents[2]
PATIENCE = 120  # seconds for anything that a search does in a few
# nnictl, but its server may take longer than three seconds to start, as on a busy machine.
NNICTL = """
from nni.experiment import launcher
from nni.tools.nnictl.nnictl import parse_args
launcher._check_rest_server.__defaults__ = (60, None)
parse_args()
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait(condition: Callable[[], object], what: str) -> object:
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, f"no {what} in {PATIENCE} s"
        time.sleep(0.1)
    return found


class Nni:
    """nnictl with a home of its own, and what its server says."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir()
        self.port = free_port()
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.env = os.environ | {"HOME": str(home), "PATH": path, "OMP_NUM_THREADS": "1"}
        self.env["PYTHONWARNINGS"] = "ignore"

    def __call__(self, *words: str) -> str:
        ran = subprocess.run(
            [sys.executable, "-c", NNICTL, *words],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def create(self, config: dict) -> str:
        file = self.home / "config.yml"
        file.write_text(yaml.safe_dump(config))
        self("create", "--config", str(file), "-p", str(self.port))
        return self.ask("experiment")["id"]

    def ask(self, what: str) -> dict | list:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/nni/{what}") as answer:
            return json.load(answer)

    def statuses(self) -> list[str]:
        return [trial["status"] for trial in self.ask("trial-jobs")]

    def done(self) -> bool:
        state = self.ask("check-status")
        assert state["status"] != "ERROR", state
        return state["status"] == "DONE"

    def processes(self) -> list[int]:
        """All of this home's."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"HOME={self.home}\0".encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
        return found


@pytest.fixture
def nni(tmp_path: Path) -> Iterator[Nni]:
    control = Nni(tmp_path / "home")
    try:
        yield control
    finally:
        for number in control.processes():
            os.kill(number, signal.SIGKILL)


def search(command: str, space: dict, trials: int, **more: object) -> dict:
    return {
        "experimentName": "test",
        "searchSpace": space,
        "trialCommand": command,
        "trialCodeDirectory": str(ROOT),
        "trialConcurrency": 1,
        "maxTrialNumber": trials,
        "tuner": {"name": "GridSearch"},
        "trainingService": {"platform": "local"},
    } | more


@pytest.mark.long
def test_a_search_survives_its_own_death_and_that_of_trials(
    nni: Nni, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = small_run(sample, tmp_path / "whole")
    config.optim.epochs, config.optim.batch_size, config.run.save_steps = 12, 4, 1
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config.to_dict()))
    space = {"run.seed": {"_type": "choice", "_value": [3, "nonsense", 4, 5]}}  # in any order
    command = f"exec {sys.executable} main_nni.py --config {file} --data.workers 1"
    name = nni.create(search(command, space, 4))
    home = nni.home / "nni-experiments"
    trials = home / name / "environments" / "local-env" / "trials"

    def reached(epoch: int, known: set[str]) -> str | None:
        """Another trial that has finished an epoch."""
        for log in trials.glob("*/train.log"):
            if log.parent.name not in known and f"epoch {epoch}:" in log.read_text():
                return log.parent.name
        return None

    first = wait(lambda: reached(2, set()), "second epoch")
    manager = json.loads((home / ".experiment").read_text())[name]["pid"]
    os.kill(manager, signal.SIGKILL)
    wait(lambda: not Path(f"/proc/{manager}").exists(), "end of the search")
    wait(lambda: "main_nni" not in commands(nni), "end of the trial whose search was killed")
    for number in nni.processes():  # the tuner
        os.kill(number, signal.SIGKILL)

    nni("resume", name, "--port", str(nni.port))
    second = wait(lambda: reached(1, {first}), "other trial")
    nni("trial", "kill", name, "--trial_id", second)
    wait(nni.done, "end of the search")
    assert "main_nni" not in commands(nni)  # nor a process that loads images
    nni("stop", name)

    # The first trial continued, and its result is that of a run that nobody killed.
    assert "continuing after epoch" in (trials / first / "train.log").read_text()
    table = read_search(find_search(name, str(home))).trials.set_index("trial")
    assert table["status"][[first, second]].tolist() == ["SUCCEEDED", "USER_CANCELED"]
    assert sorted(table["status"]) == ["FAILED", "SUCCEEDED", "SUCCEEDED", "USER_CANCELED"]
    config.run.seed = int(table["run.seed"][first])
    _, metrics = train(config)
    assert table["final"][first] == metrics["srcc"] and table["epochs"][first] == 12
    failed = table[table["status"] == "FAILED"].iloc[0]
    assert failed["run.seed"] == "nonsense" and "run.seed" in failed["error"]

    out = tmp_path / "best"
    assert main(["best", str(home / name), "--out", str(out)]) == 0
    told = capsys.readouterr().out
    best = table["final"].idxmax()
    assert f"best trial   {best}: " in told
    checkpoint = Path(told.partition("checkpoint   ")[2].strip())
    assert checkpoint.is_file() and best in str(checkpoint)
    again = parse_train(["--config", str(out / "config.yaml")])
    assert again.run.seed == int(table["run.seed"][best]) and again.run.folder is None
    assert pd.read_csv(out / "trials.csv")["status"].tolist() == table["status"].tolist()


def commands(nni: Nni) -> str:
    """Command lines of all processes of a search."""
    lines = []
    for number in nni.processes():
        try:
            lines.append(Path(f"/proc/{number}/cmdline").read_bytes().decode())
        except OSError:
            continue
    # The tuner's holds the whole config.
    return "\n".join(line for line in lines if "exp_params" not in line)


def test_an_experiment_file_of_the_old_format_is_still_converted(nni: Nni) -> None:
    (nni.home / "space.json").write_text('{"init_lr": {"_type": "choice", "_value": [1, 2]}}')
    report = "import nni; nni.report_final_result(nni.get_next_parameter()['init_lr'])"
    old = {
        "authorName": "default",
        "experimentName": "old",
        "trialConcurrency": 1,
        "maxExecDuration": "1h",
        "maxTrialNum": 2,
        "trainingServicePlatform": "local",
        "searchSpacePath": str(nni.home / "space.json"),
        "useAnnotation": False,
        "tuner": {"builtinTunerName": "TPE", "classArgs": {"optimize_mode": "maximize"}},
        "trial": {
            "command": f'{sys.executable} -c "{report}"',
            "codeDir": str(nni.home),
            "gpuNum": 0,
        },
    }
    name = nni.create(old)
    wait(nni.done, "end of the search")
    found = read_search(nni.home / "nni-experiments" / name)
    assert found.trials["status"].tolist() == ["SUCCEEDED", "SUCCEEDED"]
    assert found.trials["optim.lr"].tolist() == found.trials["final"].tolist()


@pytest.fixture
def machine(nni: Nni) -> Iterator[dict]:
    """This machine as one of nni's list, behind an SSH server of its own."""
    server = shutil.which("sshd", path="/usr/sbin:/usr/bin")
    if server is None or os.getuid() != 0:
        pytest.skip("no sshd here, or no right to start one")
    folder = nni.home / "ssh"
    folder.mkdir(mode=0o700)
    for key in ("host", "user"):
        words = ["ssh-keygen", "-q", "-t", "rsa", "-m", "PEM", "-N", "", "-f", str(folder / key)]
        subprocess.run(words, check=True)
    port = free_port()
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/user.pub\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n"
        "Subsystem sftp internal-sftp\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    words = [server, "-D", "-f", str(folder / "config"), "-E", str(folder / "log")]
    process = subprocess.Popen(words, env=nni.env)
    try:
        yield {
            "host": "127.0.0.1",
            "port": port,
            "user": getpass.getuser(),
            "sshKeyFile": str(folder / "user"),
            "pythonPath": str(Path(sys.executable).parent),
        }
    finally:
        process.kill()
        process.wait()


def test_a_search_on_another_machine_over_ssh(
    nni: Nni, machine: dict, sample: Path, tmp_path: Path
) -> None:
    code = tmp_path / "code"
    shutil.copytree(ROOT / "eat", code / "eat", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "main_nni.py", code)
    config = small_run(sample, None)
    (code / "small.yaml").write_text(yaml.safe_dump(config.to_dict()))
    shipped = yaml.safe_load((ROOT / "config_remote.yml").read_text())
    service = shipped["trainingService"] | {"machineList": [machine]}
    del service["trialGpuNumber"], shipped["searchSpaceFile"]
    changed = {
        "trialCommand": "python main_nni.py --config small.yaml",
        "trialCodeDirectory": str(code),
        "nniManagerIp": "127.0.0.1",
        "trialConcurrency": 1,
        "maxTrialNumber": 2,
        "searchSpace": {"init_lr": {"_type": "choice", "_value": [1e-3, 2e-3]}},
        "trainingService": service,
    }
    name = nni.create(shipped | changed)
    wait(nni.done, "end of the search")
    found = read_search(nni.home / "nni-experiments" / name)
    assert found.platform == "remote"
    assert found.trials["status"].tolist() == ["SUCCEEDED", "SUCCEEDED"]
    assert found.trials["final"].notna().all() and (found.trials["epochs"] == 2).all()
    nni("stop", name)


def test_an_unknown_or_damaged_search_is_named(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="abc: no search of that name in .*; found: none"):
        find_search("abc", str(tmp_path))
    (tmp_path / "abc" / "db").mkdir(parents=True)
    (tmp_path / "abc" / "db" / "nni.sqlite").write_text("not a database" * 100)
    with pytest.raises(SearchError, match="found: abc"):
        find_search("xyz", str(tmp_path))
    with pytest.raises(SearchError, match="nni.sqlite: cannot be read as nni.s record of a search"):
        read_search(find_search("abc", str(tmp_path)))
