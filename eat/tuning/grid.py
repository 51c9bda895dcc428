"""Jobs as the trials of an nni experiment, one each."""

from collections.abc import Callable, Sequence
from pathlib import Path

from eat.tuning.nni_engine import Say, experiment_files, run_experiment, write_experiment
from eat.tuning.trial import JOB


def write_grid(
    folder: Path, name: str, jobs: Sequence[str], words: Sequence[str], machines: str | None
) -> Path:
    """Write jobs as an experiment of nni into a folder; return its config.

    Args:
        jobs: names of the jobs; trials get one each.
        words, machines: as for ``experiment_files``. Nothing that ends trials early is taken.

    Raises:
        ValueError: ``machines`` is no config of nni.
    """
    space = {JOB: {"_type": "choice", "_value": [*jobs]}}
    grid = {"tuner": {"name": "GridSearch"}}
    return write_experiment(
        folder,
        experiment_files(name, space, words, trials=len(jobs), algorithms=grid, machines=machines),
    )


def search(
    name: str,
    jobs: Sequence[str],
    words: Sequence[str],
    folder: Path,
    *,
    machines: str | None,
    port: int | None,
    each: Callable[[], object],
    say: Say,
) -> None:
    """Carry out jobs as trials of an nni experiment, and return when it has ended.

    Args:
        name: of the experiment.
        jobs, words, folder, machines: as for ``write_grid``.
        port, each, say: as for ``run_experiment``, with its errors.
    """
    path = write_grid(folder, name, jobs, words, machines)
    run_experiment(path, machines=machines, port=port, each=each, say=say)
