"""Why a run may end early."""

import signal
from pathlib import Path


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and where."""


class Interrupted(Exception):
    """A run was told to stop by a signal, and has saved its state.

    Args:
        number: the signal's.
        folder: the run's.
        epoch: finished epochs.
        batch: finished batches of the next one.
    """

    def __init__(self, number: int, folder: Path, epoch: int, batch: int) -> None:
        self.exit_code = 128 + number
        super().__init__(
            f"stopped by {signal.Signals(number).name} after epoch {epoch}, batch {batch}; the "
            f"state is saved: continue with --run.folder {folder} --run.resume auto"
        )
