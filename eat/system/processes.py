"""Several processes that train together, over accelerate. With one, all of this is plain calls."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


def is_main() -> bool:
    """Whether this is the process that writes and reports; known before the others are met."""
    return os.environ.get("RANK", "0") == "0"


def count() -> int:
    """How many processes train together; known before they meet."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def meet(*, cpu: bool) -> None:
    """Meet the other processes, on CPUs or on whatever there is."""
    from accelerate import PartialState

    PartialState(cpu=cpu)


def from_main(function: Callable[[], T]) -> T:
    """Call a function in the main process alone; all get what it returns, or raises."""
    if count() == 1:
        return function()
    from accelerate.utils import broadcast_object_list

    answer: list = [None]
    if is_main():
        try:
            answer = [(function(), None)]
        except Exception as error:
            answer = [(None, error)]
    broadcast_object_list(answer)
    value, error = answer[0]
    if error is not None:
        raise error
    return value


def summed(values: "Tensor") -> "Tensor":
    """A tensor's sum over the processes, in place."""
    if count() > 1:
        import torch

        torch.distributed.all_reduce(values)
    return values
