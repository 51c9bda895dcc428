"""The folder of a run: made for a new one, found again for one that continues."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from eat.config import TrainConfig
from eat.files import write_atomically

log = logging.getLogger("eat")


def open_folder(config: TrainConfig, left_out: list[str]) -> Path:
    """A fresh run folder, or with ``resume`` the one of the same run, left unfinished.

    Args:
        config: the run's options, written to ``config.yaml``.
        left_out: labelled images without a file, written to ``left_out.txt`` if there are any.

    Raises:
        FileExistsError: the folder holds a run, and ``resume`` is never.
        ValueError: it holds a run with other options.
    """
    name = f"{config.data.name}-{config.model.name}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = Path(config.run.folder or Path("runs") / name)
    written = folder / "config.yaml"
    if written.exists() and config.run.resume == "never":
        raise FileExistsError(
            f"{folder} holds a run already: choose another --run.folder, or continue it with "
            "--run.resume auto"
        )
    if written.exists():
        check_same_run(yaml.safe_load(written.read_text()), config.to_dict(), folder)
        return folder
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    write_atomically(written, yaml.safe_dump(config.to_dict(), sort_keys=False).encode())
    if left_out:
        lines = "".join(f"{image}\n" for image in left_out)
        write_atomically(folder / "left_out.txt", lines.encode())
    return folder


def check_same_run(written: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    """Refuse to continue a run with options that would change its result.

    Raises:
        ValueError: naming the options that differ.
    """
    free = {"run.folder", "run.resume", "run.save_steps", "run.save_minutes", "run.keep"}
    free |= {"data.workers", "data.labels", "data.images"}
    differing = [
        f"{group}.{key} (was {written.get(group, {}).get(key)!r}, now {value!r})"
        for group, options in wanted.items()
        for key, value in options.items()
        if f"{group}.{key}" not in free and written.get(group, {}).get(key) != value
    ]
    if differing:
        raise ValueError(
            f"{folder} holds a run with other options: {', '.join(differing)}; take the same ones "
            "to continue it, or another --run.folder"
        )


@contextmanager
def logging_to(folder: Path) -> Iterator[None]:
    """Log to the terminal and to train.log in a run's folder."""
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
