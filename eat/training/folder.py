"""The folder of a run: made for a new one, found again for one that continues."""

import fcntl
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from eat.config import TrainConfig
from eat.system.files import append_line, write_atomically
from eat.system.processes import is_main
from eat.system.provenance import describe

log = logging.getLogger("eat")
# Options that leave a run's results as they are.
FREE = {"run.folder", "run.resume", "run.save_steps", "run.save_minutes", "run.keep", "run.passes"}
FREE |= {"run.compile", "run.grad_checkpointing", "data.workers", "data.labels"}
FREE |= {"data.images", "data.cache"}

PATIENCE = 30.0  # seconds that a run that continues waits for the one before it to leave


class FolderLock:
    """Keeps other processes out of a run folder until it is closed, or this process ends.

    Args:
        folder: the run's.
        patience: seconds to wait for another process to leave it.

    Raises:
        FileExistsError: another process has the folder.
    """

    def __init__(self, folder: Path, patience: float = 0) -> None:
        self.file = (folder / ".lock").open("a+")
        end = time.monotonic() + patience
        while not self._taken():
            if time.monotonic() >= end:
                self.file.seek(0)
                owner = self.file.read().strip() or "another process"
                self.file.close()
                raise FileExistsError(
                    f"{folder} is being written by {owner}: wait for it, stop it, or choose "
                    "another --run.folder"
                )
            time.sleep(0.1)
        self.file.truncate(0)
        self.file.write(f"process {os.getpid()} on {platform.node()}\n")
        self.file.flush()

    def _taken(self) -> bool:
        try:
            # Unlike flock's, this lock is not inherited by processes that load images.
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Let others in."""
        self.file.close()


def open_folder(config: TrainConfig, left_out: list[str]) -> tuple[Path, FolderLock]:
    """A fresh run folder, or with ``resume`` the one of the same run, left unfinished.

    What the run starts with is added to ``starts.jsonl``.

    Args:
        config: the run's options, written to ``config.yaml``.
        left_out: labelled images without a file, written to ``left_out.txt`` if there are any.

    Returns:
        The folder, and its lock, to be closed at the end.

    Raises:
        FileExistsError: the folder holds a run, and ``resume`` is never; or another process writes
            into it.
        ValueError: it holds a run with other options.
    """
    name = f"{config.data.name}-{config.model.name}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = Path(config.run.folder or Path("runs") / name)
    folder.mkdir(parents=True, exist_ok=True)
    # Who was told to stop, and is to be continued, may still be saving.
    lock = FolderLock(folder, PATIENCE if config.run.resume == "auto" else 0)
    try:
        _fill(folder, config, left_out)
    except BaseException:
        lock.close()
        raise
    return folder, lock


def _fill(folder: Path, config: TrainConfig, left_out: list[str]) -> None:
    written = folder / "config.yaml"
    if written.exists() and config.run.resume == "never":
        raise FileExistsError(
            f"{folder} holds a run already: choose another --run.folder, or continue it with "
            "--run.resume auto"
        )
    if written.exists():
        check_same_run(yaml.safe_load(written.read_text()), config.to_dict(), folder)
    else:
        (folder / "checkpoints").mkdir(exist_ok=True)
        if left_out:
            lines = "".join(f"{image}\n" for image in left_out)
            write_atomically(folder / "left_out.txt", lines.encode())
        write_atomically(written, yaml.safe_dump(config.to_dict(), sort_keys=False).encode())
    start = describe() | {"seed": config.run.seed}
    append_line(folder / "starts.jsonl", json.dumps(start))


def check_same_run(written: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    """Refuse to continue a run with options that would change its result.

    Raises:
        ValueError: naming the options that differ.
    """
    differing = [
        f"{group}.{key} (was {written.get(group, {}).get(key)!r}, now {value!r})"
        for group, options in wanted.items()
        for key, value in options.items()
        if group != "faults"
        and f"{group}.{key}" not in FREE
        and written.get(group, {}).get(key) != value
    ]
    if differing:
        raise ValueError(
            f"{folder} holds a run with other options: {', '.join(differing)}; take the same ones "
            "to continue it, or another --run.folder"
        )


@contextmanager
def logging_to(folder: Path) -> Iterator[None]:
    """Log to the terminal and to train.log in a run's folder; in other processes, nowhere."""
    handlers: list[logging.Handler] = [logging.NullHandler()]
    if is_main():
        handlers = [logging.StreamHandler(sys.stderr), logging.FileHandler(folder / "train.log")]
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()
