"""Distributed training over accelerate. With one process, all of this is plain calls."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


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
