"""Faults of a run: each is recorded; the run goes on while its budget lasts."""

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eat.config import FaultConfig
from eat.data.loading import LoaderError
from eat.system.files import append_line
from eat.system.stops import TrainingError
from eat.training.state import Progress
from eat.training.step import StepStatistics

log = logging.getLogger("eat")


class Faults:
    """The faults of a run, counted in its progress and written to ``faults.jsonl``."""

    def __init__(self, config: FaultConfig, folder: Path, progress: Progress) -> None:
        self.config = config
        self.file = folder / "faults.jsonl"
        self.progress = progress

    def broken_images(self, errors: Sequence[str]) -> None:
        """Record images that this process could not read.

        Raises:
            TrainingError: none may be replaced.
        """
        for error in errors:
            self._record("broken image", error)
            if self.config.images == 0:
                raise TrainingError(
                    f"{error}; mend or remove the file (eat prepare finds all such), or replace up "
                    "to 10 such images an epoch by --faults.images 10"
                )
            log.warning("replaced by another image: %s", error)

    def count_replaced(self, count: int) -> None:
        """Count images that all processes have replaced in this step.

        Raises:
            TrainingError: there are too many in this epoch.
        """
        self.progress.replaced += count
        if self.progress.replaced > self.config.images:
            raise TrainingError(
                f"more than {self.config.images} images of an epoch cannot be read (see "
                f"{self.file}); mend them (eat prepare finds all), or raise --faults.images"
            )

    def is_sound(self, step: StepStatistics, images: Sequence[str], record: bool) -> bool:
        """Whether a step on ``images``, the batch of all processes, may change the weights.

        One of the processes records a fault.

        Raises:
            TrainingError: it may not, and no more steps may be skipped.
        """
        if step.overflow:
            self.progress.overflows += 1
            return True  # accelerate leaves the weights alone, and lowers the scale
        fault = self._fault(step)
        if fault is None:
            return True
        fault += f" after {self.progress.step} steps"
        if record:
            self._record("bad step", fault, images=list(images))
        shown = ", ".join(images[:3]) + (", ..." if len(images) > 3 else "")
        self.progress.skipped += 1
        if self.progress.skipped > self.config.steps:
            raise TrainingError(
                f"{fault}, on the images {shown} (all in {self.file}), with {self.config.steps} "
                "such steps allowed; a lower --optim.lr, --optim.clip_norm 1 or --run.precision "
                "fp32 may help, and a larger --faults.steps skips such steps"
            )
        log.warning("skipped a step: %s, on the images %s", fault, shown)
        return False

    def _fault(self, step: StepStatistics) -> str | None:
        limit = self.config.max_norm or math.inf
        if not math.isfinite(step.loss):
            return f"the loss became {step.loss}"
        norm = f"the norm of the gradients became {step.norm:g}"
        if not math.isfinite(step.norm):
            return norm
        return f"{norm} (--faults.max_norm is {limit:g})" if step.norm > limit else None

    def dead_worker(self, error: LoaderError, images: Sequence[str]) -> None:
        """Record that a loading process died while it loaded some of ``images``.

        Raises:
            TrainingError: it may not be restarted.
        """
        self._record("dead worker", str(error), images=list(images))
        self.progress.restarts += 1
        if self.progress.restarts > self.config.workers:
            raise TrainingError(
                f"{error}; the images that were being loaded are in {self.file}; "
                "--data.workers 0 loads without such processes, and a --faults.workers above "
                f"{self.config.workers} restarts them that often"
            ) from error
        log.warning("%s; loading starts again at the same batch", error)

    def _record(self, kind: str, what: str, **more: Any) -> None:
        done = self.progress
        where = {"epoch": done.epoch + 1, "batch": done.batch + 1, "step": done.step}
        self.file.parent.mkdir(parents=True, exist_ok=True)  # on another machine, it may not exist
        append_line(self.file, json.dumps({"kind": kind, **where, "what": what, **more}))
