"""Hosts on one machine: they reach each other alone, and die as hosts do."""

import sys
import time

import psutil
import pytest
from hosts import hosts, ip

SERVE = "import http.server as s; s.test(s.SimpleHTTPRequestHandler, bind='{}', port=8000)"
ASK = "import socket; print(socket.create_connection(('{}', 8000), timeout=1).getpeername()[0])"
SLEEP = "import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"


def python(code: str, address: str = "") -> list[str]:
    return [sys.executable, "-c", code.format(address)]


def test_hosts_reach_each_other_and_nothing_else_does() -> None:
    with hosts(2) as (first, second), hosts(2) as (_, other):
        server = first.start(python(SERVE, first.address))
        for attempt in range(100):  # until it listens
            try:
                assert first.address in second.run(python(ASK, first.address), timeout=10)
                break
            except AssertionError:
                if attempt == 99:
                    raise
                time.sleep(0.05)
        with pytest.raises(AssertionError, match="Error"):
            other.run(python(ASK, first.address), timeout=10)
        assert server.poll() is None
    assert server.wait(timeout=10) and not psutil.pid_exists(server.pid)
    assert not [name for name in (first.name, other.name) if name in ip("netns", "list")]


def test_a_dead_host_has_no_process_and_no_network() -> None:
    with hosts(2) as (first, second):
        parent = first.start(python(SLEEP))
        while len(first.pids()) < 2:
            time.sleep(0.01)
        server = first.start(python(SERVE, first.address))
        first.die()
        assert (parent.wait(timeout=10), server.wait(timeout=10)) == (-9, -9)
        assert first.pids() == []
        with pytest.raises(AssertionError, match="rror"):
            second.run(python(ASK, first.address), timeout=10)
