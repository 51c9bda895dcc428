"""The pool of processes: all results, few tasks at a time, and no silence when a process dies."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from eat.system.pool import unordered


def square(number: int) -> int:
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number * number


def kill_oneself(number: int) -> int:
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@dataclass
class Wait:
    """A task that writes a note and waits for another file."""

    until: Path
    note: Path | None = None


def wait_for_file(task: Wait) -> int:
    if task.note:
        task.note.touch()
    while not task.until.exists():
        time.sleep(0.01)
    return os.getpid()


def test_every_task_has_its_result() -> None:
    results = unordered(square, range(20), 2, name=str)
    assert sorted(results) == [n * n for n in range(20)]


def test_few_tasks_are_drawn_before_their_results_are_taken() -> None:
    drawn: list[int] = []

    def tasks() -> Iterator[int]:
        for number in range(1000):
            drawn.append(number)
            yield number

    for count, _ in enumerate(unordered(square, tasks(), 2, name=str)):
        assert len(drawn) <= count + 4


def test_an_error_of_a_task_is_raised_and_ends_the_processes() -> None:
    with pytest.raises(ValueError, match="-1 is negative"):
        list(unordered(square, [1, 2, -1, 3], 2, name=str))
    assert not multiprocessing.active_children()


def test_a_killed_busy_process_names_its_work_after_what_is_finished() -> None:
    results = []
    expected = (
        "died, .* were .*task 5.*; finished work is kept in --out: run this again .* --processes"
    )
    with pytest.raises(ChildProcessError, match=expected):
        for result in unordered(
            kill_oneself, range(9), 1, name=lambda n: f"task {n}", option="--processes"
        ):
            results.append(result)
    assert sorted(results) == [0, 1, 2, 3, 4]
    assert not multiprocessing.active_children()


def test_a_killed_idle_process_is_an_error_that_names_what_others_do(tmp_path: Path) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"
    tasks = [Wait(until=started), Wait(until=gate, note=started)]  # by two processes at once
    results = unordered(wait_for_file, tasks, 2, name=lambda task: task.until.name)
    os.kill(next(results), signal.SIGKILL)
    with pytest.raises(
        ChildProcessError, match="under way were gate; finished work is kept in --out"
    ):
        next(results)


def test_a_number_of_processes_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="--workers is 0: expected 1 to 1024"):
        list(unordered(square, [1], 0, name=str))
