"""Processes of a run, on one host and two, which end when one of them does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hosts import hosts

# Tells when it is connected, then waits as in a collective of GPUs: without an error.
PROCESS = """
import logging, sys, threading, time
from pathlib import Path
from eat.system import others
others.SILENCE, others.GRACE = 4, 1
logging.basicConfig(format="%(message)s")
place, rank, size, fate = sys.argv[1:]

class Store:  # as torchrun's, it outlives a start
    def set(self, key, value):
        new = Path(place + rank)
        new.write_text(value)
        new.rename(place)
    def get(self, key):
        return Path(place).read_bytes()

found = others.Others(Store(), int(rank), int(size))
print(found.start, flush=True)
if fate == "later":
    time.sleep(0.5)
found.watch("; go on so")
if fate in ("wait", "later"):
    threading.Event().wait(60)
found.leave(ValueError("no image 7") if fate == "fail" else None)
"""
PIPES: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}


def process(store: Path, rank: int, size: int, fate: str = "wait") -> list[str]:
    return [sys.executable, "-c", PROCESS, str(store), str(rank), str(size), fate]


def start(store: Path, *fates: str) -> list[subprocess.Popen[str]]:
    """Processes on this machine, one for each fate; they are connected."""
    started = [
        subprocess.Popen(
            process(store, rank, len(fates), fate),
            env=os.environ | {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1"},
            **PIPES,
        )
        for rank, fate in enumerate(fates)
    ]
    assert len({each.stdout.readline() for each in started if each.stdout}) == 1
    return started


def end(started: subprocess.Popen[str]) -> tuple[str, int]:
    """What a process prints until its end, and its exit code."""
    printed, _ = started.communicate(timeout=60)
    return printed, started.returncode


@pytest.mark.parametrize("killed, teller", [(2, 0), (0, 1)])
def test_a_killed_process_is_named_once_and_all_end(
    killed: int, teller: int, tmp_path: Path
) -> None:
    for _ in range(2):  # the second start finds in the store what the first has left
        started = start(tmp_path / "store", "wait", "wait", "wait")
        started[killed].send_signal(signal.SIGKILL)
        printed = [end(each) for each in started]
        assert [code for _, code in printed].count(1) == 2
        told = f"the run ends: rank {killed} (process {started[killed].pid} on "
        assert printed[teller][0].startswith(told)
        assert printed[teller][0].endswith(") was killed or has failed; go on so\n")
        assert [text for text, _ in printed].count("") == 2


def test_a_process_that_fails_tells_why(tmp_path: Path) -> None:
    main, other = start(tmp_path / "store", "wait", "fail")
    printed, code = end(main)
    assert code == 1 and end(other) == ("", 0)
    assert f"rank 1 (process {other.pid} on " in printed
    assert printed.endswith(") has failed: no image 7; go on so\n")


def test_an_end_that_an_earlier_watch_has_heard_is_not_forgotten(tmp_path: Path) -> None:
    main, other, killed = start(tmp_path / "store", "wait", "later", "wait")
    time.sleep(0.2)  # the main one listens for the second time, the other one for the first
    killed.kill()
    printed, code = end(main)
    assert code == 1 and f"the run ends: rank 2 (process {killed.pid} on " in printed
    assert printed.endswith("; go on so\n") and end(other) == ("", 1)


def test_a_process_that_has_done_its_part_ends_nobody(tmp_path: Path) -> None:
    main, waiting, done = start(tmp_path / "store", "wait", "wait", "leave")
    assert end(done) == ("", 0)
    with pytest.raises(subprocess.TimeoutExpired):
        main.wait(1.5)
    main.kill()
    assert end(waiting)[1] == 1


@pytest.mark.parametrize("dead", [0, 1])
def test_a_host_that_falls_silent_is_named_by_the_other(dead: int, tmp_path: Path) -> None:
    with hosts(2) as pair:
        started = [
            host.start(
                process(tmp_path / "store", rank, 2),
                {"LOCAL_RANK": "0", "MASTER_ADDR": pair[0].address},
                **PIPES,
            )
            for rank, host in enumerate(pair)
        ]
        assert len({each.stdout.readline() for each in started if each.stdout}) == 1
        pair[dead].die()
        printed, code = end(started[1 - dead])
    assert code == 1 and f"the run ends: rank {dead} (process " in printed
    assert printed.endswith(") cannot be reached any more; go on so\n")
