"""Ray: one of our own for the time of a call, or a cluster that is there."""

import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from eat.system.cores import available_cores
from eat.system.stops import STOP_SIGNALS
from eat.system.words import brief
from eat.version import __version__

MB = 2**20
FOLDER, LOCK = "eat-ray-", "lock"  # our own Ray's folder, and the file in it that is locked
# Of our own Ray. Models on a CPU decode what they score: only shards' names and scores lie here.
STORE, STORE_WITH_GPUS = 256 * MB, 4096 * MB
BLOCK = 32 * MB  # of decoded pixels, that are handed from one process to another
PATIENCE = 120  # seconds in which a machine must answer
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # of what its daemons would print of each retry
}
OF_OWN = {
    "RAY_worker_niceness": "0",  # its processes have the priority of others
    # A heap for all threads. With one each, freed memory is of no use to the other threads, and a
    # model's process grew by a third over 50,000 images.
    "MALLOC_ARENA_MAX": "1",
}


class ClusterError(OSError):
    """Ray or one of its machines cannot do the work; the message says which and why."""


@dataclass(frozen=True)
class Cluster:
    """What Ray has.

    Attributes:
        cores: CPU cores of all machines.
        gpus: of all machines.
        smallest: cores of the machine that has the fewest, and the most that a process may ask for.
        is_own: True if Ray was started by this process, on this machine alone.
    """

    cores: int
    gpus: int
    smallest: int
    is_own: bool


@contextlib.contextmanager
def ray_cluster(address: str | None) -> Iterator[Cluster]:
    """Start Ray, or join one that is there, for the time of the context.

    Ray's own words on the terminal are kept to errors that would end the work.

    Args:
        address: of a cluster, such as 10.0.0.1:6379 or auto; None starts Ray on this machine, which
            ends with the context, or with this process however that ends.

    Raises:
        ValueError: Ray is not installed.
        ClusterError: there is no cluster at that address, or it has another version of Python, Ray
            or this package.
    """
    environment = ENVIRONMENT | (OF_OWN if address is None else {})
    os.environ |= {name: value for name, value in environment.items() if name not in os.environ}
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError(
            f"--engine ray: {brief(error)}: pip install 'eat-iaa[ray]=={__version__}'"
        ) from error
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    given: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        if address is None:
            _remove_left_folders()
            # Of a short name, as it holds sockets.
            made = tempfile.TemporaryDirectory(prefix=FOLDER, ignore_cleanup_errors=True)
            folder = stack.enter_context(made)
            stack.enter_context(filelock.FileLock(Path(folder, LOCK)))
            given |= {"address": "local", "include_dashboard": False, "num_cpus": available_cores()}
            given |= {"_temp_dir": folder}
            given |= {"object_store_memory": _store_memory()}
        else:
            given |= {"address": address}
        stack.callback(ray.shutdown)
        try:
            with _own_handlers(), _no_stderr():
                ray.init(**given)
        except (OSError, RuntimeError, ValueError) as error:
            where = f"no Ray cluster at {address}" if address else "Ray could not be started"
            raise ClusterError(f"{where}: {brief(error)}") from error
        _check_machines(ray)
        _be_quiet(ray.data.DataContext.get_current())
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cores = [int(machine["CPU"]) for machine in machines if machine.get("CPU", 0) >= 1]
        if not cores:
            raise ClusterError("Ray has no CPU core: start a machine of the cluster with some")
        gpus = int(sum(machine.get("GPU", 0) for machine in machines))
        yield Cluster(sum(cores), gpus, min(cores), address is None)


def _remove_left_folders() -> None:
    """Remove folders of our own Ray whose process was killed, and so holds its lock no more."""
    for lock in Path(tempfile.gettempdir()).glob(f"{FOLDER}*/{LOCK}"):
        with contextlib.suppress(filelock.Timeout, OSError), filelock.FileLock(lock, timeout=0):
            shutil.rmtree(lock.parent, ignore_errors=True)


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Close the terminal to Ray's libraries, which greet it; what fails is an exception."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextlib.contextmanager
def _own_handlers() -> Iterator[None]:
    """Keep the handlers of signals that are there; Ray sets its own."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    if threading.current_thread() is threading.main_thread():
        for number, handler in before.items():
            signal.signal(number, handler)


def _store_memory() -> int:
    import torch

    return STORE_WITH_GPUS if torch.cuda.is_available() else STORE


def _be_quiet(context: Any) -> None:
    """Settings of Ray Data."""
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = BLOCK
    # What a process that dies again and again took with it is named, and the rest is done.
    context.max_errored_blocks = -1
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


def _check_machines(ray: Any) -> None:
    """Refuse a cluster with a machine that lacks this package, or has another version of it."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def version() -> str:
        from eat.version import __version__

        return __version__

    task = ray.remote(num_cpus=0, max_retries=0)(version)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    asked = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], False))
        for node in nodes
    ]
    for node, answer in zip(nodes, [one.remote() for one in asked], strict=True):
        name = node["NodeManagerAddress"]
        install = f"pip install 'eat-iaa[ray]=={__version__}' there"
        try:
            found = ray.get(answer, timeout=PATIENCE)
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            raise ClusterError(f"machine {name}: {brief(cause)}: {install}") from error
        if found != __version__:
            raise ClusterError(f"machine {name}: has eat-iaa {found}: {install}")
