"""Tasks shared by the processes of a Ray cluster, in the place of those of one machine."""

import os
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from eat.bulk.cluster import ray_cluster
from eat.system.pool import MOST_PROCESSES, Pool, Result, Task
from eat.system.schema import check_range
from eat.system.words import brief

TRIES = 4  # of a task whose process dies, as those of a lost machine do


@contextmanager
def ray_pool(address: str | None, folders: Sequence[str]) -> Iterator[Pool]:
    """A pool on a Ray cluster, for the time of the context.

    Args:
        address: of the cluster; None starts Ray on this machine.
        folders: that each machine must see under the same paths, and not empty, as those of a disk
            that is not mounted are.

    Raises:
        ValueError: Ray is not installed.
        OSError: there is no cluster, or one of its machines lacks this package.
    """
    with ray_cluster(address) as cluster:

        def unordered(
            function: Callable[[Task], Result],
            tasks: Iterable[Task],
            workers: int | None,
            *,
            name: Callable[[Task], str],
        ) -> Iterator[Result]:
            import ray

            check_range("--workers", workers, 1, MOST_PROCESSES)
            count = workers or max(1, cluster.cores)
            call = ray.remote(num_cpus=1, max_retries=TRIES - 1)(_call)
            pending: dict[ray.ObjectRef, Task] = {}
            rest = iter(tasks)
            while True:
                for task in islice(rest, 2 * count - len(pending)):
                    pending[call.remote(function, task, os.getcwd(), folders)] = task
                if not pending:
                    return
                done, _ = ray.wait([*pending], num_returns=1)
                task = pending.pop(done[0])
                try:
                    yield ray.get(done[0])
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except ray.exceptions.RayError as error:
                    raise ChildProcessError(
                        f"{name(task)}: its process died {TRIES} times, perhaps for want of memory "
                        f"or by a file that crashes it ({brief(error)}); finished work is kept in "
                        "--out: run this again to go on"
                    ) from error

        yield unordered


def _call(
    function: Callable[[Task], Result], task: Task, folder: str, folders: Sequence[str]
) -> Result:
    """Call a function in a folder, with one thread, as the processes take all cores."""
    import torch

    torch.set_num_threads(1)
    needed = folder
    try:
        os.chdir(folder)  # the others may be relative to it
        for needed in folders:
            with os.scandir(needed) as entries:
                next(entries)  # and not a list of what may be millions
    except (OSError, StopIteration):
        raise OSError(
            f"{needed}: not on machine {platform.node()}: --engine ray needs the images and --out "
            "on a disk that all machines see, under the same paths"
        ) from None
    return function(task)
