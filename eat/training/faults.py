"""What a run does when something breaks: record it, then go on or stop, as its options say."""

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
from eat.training.step import Gradients

log = logging.getLogger("eat")


class Faults:
    """The faults of a run, counted in its progress and written to ``faults.jsonl``.

    Args:
        config: what to do about each kind.
        folder: the run's.
        progress: the run's.
    """

    def __init__(self, config: FaultConfig, folder: Path, progress: Progress) -> None:
        self.config = config
        self.file = folder / "faults.jsonl"
        self.progress = progress

    def broken_images(self, errors: Sequence[str]) -> None:
        """Record images that this process could not read.

        Raises:
            TrainingError: they must not be replaced.
        """
        for error in errors:
            self._record("broken image", error)
            if self.config.images == "fail":
                raise TrainingError(
                    f"{error}; mend or remove the file (eat prepare finds all such), or go on "
                    "without it by --faults.images replace"
                )
            log.warning("replaced by another image: %s", error)

    def count_replaced(self, count: int) -> None:
        """Count images that all processes have replaced in this step.

        Raises:
            TrainingError: there are too many in this epoch.
        """
        self.progress.replaced += count
        if self.progress.replaced > self.config.max_images:
            raise TrainingError(
                f"more than {self.config.max_images} images of an epoch cannot be read (see "
                f"{self.file}); mend them (eat prepare finds all), or raise --faults.max_images"
            )

    def sound(self, step: Gradients, images: Sequence[str], record: bool) -> bool:
        """Whether the weights may be changed by a step.

        Args:
            step: what it computed.
            images: its whole batch.
            record: write the fault down; for one of several processes.

        Raises:
            TrainingError: they may not, and the run must not go on so.
        """
        if step.overflow:
            self.progress.overflows += 1
            return True  # accelerate leaves the weights alone, and lowers the scale
        limit = self.config.max_norm or math.inf
        if not math.isfinite(step.loss):
            what = f"the loss became {step.loss}"
        elif not math.isfinite(step.norm) or step.norm > limit:
            what = f"the norm of the gradients became {step.norm:g}"
            what += f" (--faults.max_norm is {limit:g})" if math.isfinite(step.norm) else ""
        else:
            return True
        what += f" after {self.progress.step} steps"
        if record:
            self._record("bad step", what, images=list(images))
        shown = ", ".join(images[:3]) + (", ..." if len(images) > 3 else "")
        if self.config.steps == "fail":
            raise TrainingError(
                f"{what}, on the images {shown} (all in {self.file}); a lower --optim.lr, "
                "--optim.clip_norm 1 or --run.precision fp32 may help, and --faults.steps skip "
                "goes on without such steps"
            )
        self.progress.skipped += 1
        if self.progress.skipped > self.config.max_steps:
            raise TrainingError(
                f"{what}: that is more than {self.config.max_steps} skipped steps (see "
                f"{self.file}); mend the cause, or raise --faults.max_steps"
            )
        log.warning("skipped a step: %s, on the images %s", what, shown)
        return False

    def dead_worker(self, error: LoaderError, images: Sequence[str]) -> None:
        """Record that a loading process died.

        Args:
            error: what became of it.
            images: those that were being loaded.

        Raises:
            TrainingError: it must not be replaced by another.
        """
        self._record("dead worker", str(error), images=list(images))
        self.progress.restarts += 1
        if self.config.workers == "fail" or self.progress.restarts > self.config.max_workers:
            raise TrainingError(
                f"{error}; the images that were being loaded are in {self.file}; "
                "--data.workers 0 loads without such processes, and --faults.workers restart "
                f"replaces them, up to --faults.max_workers {self.config.max_workers} times"
            ) from error
        log.warning("%s; loading starts again at the same batch", error)

    def _record(self, kind: str, what: str, **more: Any) -> None:
        done = self.progress
        where = {"epoch": done.epoch + 1, "batch": done.batch + 1, "step": done.step}
        self.file.parent.mkdir(parents=True, exist_ok=True)  # on another machine, it may not exist
        append_line(self.file, json.dumps({"kind": kind, **where, "what": what, **more}))
