"""The state of an unfinished run: files that a killed run continues from, bit for bit."""

import hashlib
import io
import logging
import pickle
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from eat.system.files import write_atomically

log = logging.getLogger("eat")
NAME = re.compile(r"state-(\d{9})-([0-9a-f]{16})\.pt")


@dataclass
class Progress:
    """The progress of a run.

    Attributes:
        step: finished steps of the run.
        epoch: finished epochs.
        batch: finished batches of the epoch under way.
        loss: sum of its losses over images.
        images: images in that sum.
        best: metrics of the best epoch so far.
        best_epoch: its number, from 1; 0 for none.
        replaced: broken images replaced in the epoch under way.
        skipped: steps skipped in the run.
        overflows: steps of the epoch under way that fp16's scale was too large for.
        restarts: loading processes restarted in the run.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    loss: float = 0.0
    images: int = 0
    best: dict[str, float] = field(default_factory=dict)
    best_epoch: int = 0
    replaced: int = 0
    skipped: int = 0
    overflows: int = 0
    restarts: int = 0


def save_state(folder: str | Path, progress: Progress, parts: dict[str, Any], keep: int) -> Path:
    """Write a run's progress and state dicts, then remove all but the newest ``keep`` states.

    Returns:
        The file, whose name holds the step and the start of its content's SHA-256.
    """
    buffer = io.BytesIO()
    torch.save({"progress": asdict(progress), **parts}, buffer)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()[:16]
    path = Path(folder) / f"state-{progress.step:09}-{digest}.pt"
    write_atomically(path, content)
    for old in state_files(folder)[keep:]:
        old.unlink(missing_ok=True)
    return path


def state_files(folder: str | Path) -> list[Path]:
    """State files in a folder, the newest first."""
    files = [path for path in Path(folder).glob("state-*.pt") if NAME.fullmatch(path.name)]
    return sorted(files, reverse=True)


def load_state(folder: str | Path) -> tuple[Progress, dict[str, Any]] | None:
    """Read the newest sound state.

    A damaged file is named in the log, and the one before it is taken.

    Returns:
        The progress and the state dicts by name; None if there is no sound state.

    Raises:
        ValueError: a file holds objects that could run code, and none of ours does.
    """
    for path in state_files(folder):
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest()[:16] != path.stem.rpartition("-")[2]:
            log.warning("%s is damaged (its checksum differs); trying the one before it", path)
            continue
        try:
            parts = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"{path}: holds more than numbers, and may run code; it was not loaded. Remove it"
            ) from error
        return Progress(**parts.pop("progress")), parts
    return None
