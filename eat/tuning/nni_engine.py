"""nni: a trial's side of it, and its server, started on a config, awaited, and stopped."""

import json
import os
import reprlib
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import yaml

from eat.config.files import read_yaml
from eat.system.files import json_object, write_atomically
from eat.system.stops import Interrupted, StopSignals

Say = Callable[[str], object]

RECORD = Path("db", "nni.sqlite")  # in the folder of an experiment
LOCAL = {"trialConcurrency": 1, "trainingService": {"platform": "local"}}
# What is taken of a user's config. The rest, such as a tuner, is not.
MACHINES = ("trainingService", "trialConcurrency", "trialGpuNumber", "nniManagerIp")
PORTS = range(8999, 9999)
ENDED = ("DONE", "ERROR")
PARAMETERS = "nni_parameters.json"  # in a trial's folder
# Seconds: between two looks; for the server to start, of which nni grants three; until one that
# does not answer has failed; for it to end its trials and itself; for what it has left to end.
PAUSE, START, SILENCE, LEAVE, TERMINATE = 1.0, 60, 120.0, 60.0, 10.0


class NniTrial:
    """nni behind ``eat.tuning.trial.Engine``."""

    name = "nni"

    def __init__(self) -> None:
        self.folder = os.environ.get("NNI_OUTPUT_DIR")

    def parameters(self) -> Any:
        """What nni's tuner drew for this trial.

        nni hands parameters to trials in the order in which they ask, so two that start together
        may get each other's. When one of them ends, nni's TPE then fails over the other's result.
        So a trial takes what nni's record has for it, where that can be seen. Elsewhere one that
        is resumed keeps those that it began with.

        Raises:
            ValueError: the file that keeps them is damaged; naming it.
        """
        import nni

        drawn = nni.get_next_parameter()
        if self.folder is None:
            return drawn
        known = Path(self.folder, PARAMETERS)
        if known.exists():
            try:
                nni.trial._params = json_object(known.read_text())
            except ValueError as error:
                raise ValueError(f"{known}: damaged, found {error}: delete it") from None
        else:
            nni.trial._params = _recorded() or nni.trial._params
            known.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(known, json.dumps(nni.trial._params).encode())
        return nni.get_current_parameter()

    def report(self, result: dict[str, float], *, final: bool) -> None:
        """Pass a result on; an assessor may then have nni stop the trial."""
        import nni

        send = nni.report_final_result if final else nni.report_intermediate_result
        send(result)


def _ask_record(query: str, *values: str) -> dict[str, Any]:
    """The JSON object that a query of nni's record finds; empty without one, or without a record.

    The record is on nni's own machine, above the folders of its trials.
    """
    folder = Path(os.environ.get("NNI_OUTPUT_DIR", ""))
    record = next((up / RECORD for up in folder.parents if (up / RECORD).is_file()), None)
    if record is None:
        return {}
    with suppress(sqlite3.Error, ValueError, TypeError):  # it is nni's to complain
        with closing(sqlite3.connect(f"{record.resolve().as_uri()}?mode=ro", uri=True)) as database:
            return json_object(database.execute(query, values).fetchone()[0])
    return {}


def _recorded() -> dict[str, Any] | None:
    """What nni has recorded for this trial, with the parameters' number; None if it is not seen."""
    query = "select data from TrialJobEvent where trialJobId = ? and data != '' order by rowid desc"
    found = _ask_record(query, os.environ.get("NNI_TRIAL_JOB_ID", ""))
    return found if "parameters" in found else None


def trials_at_once() -> int:
    """How many trials nni runs at a time on this machine.

    It is 1 outside an experiment, and where the experiment's record is on another machine.
    """
    config = _ask_record("select params from ExperimentProfile order by revision desc limit 1")
    with suppress(LookupError, TypeError):
        concurrency = config["trialConcurrency"]
        return max(1, min(concurrency, config.get("maxTrialNumber", concurrency)))
    return 1


def experiment_files(
    name: str,
    space: Mapping[str, Any],
    words: Sequence[str],
    *,
    trials: int,
    algorithms: Mapping[str, Any],
    machines: str | None,
    concurrency: int | None = None,
) -> dict[str, str]:
    """An experiment as ``config.yml``, ``search_space.json`` and ``trial.sh``: names and contents.

    Args:
        name: of the experiment.
        space: nni's search space.
        words: the command of a trial, to be run in the current folder by this Python, or by the one
            that nni finds on another machine.
        trials: how many, at most.
        algorithms: the config's ``tuner``, and ``assessor`` if there is one.
        machines: config of nni that says where trials run and how many at a time; None takes one
            at a time on this machine.
        concurrency: trials at a time in its place.

    Raises:
        ValueError: ``machines`` is no config of nni.
    """
    try:
        own = read_yaml(Path(machines).expanduser()) if machines else LOCAL
    except ValueError as error:
        raise ValueError(f"--nni {machines}: {error}") from error
    if not isinstance(own, dict) or not own.keys() >= LOCAL.keys():
        raise ValueError(
            f"--nni {machines}: found {reprlib.repr(own)}, expected a config of nni with "
            f"{' and '.join(LOCAL)}, as config_gpu.yml"
        )
    config: dict[str, Any] = {key: own[key] for key in MACHINES if key in own}
    if concurrency is not None:
        config["trialConcurrency"] = concurrency
    config |= {
        "experimentName": name,
        "searchSpaceFile": "search_space.json",
        # One simple command: nni writes CUDA_VISIBLE_DEVICES=... before it. And "exec": nni then
        # speaks to the training process itself.
        "trialCommand": "exec bash trial.sh",
        "trialCodeDirectory": ".",
        "maxTrialNumber": trials,
        **algorithms,
    }
    service = config["trainingService"]
    here = isinstance(service, dict) and service.get("platform") == "local"
    python = [sys.executable if here else "python", "-m", "eat"]
    return {
        "search_space.json": json.dumps(space, indent=2) + "\n",
        "trial.sh": f"cd {shlex.quote(str(Path.cwd()))} && exec {shlex.join([*python, *words])}\n",
        "config.yml": "# nnictl create --config config.yml -p 8999\n"
        + yaml.safe_dump(config, sort_keys=False),
    }


def write_experiment(folder: Path, files: Mapping[str, str]) -> Path:
    """Write an experiment's files into a folder, and return its config."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_atomically(folder / name, text.encode())
    return folder / "config.yml"


def free_port(given: int | None) -> int:
    """The given port, or the first free one; the next one too, which nni uses for other machines.

    Raises:
        ValueError: it is taken, or none is free.
    """
    for port in PORTS if given is None else [given]:
        with suppress(OSError, OverflowError):
            for number in (port, port + 1):
                with closing(socket.create_server(("", number))):
                    pass
            return port
    ports = f"{PORTS[0]} to {PORTS[-1]}" if given is None else f"{given} and {given + 1}"
    raise ValueError(f"--port: {ports} are not free: give another, between 1024 and 65534")


def read_config(path: Path, machines: str | None) -> Any:
    """A written config as nni's own type of it.

    Raises:
        ValueError: nni is not there, or refuses what it was given of ``machines``.
    """
    try:
        from nni.experiment import ExperimentConfig
        from nni.runtime.log import silence_stdout
    except ImportError as error:
        raise ValueError(
            f"--engine nni needs nni ({error}): pip install 'eat-iaa[nni]', or take --engine local"
        ) from error
    silence_stdout()
    try:
        config = ExperimentConfig.load(path)
        service = config.canonical_copy().training_service
    except Exception as error:  # of any kind, assertions too
        text = " ".join(str(error).split()) or repr(error)
        raise ValueError(f"--nni {machines}: nni refuses it: {text:.400}") from error
    asked = getattr(service, "trial_gpu_number", None) or 0
    if asked and getattr(service, "platform", None) == "local":
        import torch

        if torch.cuda.device_count() < asked:  # trials would wait forever
            raise ValueError(
                f"--nni {machines}: trialGpuNumber is {asked}, and this machine has "
                f"{torch.cuda.device_count()} GPUs: leave it out to train on the CPU"
            )
    return config


class Server:
    """nni's server of one experiment, started, with its tuner and its trials on this machine.

    Args:
        known: nni's id of an experiment to resume; None for a new one.

    Raises:
        OSError: it does not start.
    """

    def __init__(self, config: Any, port: int, known: str | None = None) -> None:
        from nni.experiment import Experiment, RunMode, launcher

        launcher._check_rest_server.__defaults__ = (START, None)
        self._experiment, self._port = Experiment(config, known), port
        self.id = self._experiment.id
        home = config.canonical_copy().experiment_working_directory
        self.logs = Path(home, self.id)
        if known is not None:
            self._experiment._action = "resume"
        try:
            self._experiment.start(port, run_mode=RunMode.Detach)
        except Exception as error:
            text = " ".join(str(error).split())
            raise OSError(f"nni's server does not start: {text:.400}; logs: {self.logs}") from error
        self._process = self._experiment._proc  # leads a group, in which all others are
        # Reads until this process ends, even if it is killed, and then ends the group.
        words = ["sh", "-c", f"read line; kill -TERM -{self._process.pid}"]
        self._guard = subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True)

    def status(self) -> str:
        """nni's word for the state of the search; GONE without a server.

        It is "" without an answer, and without a trial, as when the tuner has failed.
        """
        from nni.experiment import rest

        if self._process.poll() is not None:
            return "GONE"
        try:
            status = str(self._experiment.get_status())
            found = {count["trialJobStatus"] for count in rest.get(self._port, "/job-statistics")}
            return status if status in ENDED or found & {"WAITING", "RUNNING"} else ""
        except Exception:  # of the packages that nni speaks through
            return ""

    def stop(self) -> None:
        """End the server, its tuner and its trials, and return when they are gone."""
        from nni.experiment import rest

        with suppress(Exception):  # it may be gone, or not answer
            rest.delete(self._port, "/experiment")
            self._process.wait(LEAVE)
        for number in (signal.SIGTERM, signal.SIGKILL):
            end = time.monotonic() + TERMINATE
            with suppress(ProcessLookupError):  # the group is gone
                os.killpg(self._process.pid, number)
                while time.monotonic() < end:
                    self._process.poll()  # or it would stay, as a zombie
                    os.killpg(self._process.pid, 0)
                    time.sleep(0.1)
        self._guard.kill()
        self._guard.communicate()


def run_experiment(
    path: Path,
    *,
    machines: str | None,
    port: int | None,
    each: Callable[[], object] = lambda: None,
    say: Say,
    known: str | None = None,
    keep: Callable[[str], object] = lambda experiment: None,
) -> None:
    """Run a written experiment, and return when it has ended.

    Args:
        path: its config.
        machines: as for ``experiment_files``; for messages.
        port: of nni's page; None takes a free one.
        each: called from time to time.
        say: told what happens.
        known: nni's id of the experiment, to resume one.
        keep: called with nni's id, once it has started.

    Raises:
        ValueError: the config or the port is wrong, or there is no nni.
        OSError: nni does not start, or fails; it and its trials are stopped.
        Interrupted: a signal came; nni and its trials are stopped.
    """
    config = read_config(path, machines)
    with StopSignals() as stop:
        server = Server(config, port := free_port(port), known)
        try:
            keep(server.id)
            say(f"nni: http://127.0.0.1:{port}, logs in {server.logs}")
            heard = time.monotonic()
            while stop.received is None:
                status = server.status()
                heard = time.monotonic() if status else heard
                if status == "DONE":
                    break
                if status in ("GONE", "ERROR") or time.monotonic() > heard + SILENCE:
                    raise OSError(
                        "nni's server or tuner has failed or was stopped; logs are in "
                        f"{server.logs}; the same command goes on with the runs that are left"
                    )
                each()
                time.sleep(PAUSE)
        finally:
            server.stop()
    if stop.received is not None:
        raise Interrupted(stop.received, "nni was stopped")
