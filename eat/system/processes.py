"""Distributed training over accelerate. With one process, all of this is plain calls."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar, cast

from eat.system.others import ARRIVAL, Others

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
_others: Others | None = None  # of this process, as torch.distributed has its group


def is_main() -> bool:
    """Whether this process writes and reports; known before ``init_distributed``."""
    return os.environ.get("RANK", "0") == "0"


def is_first_here() -> bool:
    """Whether this process speaks for those on its machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def world_size() -> int:
    """The number of processes of the run; known before ``init_distributed``."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def init_distributed(*, cpu: bool) -> None:
    """Connect to the other processes, on CPUs or on the devices that there are, unless connected.

    Raises:
        TrainingError: some have not come in time.
    """
    global _others
    if world_size() == 1:
        return
    import torch
    from accelerate import PartialState

    if torch.distributed.is_initialized():
        return
    limit = timedelta(seconds=ARRIVAL)
    store, rank, size = next(torch.distributed.rendezvous("env://", timeout=limit))
    _others = Others(store, rank, size)
    # torchrun's store outlives a restart, with the addresses of processes that have ended.
    store = torch.distributed.PrefixStore(_others.start, store)
    cpu = cpu or not torch.cuda.is_available()
    PartialState(cpu=cpu, store=store, rank=rank, world_size=size)


@contextmanager
def distributed(*, cpu: bool) -> Iterator[None]:
    """Within its context, this process is connected to the others, which learn how it ends."""
    try:
        init_distributed(cpu=cpu)
        yield
    except BaseException as error:
        if _others is not None:
            _others.leave(error)
        raise
    if _others is not None:
        import torch

        _others.leave(None)
        # The threads of a connection may outlive what they need, and abort the process.
        torch.distributed.destroy_process_group()


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
def watching_others(advice: str) -> Iterator[None]:
    """Within its context, end this process if another one of the run ends, on whatever machine.

    Args:
        advice: follows the name of that process in the message.
    """
    if _others is None:
        yield
        return
    _others.watch(advice)
    try:
        yield
    except BaseException as error:
        _others.stop(error)
        raise
    _others.stop()


def lives(pid: int) -> bool:
    """Whether a process of this machine has not ended."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True
