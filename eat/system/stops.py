"""Why work may end early, and how."""

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and where."""


class Interrupted(Exception):
    """A run was told to stop by a signal, and has saved its state.

    Args:
        number: the signal's.
        folder: the run's.
        epoch: finished epochs.
        batch: finished batches of the next one.
    """

    def __init__(self, number: int, folder: Path, epoch: int, batch: int) -> None:
        self.exit_code = 128 + number
        super().__init__(
            f"stopped by {signal.Signals(number).name} after epoch {epoch}, batch {batch}; the "
            f"state is saved: continue with --run.folder {folder} --run.resume auto"
        )


def interruptible(items: Iterable[T]) -> Iterator[T]:
    """The items, with Ctrl-C (SIGINT) raised between them; the second time at once.

    Raised anywhere, it may strike where a thread pool has just taken a lock, which nobody would
    ever give back.
    """
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():
        yield from items
        return
    asked = False

    def remember(*_: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    signal.signal(signal.SIGINT, remember)
    try:
        for item in items:
            yield item
            if asked:
                raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def leave(code: int) -> NoReturn:
    """End the process with an exit code; if a signal stopped it, by that signal.

    Whoever sent the signal then sees that it was heeded; nni counts such a trial as cancelled, and
    one with an exit code as failed.
    """
    if code > 128:
        sys.stdout.flush()
        signal.signal(code - 128, signal.SIG_DFL)
        os.kill(os.getpid(), code - 128)
    sys.exit(code)
