"""The bridge to nni: parameters in, results out. Outside an experiment it does nothing."""

import ctypes
import math
import os
import reprlib
import signal
import sys
from typing import Any

# The names in the authors' search space, and the options that they stand for.
ALIASES = {"batch_size": "optim.batch_size", "init_lr": "optim.lr"}

JOB = "job"  # the one parameter of a grid of jobs


def in_experiment() -> bool:
    """Whether this process is a trial of an nni experiment."""
    return "NNI_PLATFORM" in os.environ


def parameters() -> dict[str, Any]:
    """This trial's parameters under dotted option names; empty outside an experiment."""
    if not in_experiment():
        return {}
    import nni

    return options(nni.get_next_parameter())


def options(found: Any) -> dict[str, Any]:
    """A trial's parameters as options.

    The authors' names are replaced, and 16.0, as quniform draws it, is made 16, which options that
    are integers take.

    Raises:
        ValueError: ``found`` is no mapping of names.
    """
    if not isinstance(found, dict) or not all(isinstance(name, str) and name for name in found):
        raise ValueError(
            f"nni's parameters are {reprlib.repr(found)}: expected options by name; mend the "
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
    """The folder that nni keeps for this trial's output; None outside an experiment."""
    return os.environ.get("NNI_OUTPUT_DIR") if in_experiment() else None


def end_with_parent() -> None:
    """Have SIGTERM sent to this trial when the process that started it ends.

    nni interrupts the shell that runs a trial's command and kills it soon after, and when nni
    itself is killed it interrupts nobody; a trial would live on and hold its folder and GPU. Linux
    alone has a way to ask for that.
    """
    if not in_experiment() or sys.platform != "linux":
        return
    parent = os.getppid()
    set_parent_death_signal = 1
    ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, int(signal.SIGTERM))
    if os.getppid() != parent:  # it died meanwhile
        os.kill(os.getpid(), signal.SIGTERM)


def result(metrics: dict[str, float], metric: str) -> dict[str, float]:
    """Metrics as nni takes them: the chosen one as ``default``, and no NaN, which JSON lacks."""
    known = {name: value for name, value in metrics.items() if math.isfinite(value)}
    return {"default": known.get(metric, -1.0)} | known


def report(metrics: dict[str, float], metric: str, *, final: bool) -> None:
    """Report one epoch's metrics, or the trial's final ones, to nni, which maximises ``metric``.

    An undefined metric counts as -1, the worst correlation.
    """
    if not in_experiment():
        return
    import nni

    send = nni.report_final_result if final else nni.report_intermediate_result
    send(result(metrics, metric))
