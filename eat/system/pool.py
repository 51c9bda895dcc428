"""Work shared out among processes, any of which may be killed from outside."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

Task = TypeVar("Task")
Result = TypeVar("Result")
PATIENCE = 5  # seconds without a result before looking for killed processes


def unordered(
    function: Callable[[Task], Result], tasks: Iterable[Task], workers: int | None
) -> Iterator[Result]:
    """What a function makes of each task, as it comes.

    Args:
        function: at the top of a module, as it travels to the processes.
        tasks: its arguments.
        workers: processes; None takes one a core.

    Raises:
        ChildProcessError: a process was killed. A pool would wait for ever for its results.
    """
    # One thread each: the processes take all cores already.
    with multiprocessing.Pool(workers, torch.set_num_threads, (1,)) as pool:
        processes = {child.pid for child in multiprocessing.active_children()}
        results = pool.imap_unordered(function, tasks)
        while True:
            try:
                yield results.next(timeout=PATIENCE)
            except StopIteration:
                return
            except multiprocessing.TimeoutError:
                if processes != {child.pid for child in multiprocessing.active_children()}:
                    raise ChildProcessError(
                        "a working process was killed, perhaps for want of memory; run this again "
                        "to go on, with fewer --workers"
                    ) from None
