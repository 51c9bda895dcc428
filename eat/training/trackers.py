"""Trackers of runs: accelerate's classes, in runs that are killed and continued."""

import json
import logging
import os
import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate.tracking import MLflowTracker, WandBTracker, get_available_trackers

from eat.config import TrainConfig
from eat.system.files import json_object, write_atomically
from eat.system.schema import typed

log = logging.getLogger("eat")
PROJECT = "eat"  # MLflow calls it an experiment
Scalars = dict[str, float]


class MLflow(MLflowTracker):
    """MLflow, into ``mlruns`` in the run's folder where its environment names no other place."""

    package = "mlflow-skinny"

    def __init__(self, folder: Path, run: str | None) -> None:
        super().__init__(PROJECT, run_id=run, run_name=folder.resolve().name)
        self.default = folder / "mlruns"
        self.is_default = False

    def start(self) -> None:
        """Begin or continue MLflow's run."""
        import mlflow

        self.is_default = not mlflow.is_tracking_uri_set()
        if self.is_default:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # 3.x refuses folders else
            mlflow.set_tracking_uri(self.default)
        mlflow.set_experiment(self.experiment_name)  # trials that start at once may both make it
        super().start()

    @property
    def id(self) -> str:
        """MLflow's name of the run."""
        return str(self.tracker.info.run_id)

    @property
    def epochs(self) -> int:
        """The number of epochs that the run has already."""
        return int(self.tracker.data.metrics.get("train/epoch", 0))

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Log the options once: MLflow lets nobody change them."""
        if not self.tracker.data.params:
            super().store_init_configuration(values)

    def finish(self, code: int = 0) -> None:
        """End MLflow's run with the state that an exit code stands for."""
        import mlflow

        try:
            mlflow.end_run("FINISHED" if code == 0 else "KILLED" if code > 128 else "FAILED")
        finally:
            if self.is_default:  # the next run of this process has a folder of its own
                mlflow.set_tracking_uri(None)


class WandB(WandBTracker):
    """Weights & Biases, its files in ``wandb`` in the run's folder unless WANDB_DIR is set."""

    package = "wandb"

    def __init__(self, folder: Path, run: str | None) -> None:
        options = {} if "WANDB_DIR" in os.environ else {"dir": str(folder)}
        project, name = os.environ.get("WANDB_PROJECT", PROJECT), folder.resolve().name
        super().__init__(project, name=name, id=run, resume="allow", **options)

    @property
    def id(self) -> str:
        """Weights & Biases' name of the run."""
        return str(self.tracker.id)

    @property
    def epochs(self) -> int:
        """The number of epochs that the server has; offline, each start begins a file anew."""
        return int(self.tracker.starting_step) - 1

    def finish(self, code: int = 0) -> None:
        """End the run with an exit code."""
        self.tracker.finish(exit_code=code)


TRACKERS: dict[str, Any] = {"mlflow": MLflow, "wandb": WandB}


def names_of(config: TrainConfig) -> list[str]:
    """The trackers of a run, each once."""
    found = config.run.trackers
    return list(dict.fromkeys([found] if isinstance(found, str) else found))


def check_trackers(config: TrainConfig) -> None:
    """Refuse trackers that are unknown or not installed.

    Raises:
        ValueError: naming those known, or the command that installs one.
    """
    for name in names_of(config):
        if name not in TRACKERS:
            found = reprlib.repr(name)
            raise ValueError(f"run.trackers is {found}: expected some of {', '.join(TRACKERS)}")
        if name not in map(str, get_available_trackers()):
            raise ValueError(
                f"run.trackers is {name}, which is not installed: pip install "
                f"{TRACKERS[name].package} (or 'eat-iaa[trackers]')"
            )


def flat(options: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options under dotted names."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        found |= (
            flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
    return found


class Trackers:
    """The trackers of a run. One that fails is warned of once, and gets no more from this start.

    Each gets those of the finished ``epochs`` that it lacks. An epoch that it has is not sent
    again, although a run that was killed may have to compute it again.

    Args:
        config: the run's options, which the trackers get too.
        folder: the run's; its ``trackers.json`` keeps the trackers' ids of the run.
        epochs: what is logged of each finished epoch, by its number.

    Raises:
        ValueError: a tracker of a new run cannot start, or ``trackers.json`` is damaged.
    """

    def __init__(self, config: TrainConfig, folder: Path, epochs: dict[int, Scalars]) -> None:
        self.trackers: dict[str, Any] = {}
        self.failed: set[str] = set()
        self.file = folder / "trackers.json"
        ids, options = self._read_ids(), flat(config.to_dict())
        for name in names_of(config):
            tracker = self.trackers[name] = TRACKERS[name](folder, ids.get(name))
            try:
                tracker.start()
                tracker.store_init_configuration(options)
                ids[name] = tracker.id
                write_atomically(self.file, json.dumps(ids).encode())
            except Exception as error:
                if not epochs:
                    self.failed.add(name)
                    self.finish(1)
                    raise ValueError(
                        f"run.trackers: {name} cannot start ({error!s:.800}); mend that, or leave "
                        f"it out, and continue with --run.folder {folder} --run.resume auto"
                    ) from error
                self._leave_out(name, error)
        for epoch, scalars in epochs.items():
            self.log(scalars, epoch)

    def _read_ids(self) -> dict[str, str]:
        try:
            found = json_object(self.file.read_text()) if self.file.exists() else {}
            return typed(dict[str, str], found, "ids")
        except ValueError as error:
            raise ValueError(
                f"{self.file}: damaged ({error}): remove it, and the trackers begin new runs"
            ) from error

    def log(self, scalars: Scalars, epoch: int) -> None:
        """Log an epoch."""

        def send(tracker: Any) -> None:
            if epoch > tracker.epochs:
                tracker.log(scalars, step=epoch)

        self._each(send)

    def log_result(self, scalars: Scalars) -> None:
        """Log the run's result, which belongs to no epoch."""
        values = {f"result/{name}": value for name, value in scalars.items()}
        self._each(lambda tracker: tracker.log(values))

    def finish(self, code: int) -> None:
        """Close all, those that have failed too, with the exit code of the run."""
        for name, tracker in self.trackers.items():
            try:
                tracker.finish(code)
            except Exception as error:
                self._leave_out(name, error)

    def _each(self, act: Callable[[Any], object]) -> None:
        for name, tracker in self.trackers.items():
            try:
                if name not in self.failed:
                    act(tracker)
            except Exception as error:
                self._leave_out(name, error)

    def _leave_out(self, name: str, error: Exception) -> None:
        if name not in self.failed:
            self.failed.add(name)
            log.warning(
                "run.trackers: %s failed and gets nothing more until the run is started again (%s: "
                "%.500s)", name, type(error).__name__, error,
            )  # fmt: skip
