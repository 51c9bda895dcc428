"""A trial's side of a search: parameters in, results out. Outside a search it does nothing.

``Engine`` is all that an engine of searches has to offer; nni's and Optuna's stand behind it.
"""

import ctypes
import math
import os
import reprlib
import signal
import sys
from typing import Any, Protocol

# Environment variables of the trials that eat search itself starts: what they are trials of, and
# the process that started them.
OPTUNA, PARENT = "EAT_OPTUNA_TRIAL", "EAT_OPTUNA_PARENT"

# The names in the authors' search space, and the options that they stand for.
ALIASES = {"batch_size": "optim.batch_size", "init_lr": "optim.lr"}

JOB = "job"  # the one parameter of a grid of jobs


class Engine(Protocol):
    """The engine of a search, as one of its trials meets it.

    Attributes:
        name: of the engine.
        folder: the run folder that it keeps for this trial.
    """

    name: str
    folder: str | None

    def parameters(self) -> Any:
        """What it drew for this trial, under the names of the search space."""

    def report(self, result: dict[str, float], *, final: bool) -> None:
        """Take an epoch's ``result``, or the trial's final one. It may have the trial stopped."""


def in_experiment() -> bool:
    """Whether this process is a trial of a search."""
    return "NNI_PLATFORM" in os.environ or OPTUNA in os.environ


def engine() -> Engine | None:
    """The engine that this process is a trial of; None outside a search."""
    if OPTUNA in os.environ:
        from eat.tuning.optuna_engine import optuna_trial

        return optuna_trial(os.environ[OPTUNA])
    if in_experiment():
        from eat.tuning.nni_engine import NniTrial

        return NniTrial()
    return None


def parameters() -> dict[str, Any]:
    """This trial's parameters under dotted option names; empty outside an experiment."""
    found = engine()
    return {} if found is None else options(found.parameters(), found.name)


def options(found: Any, engine: str = "nni") -> dict[str, Any]:
    """A trial's parameters as options.

    The authors' names are replaced, and 16.0, as quniform draws it, is made 16, which options that
    are integers take.

    Raises:
        ValueError: ``found`` is no mapping of names.
    """
    if not isinstance(found, dict) or not all(isinstance(name, str) and name for name in found):
        raise ValueError(
            f"{engine}'s parameters are {reprlib.repr(found)}: expected options by name; mend the "
            "search space"
        )
    integral = {n: int(v) for n, v in found.items() if isinstance(v, float) and v.is_integer()}
    drawn: dict[str, Any] = found | integral
    return {ALIASES.get(name, name): value for name, value in drawn.items()}


def job() -> str | None:
    """The name of the job that this trial carries out; None outside an experiment.

    Raises:
        ValueError: the search is over something else.
    """
    if not in_experiment():
        return None
    found = parameters()
    if found.keys() != {JOB}:
        raise ValueError(f"nni's parameters are {reprlib.repr(found)}: expected a {JOB} alone")
    return str(found[JOB])


def trial_folder() -> str | None:
    """The run folder that the engine keeps for this trial; None outside a search."""
    found = engine()
    return None if found is None else found.folder


def end_with_parent() -> None:
    """Have SIGTERM sent to this trial when the process that started it ends.

    nni interrupts the shell that runs a trial's command and kills it soon after, and a search that
    is killed itself interrupts nobody; a trial would live on and hold its folder and GPU. Linux
    alone has a way to ask for that.
    """
    if not in_experiment() or sys.platform != "linux":
        return
    parent = int(os.environ.get(PARENT, os.getppid()))
    set_parent_death_signal = 1
    ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, int(signal.SIGTERM))
    if os.getppid() != parent:  # it died meanwhile
        os.kill(os.getpid(), signal.SIGTERM)


def result(metrics: dict[str, float], metric: str) -> dict[str, float]:
    """Metrics as engines take them: the chosen one as ``default``, and no NaN, which JSON lacks."""
    known = {name: value for name, value in metrics.items() if math.isfinite(value)}
    return {"default": known.get(metric, -1.0)} | known


def report(metrics: dict[str, float], metric: str, *, final: bool) -> None:
    """Report one epoch's metrics, or the trial's final ones, of which ``metric`` is maximised.

    An undefined metric counts as -1, the worst correlation.
    """
    found = engine()
    if found is not None:
        found.report(result(metrics, metric), final=final)
