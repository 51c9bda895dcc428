"""Several hosts on one machine: network namespaces of Linux, joined by a switch.

    with hosts(2) as (first, second):
        server = first.start(["python", "-m", "http.server", "--bind", first.address])
        second.run(["curl", f"http://{first.address}:8000"], timeout=5)
        first.die()  # the network is gone at once, then each process; peers see silence

Hosts share disks, memory and process ids, and nothing of the network: a loopback each, "eth0" with
10.0.0.1, 10.0.0.2, ..., and no way out. What binds to 127.0.0.1 is not seen by the other (torchrun:
``--master_addr first.address`` or ``--rdzv_endpoint``, and GLOO_SOCKET_IFNAME=eth0). Each ``hosts``
is a network of its own, so that tests at one time do not meet. At the end of the context every
process in them is killed, and nothing is left. It needs root and iproute2: a test is skipped where
they are missing.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

PREFIX = "eat"  # of namespaces: eat-PID-NAME


def ip(*arguments: str) -> str:
    """Call iproute2.

    Raises:
        OSError: it is not installed, or refuses.
    """
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


@dataclass(frozen=True)
class Host:
    """A network namespace with one address."""

    name: str
    address: str

    def start(
        self, command: Sequence[str], env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Start a command on this host, in a process group of its own.

        Args:
            command: and its arguments.
            env: variables over those of this process.
            options: of ``subprocess.Popen``; texts are text.
        """
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name, *command],
            env=os.environ | dict(env or {}),
            start_new_session=True,
            **{"text": True} | options,
        )

    def run(
        self, command: Sequence[str], timeout: float, env: Mapping[str, str] | None = None
    ) -> str:
        """Run a command on this host to its end, which gives what it printed.

        Raises:
            AssertionError: with what it printed; its exit code is not 0, or the time is over.
        """
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = self.start(command, env, **pipes)
        try:
            printed, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            printed, _ = process.communicate()
            raise AssertionError(f"{command}: still running after {timeout} s\n{printed}") from None
        assert process.returncode == 0, f"{command}: {process.returncode}\n{printed}"
        return printed

    def pids(self) -> list[int]:
        """The processes on this host."""
        return [int(pid) for pid in ip("netns", "pids", self.name).split()]

    def kill(self) -> None:
        """Kill every process on this host, to the last; the network tells their peers."""
        while pids := [pid for pid in self.pids() if _runs(pid)]:
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.01)

    def die(self) -> None:
        """Cut the network, then kill every process: no peer is told anything, as by a dead host."""
        ip("-n", self.name, "link", "set", "eth0", "down")
        self.kill()


@contextmanager
def hosts(count: int = 2) -> Iterator[list[Host]]:
    """Make hosts that reach each other; skips the test where that cannot be done."""
    made = f"{PREFIX}-{os.getpid()}-{time.monotonic_ns()}"
    found = [Host(f"{made}-{n}", f"10.0.0.{n}") for n in range(1, count + 1)]
    switch = Host(f"{made}-switch", "")
    try:
        _remove_forgotten()
        ip("netns", "add", switch.name)
    except OSError as error:
        pytest.skip(f"hosts on one machine need root and iproute2: {error}")
    try:
        ip("-n", switch.name, "link", "add", "bridge", "type", "bridge")
        ip("-n", switch.name, "link", "set", "bridge", "up")
        for number, host in enumerate(found):
            ip("netns", "add", host.name)
            port = ["link", "add", f"port{number}", "type", "veth", "peer", "name", "eth0"]
            ip("-n", switch.name, *port, "netns", host.name)
            ip("-n", switch.name, "link", "set", f"port{number}", "master", "bridge", "up")
            ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                ip("-n", host.name, "link", "set", link, "up")
        yield found
    finally:
        _remove(made)


def _names() -> list[str]:
    return [line.split()[0] for line in ip("netns", "list").splitlines()]


def _remove(prefix: str) -> None:
    """Kill and remove what has names that begin so."""
    for name in _names():
        if name.startswith(f"{prefix}-"):
            Host(name, "").kill()
            ip("netns", "delete", name)


def _remove_forgotten() -> None:
    """Remove what killed test processes left."""
    for name in _names():
        prefix, _, rest = name.partition("-")
        pid = rest.partition("-")[0]
        if prefix == PREFIX and pid.isdigit() and not psutil.pid_exists(int(pid)):
            _remove(f"{PREFIX}-{pid}")


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
