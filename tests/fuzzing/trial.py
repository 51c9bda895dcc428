"""One spoilt input: what may come of it, within which time and memory."""

import logging
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from eat.cli.errors import one_message
from eat.system.stops import TrainingError
from fuzzing.damage import Files

SECONDS = 20
MEMORY = 1_450_000_000  # bytes beside the 0.55 GB of Python and PyTorch: 2 GB in all
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # of Linux


class LimitError(BaseException):
    """Too much time or memory; no handler of exceptions takes it."""


def _resident(name: str) -> int:
    """Resident memory in bytes: VmRSS is the present one, VmHWM the peak; 0 where unknown."""
    lines = STATUS.read_text().splitlines() if STATUS.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0)


@contextmanager
def limits() -> Iterator[None]:
    """Within its context, too much time or memory raises LimitError."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise LimitError(f"more than {SECONDS} s")

    if CLEAR.exists():
        CLEAR.write_text("5")  # the peak begins anew
    before = _resident("VmRSS")
    handler = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    taken = _resident("VmHWM") - before
    if taken > MEMORY:
        raise LimitError(f"{taken / 1e9:.1f} GB")


def write(files: Files, folder: Path) -> None:
    """Write files into a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def outcome(read: Callable[[Path], object], folder: Path) -> str:
    """Read a folder's files: "" for a result, or the message of one of our errors.

    Raises:
        AssertionError: the message is none for users.
        LimitError: it took too long, or too much memory.
        Exception: all that ``eat.cli.errors`` does not turn into a message.
    """
    logging.disable()
    try:
        with limits(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(folder)
            return ""
    except (ValueError, OSError, TrainingError) as error:
        message = one_message(error)
    finally:
        logging.disable(logging.NOTSET)
    assert str(folder) in message, f"names no file: {message}"
    assert len(message) < 3000 and "Traceback" not in message, message
    assert "allocate" not in message and "MemoryError" not in message, message
    return message


def try_files(read: Callable[[Path], object], files: Files) -> str:
    """``outcome`` of files in a folder of their own."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        write(files, Path(folder))
        return outcome(read, Path(folder))
