"""Signals and errors that end work early."""

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and where."""


class Interrupted(Exception):
    """A run was stopped by a signal after so many epochs and batches, and has saved its state."""

    def __init__(self, number: int, folder: Path, epoch: int, batch: int) -> None:
        self.exit_code = 128 + number
        super().__init__(
            f"stopped by {signal.Signals(number).name} after epoch {epoch}, batch {batch}; the "
            f"state is saved: continue with --run.folder {folder} --run.resume auto"
        )


class StopSignals:
    """Within its context, STOP_SIGNALS are remembered instead of ending the process.

    Outside the main thread, which alone gets signals, it does nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._at_once = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._before = {n: signal.signal(n, self._remember) for n in STOP_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if self._at_once:
            raise KeyboardInterrupt

    def raise_at_once(self) -> None:
        """From now on, raise KeyboardInterrupt at a signal; also now, if there was one."""
        self._at_once = True
        if self.received is not None:
            raise KeyboardInterrupt

    def flags(self) -> list[float]:
        """For each of STOP_SIGNALS, 1 if it was the last one received, else 0."""
        return [float(number == self.received) for number in STOP_SIGNALS]


def interruptible(items: Iterable[T]) -> Iterator[T]:
    """Yield the items, with Ctrl-C (SIGINT) raised between them; the second time at once.

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


def exit_with_signal(code: int) -> None:
    """End the process by the signal that an exit code stands for, if it stands for one.

    The sender of the signal then sees that it was obeyed: nni counts such a trial as cancelled, and
    one with an exit code as failed.
    """
    if code > 128:
        sys.stdout.flush()
        signal.signal(code - 128, signal.SIG_DFL)
        os.kill(os.getpid(), code - 128)
