"""Work shared by processes, any of which may be killed from outside."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Protocol, TypeVar

import torch

from eat.system.schema import check_range

MOST_PROCESSES = 1024
Task = TypeVar("Task")
Result = TypeVar("Result")


class Pool(Protocol):
    """Whoever calls a function of many tasks as ``unordered`` does."""

    def __call__(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        workers: int | None,
        *,
        name: Callable[[Task], str],
    ) -> Iterator[Result]:
        """Yield the results as they come."""


def unordered(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    workers: int | None,
    *,
    name: Callable[[Task], str],
    start: str | None = None,
    option: str = "--workers",
) -> Iterator[Result]:
    """Results of a function of each task, as they come.

    At most two tasks for each process are submitted, so memory does not grow with their number.

    Args:
        function: at the top of a module, because it is sent to the processes by name.
        tasks: its arguments.
        workers: processes, of one thread each; None takes one a core.
        name: of a task, for messages.
        start: how processes start, as ``multiprocessing`` calls it; None takes its default.
        option: that sets ``workers``, for messages.

    Raises:
        ValueError: ``workers`` is out of range.
        ChildProcessError: a process died; the message names the tasks under way. Finished results
            come first.
    """
    count = os.cpu_count() or 1 if workers is None else workers
    check_range(option, count, 1, MOST_PROCESSES)
    pool = ProcessPoolExecutor(count, multiprocessing.get_context(start), _start_worker)
    pending: dict[Future[Result], Task] = {}
    rest = iter(tasks)
    try:
        while True:
            for task in islice(rest, 2 * count - len(pending)):
                pending[pool.submit(function, task)] = task
            if not pending:
                break
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                yield future.result()
                del pending[future]
    except BrokenProcessPool:
        lost = [future for future in wait(pending).done if future.exception()]
        for future in pending.keys() - lost:
            yield future.result()
        # Tasks start in the order of their submission.
        at_work = [name(task) for future, task in pending.items() if future in lost][:count]
        raise ChildProcessError(
            "a process died, perhaps for want of memory or by a file that crashes it; under way "
            f"were {', '.join(at_work) or 'no tasks'}; finished work is kept in --out: run this "
            f"again to go on, with fewer {option}"
        ) from None
    except BaseException:  # nobody waits for what is under way
        _terminate(pool)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Prepare a process: one thread, as the processes take all cores; ends with the main one.

    Ctrl-C reaches the process group, and the main process handles it. When that is killed, a
    waiting worker would stay for ever.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _terminate(pool: ProcessPoolExecutor) -> None:
    """End a pool's processes without waiting for their tasks (terminate_workers of Python 3.14)."""
    for process in list((pool._processes or {}).values()):
        process.terminate()
