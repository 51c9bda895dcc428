"""Signals and errors that end work early."""

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
USUAL_HANDLERS = (signal.SIG_DFL, signal.default_int_handler)


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and where."""


class Interrupted(Exception):
    """Work was stopped by a signal and kept; the message says what was done and how to go on."""

    def __init__(self, number: int, done: str) -> None:
        self.exit_code = 128 + number
        super().__init__(f"stopped by {signal.Signals(number).name} after {done}")


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
    """Yield the items, with a stop signal raised between them as KeyboardInterrupt(number).

    The second one is raised at once. Raised anywhere, it may strike where a thread pool has just
    taken a lock, which nobody would ever give back. A signal that is ignored or handled stays so.
    """
    usual = {n: h for n in STOP_SIGNALS if (h := signal.getsignal(n)) in USUAL_HANDLERS}
    if threading.current_thread() is not threading.main_thread():  # which alone gets signals
        usual = {}
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt(number)

    for number in usual:
        signal.signal(number, remember)
    try:
        for item in items:
            yield item
            if received:
                raise KeyboardInterrupt(received[0])
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def number_of(stop: KeyboardInterrupt) -> int:
    """The number of the signal that raised it; that of Python's own is SIGINT."""
    return int((stop.args or (signal.SIGINT,))[0])


def exit_with_signal(code: int) -> None:
    """End the process by the signal that an exit code stands for, if it stands for one.

    The sender of the signal then sees that it was obeyed: nni counts such a trial as cancelled, and
    one with an exit code as failed.
    """
    if code > 128:
        sys.stdout.flush()
        signal.signal(code - 128, signal.SIG_DFL)
        os.kill(os.getpid(), code - 128)
