"""Spoilt files of every kind end in a result or in one of our errors. More: scripts/fuzz.py."""

import mmap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzzing import trial
from fuzzing.damage import Files
from fuzzing.kinds import KINDS
from hypothesis import HealthCheck, given, settings

EXAMPLES = {"states": 12, "configs": 15, "large": 2, "labels": 60, "images": 60, "enhanced": 25}


@pytest.mark.parametrize("kind", KINDS)
def test_spoilt_files_end_in_a_result_or_in_our_error(kind: str) -> None:
    subject = KINDS[kind]
    sound = subject.sound()
    assert trial.try_files(subject.read, sound) == ""  # and imports are done before the limits

    @settings(
        max_examples=EXAMPLES.get(kind, 40),
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(subject.inputs(sound))
    def attempt(files: Files) -> None:
        trial.try_files(subject.read, files)

    attempt()


def fill(size: int) -> None:
    """Use fresh memory, which no heap has kept from earlier tests."""
    with mmap.mmap(-1, size) as memory:
        for _ in range(size // 10**6):
            memory.write(bytes(10**6))


def test_what_takes_too_long_or_too_much_memory_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "SECONDS", 0.01)
    with pytest.raises(trial.LimitError, match="more than 0.01 s"):
        trial.outcome(lambda folder: time.sleep(60), tmp_path)
    monkeypatch.setattr(trial, "SECONDS", 20)
    monkeypatch.setattr(trial, "MEMORY", 10**8)
    if trial.CLEAR.exists():
        with pytest.raises(trial.LimitError, match="0.3 GB"):
            trial.outcome(lambda folder: fill(3 * 10**8), tmp_path)


def test_errors_that_are_not_for_users_fail(tmp_path: Path) -> None:
    def failing(error: Exception) -> Callable[[Path], None]:
        def read(folder: Path) -> None:
            raise error

        return read

    for error in (KeyError("x"), MemoryError(), RuntimeError("x")):
        with pytest.raises(type(error)):
            trial.outcome(failing(error), tmp_path)
    for text in ("of no file", f"{tmp_path}" + 4000 * " x", f"{tmp_path}: cannot allocate"):
        with pytest.raises(AssertionError):
            trial.outcome(failing(ValueError(text)), tmp_path)
    text = f"{tmp_path}: of this file"
    assert trial.outcome(failing(OSError(text)), tmp_path) == text
