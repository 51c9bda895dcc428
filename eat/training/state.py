"""The state of an unfinished run: files that a killed run continues from, bit for bit."""

import hashlib
import io
import logging
import pickle
import re
import reprlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from eat.models.weights import load_tensors
from eat.system.files import regular, write_atomically
from eat.system.schema import typed

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
    """Write a run's progress and state dicts, then remove all but ``keep`` states.

    Of a step there is one, the last: that of the end of an epoch, say, which knows its metrics.

    Returns:
        The file, whose name holds the step and the start of its content's SHA-256.
    """
    buffer = io.BytesIO()
    torch.save({"progress": asdict(progress), **parts}, buffer)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()[:16]
    path = Path(folder) / f"state-{progress.step:09}-{digest}.pt"
    write_atomically(path, content)
    step = path.name[:15]
    older = [old for old in state_files(folder) if not old.name.startswith(step)]
    for old in {*state_files(folder)} - {path, *older[: keep - 1]}:
        old.unlink(missing_ok=True)
    return path


def state_files(folder: str | Path) -> list[Path]:
    """State files in a folder, the newest first."""
    files = [path for path in Path(folder).glob("state-*.pt") if NAME.fullmatch(path.name)]
    return sorted(files, reverse=True)


def load_state(
    folder: str | Path, take_up: Callable[[dict[str, Any]], None] = lambda parts: None
) -> tuple[Progress, dict[str, Any]] | None:
    """Read the newest sound state.

    A state that cannot be taken up is named in the log, and the one before it is tried.

    Args:
        folder: of the state files.
        take_up: called with the state dicts by name; an error says that they are damaged.

    Returns:
        The progress and the state dicts; None if there is no state file.

    Raises:
        ValueError: there are files, and none is sound.
    """
    problems = []
    for path in state_files(folder):
        try:
            progress, parts = _read_state(path)
            take_up(parts)
        except Exception as error:  # junk raises anything, also within torch
            problem = (
                f"{path} {error if type(error) is StateError else f'is damaged ({error!r:.200})'}"
            )
            log.warning("%s; trying the one before it", problem)
            problems.append(problem)
            continue
        return progress, parts
    if problems:
        raise ValueError(
            f"{'; '.join(problems)}; no sound state is left: remove such files to train anew, or "
            "choose another --run.folder"
        )
    return None


class StateError(ValueError):
    """A state file is not one of ours; the message goes on after its name."""


def _read_state(path: Path) -> tuple[Progress, dict[str, Any]]:
    content = regular(path).read_bytes()
    if hashlib.sha256(content).hexdigest()[:16] != path.stem.rpartition("-")[2]:
        raise StateError("is damaged (its checksum differs)")
    try:
        parts = load_tensors(io.BytesIO(content))
    except pickle.UnpicklingError:
        raise StateError("holds more than numbers, and may run code; it was not loaded") from None
    typed(dict[str, dict[str, str]] | None, parts.get("labels"), "labels")  # label_digests
    typed(int | None, parts.get("processes"), "processes")
    progress = Progress(**parts.pop("progress"))
    for name, default in asdict(Progress()).items():
        value = getattr(progress, name)
        if type(value) is not type(default) or (isinstance(value, int) and value < 0):
            raise StateError(f"is damaged (its progress has {name} {reprlib.repr(value)})")
    return progress, parts
