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


def from_main(function: Callable[[], T]) -> T:
    """Call a function in the main process alone; all get what it returns, or raises."""
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    state = PartialState()
    if state.num_processes == 1:
        return function()
    answer: list = [None]
    if state.is_main_process:
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
    import torch
    from accelerate import PartialState

    if PartialState().num_processes > 1:
        torch.distributed.all_reduce(values)
    return values
