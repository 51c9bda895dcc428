"""Distributed training over accelerate. With one process, all of this is plain calls."""

import os
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar, cast

from eat.system.stops import TrainingError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
POLL, GRACE = 0.1, 5.0  # seconds between two looks at other processes, and for one to be missed


def is_main() -> bool:
    """Whether this process writes and reports; known before ``init_distributed``."""
    return os.environ.get("RANK", "0") == "0"


def world_size() -> int:
    """The number of processes of the run; known before ``init_distributed``."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def init_distributed(*, cpu: bool) -> None:
    """Connect to the other processes, on CPUs or on the devices that there are."""
    from accelerate import PartialState

    PartialState(cpu=cpu)


def from_main(function: Callable[[], T]) -> T:
    """Call a function in the main process; all processes return, or raise, what it does."""
    if world_size() == 1:
        return function()
    from accelerate.utils import broadcast_object_list

    answer: list[tuple[T | None, Exception | None]] = [(None, None)]
    if is_main():
        try:
            answer = [(function(), None)]
        except Exception as error:
            answer = [(None, error)]
    broadcast_object_list(answer)
    value, raised = answer[0]
    if raised is not None:
        raise raised
    return cast(T, value)


def summed(values: "Tensor") -> "Tensor":
    """Sum a tensor over the processes, in place."""
    if world_size() > 1:
        import torch

        torch.distributed.all_reduce(values)
    return values


@contextmanager
def watching_others(tell: Callable[[int, int], None]) -> Iterator[None]:
    """Within its context, end this process if another one of the run ends on this machine.

    A collective would fail without its name, or on GPUs wait for it without end.

    Args:
        tell: called with that process's rank and id, in the lowest rank that is left here.
    """
    if world_size() == 1:
        yield
        return
    from accelerate.utils import gather_object

    node, own = platform.node(), int(os.environ["RANK"])
    others = {rank: pid for rank, host, pid in gather_object([(own, node, os.getpid())])
              if host == node and rank != own}  # fmt: skip
    over = threading.Event()

    def watch() -> None:
        while not over.wait(POLL):
            ended = [rank for rank, pid in others.items() if not _lives(pid)]
            if ended:
                if own < min(others.keys() - set(ended), default=own + 1):
                    tell(ended[0], others[ended[0]])
                os._exit(1)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, TrainingError):
            thread.join(GRACE)  # a collective fails at once, before the system reports the end
        raise
    finally:
        over.set()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
