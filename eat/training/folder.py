"""The folder of a run: made for a new one, found again for one that continues."""

import hashlib
import json
import logging
import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pandas as pd
import yaml

from eat.config import RunConfig, TrainConfig
from eat.config.files import read_options
from eat.config.legacy import ADDED, is_legacy, translate
from eat.data.labels.identity import identities
from eat.data.labels.table import vote_columns
from eat.system.files import append_line, remove_partial, write_atomically
from eat.system.plugins import in_file_name, is_path
from eat.system.processes import is_main
from eat.system.provenance import describe

log = logging.getLogger("eat")
SPLITS = {"train": "training", "val": "validation", "test": "test"}

# Options that leave a run's results as they are.
FREE = {"run.folder", "run.resume", "run.save_steps", "run.save_minutes", "run.keep"}
FREE |= {"run.accumulation_steps", "run.compile", "run.grad_checkpointing", "run.draw_every"}
FREE |= {"run.sharded"}
FREE |= {"run.trackers", "data.labels", "data.images", "data.cache", "data.workers"}

PATIENCE = 30.0  # seconds that a run that continues waits for the one before it to end


locked: set[Path] = set()  # files of the locks that this process has


def close_copies() -> None:
    """Close the locks' files in a forked process, such as one that loads images.

    It would hold a lock for as long as it lives, even after the process that took it is gone.
    """
    own = [path.stat() for path in locked if path.exists()]
    for name in os.listdir("/dev/fd") if own else ():
        try:
            status = os.fstat(int(name))
            if any(os.path.samestat(status, lock) for lock in own):
                os.close(int(name))
        except OSError:  # the descriptor that listed the folder is closed already
            continue


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=close_copies)


class FolderLock:
    """Keeps other processes out of a run folder until it is closed, or this process ends.

    ``name`` is that of its file; locks of other names are other locks.

    Raises:
        FileExistsError: another process still has the folder after ``patience`` seconds.
    """

    def __init__(self, folder: Path, patience: float = 0, name: str = ".lock") -> None:
        self._path = folder / name
        self._lock = filelock.FileLock(self._path)
        owner = folder / f"{name}.owner"  # beside the lock, which Windows lets nobody else read
        try:
            self._lock.acquire(timeout=patience, poll_interval=0.1)
        except filelock.Timeout:
            by = owner.read_text(errors="replace").strip() if owner.exists() else "another process"
            raise FileExistsError(
                f"{folder} is being written by {by}: wait for it, stop it, or choose "
                "another --run.folder"
            ) from None
        owner.write_text(f"process {os.getpid()} on {platform.node()}\n")
        locked.add(self._path)

    def close(self) -> None:
        """Let others in."""
        locked.discard(self._path)
        self._lock.release()


def open_folder(config: TrainConfig, left_out: list[str]) -> tuple[Path, FolderLock]:
    """Make a run folder, or with ``resume`` open the one of the same run, left unfinished.

    Program, libraries and machine are added to ``starts.jsonl``.

    Labelled images without a file are listed in its ``left_out.txt``. The lock is to be closed at
    the end.

    Raises:
        FileExistsError: the folder holds a run, and ``resume`` is never; or another process writes
            into it.
        ValueError: it holds a run with other options, or cannot be made.
    """
    what = f"{in_file_name(config.data.name)}-{in_file_name(str(config.model.name))}"
    name = f"{what}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = Path(config.run.folder or Path("runs") / name)
    try:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"run.folder is {folder}: no folder can be made there ({error.strerror}); give another"
        ) from error
    # The run before this one may still be saving its state.
    lock = FolderLock(folder, PATIENCE if config.run.resume == "auto" else 0)
    try:
        _fill(folder, config, left_out)
    except BaseException:
        lock.close()
        raise
    return folder, lock


def check_restarts(run: RunConfig) -> None:
    """Refuse what torchrun could start again without continuing.

    It is not continued of itself: the first start may have been refused because of its folder.

    Raises:
        ValueError: it may start the run again, which has no folder or would not continue.
    """
    restarts = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))
    if restarts and (run.resume != "auto" or not run.folder):
        raise ValueError(
            f"torchrun may start this run again (--max-restarts {restarts}): add --run.folder "
            "FOLDER --run.resume auto, so that it then continues"
        )


def keep_old_defaults(config: TrainConfig) -> TrainConfig:
    """Options of an older run that continues: what they leave open is as it was then."""
    written = Path(config.run.folder or "") / "config.yaml"
    if config.run.resume == "never" or not config.run.folder or not written.is_file():
        return config
    before = read_options(written)
    if "colours" not in before.get("data", {}):
        config = replace(config, data=replace(config.data, **ADDED["data"]))
    if not is_legacy(before):
        return config
    old = translate(before)["optim"]
    # A path in a folder that others may have written is never imported.
    before_that = None if is_path(str(old["loss"])) else old["loss"]
    loss, kept = config.optim.loss or before_that, {n: old[n] for n in ("decay", "interest_lr")}
    if is_main():
        log.warning("%s: a run of version 0.1, of optim.loss %s and optim.decay %s",
                    written.parent, loss, kept["decay"])  # fmt: skip
    return replace(config, optim=replace(config.optim, loss=loss, **kept))


def _fill(folder: Path, config: TrainConfig, left_out: list[str]) -> None:
    written = folder / "config.yaml"
    if written.exists() and config.run.resume == "never":
        raise FileExistsError(
            f"{folder} holds a run already: choose another --run.folder, or continue it with "
            "--run.resume auto"
        )
    for place in (folder, folder / "checkpoints"):
        remove_partial(place)
    text = yaml.safe_dump(config.to_dict(), sort_keys=False)
    if written.exists():
        check_same_run(read_options(written), yaml.safe_load(text), folder)  # (1, 2) as [1, 2]
    else:
        if left_out:
            lines = "".join(f"{image}\n" for image in left_out)
            write_atomically(folder / "left_out.txt", lines.encode())
        write_atomically(written, text.encode())
    append_line(folder / "starts.jsonl", json.dumps(describe() | {"seed": config.run.seed}))


def differing_options(written: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Options that change a run's result, and differ from those that were written.

    One that did not exist when the run began was as ADDED has it, or as its default is now.
    """
    before, usual = translate(written), TrainConfig().to_dict()
    for group, options in ADDED.items():
        usual[group] |= options
    return [
        f"{group}.{key} (was {old!r}, now {value!r})"
        for group, options in wanted.items()
        for key, value in options.items()
        if group != "faults"
        and f"{group}.{key}" not in FREE
        and (old := before.get(group, {}).get(key, usual[group][key])) != value
    ]


def check_same_run(written: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    """Refuse to continue a run with options that would change its result.

    Raises:
        ValueError: naming the options that differ.
    """
    differing = differing_options(written, wanted)
    if differing:
        raise ValueError(
            f"{folder} holds a run with other options: {', '.join(differing)}; take the same ones "
            "to continue it, or another --run.folder"
        )


def label_digests(
    tables: dict[str, pd.DataFrame], targets: Sequence[str]
) -> dict[str, dict[str, str]]:
    """SHA-256 (hex) of what a run takes from its label tables, rows in order, by split and kind."""
    digests = {}
    for split, table in tables.items():
        columns = {"images": "\n".join(identities(table)).encode()} | {
            kind: table[names].to_numpy(np.float32).tobytes()  # the precision of training
            for kind, names in (("scores", [*targets]), ("votes", vote_columns(table)))
        }
        digests[split] = {kind: hashlib.sha256(data).hexdigest() for kind, data in columns.items()}
    return digests


def check_same_labels(
    before: dict[str, dict[str, str]] | None, now: dict[str, dict[str, str]], folder: Path
) -> None:
    """Refuse to continue a run on other labels, by the ``label_digests`` in its state.

    Raises:
        ValueError: naming each split that differs, and whether in its images, scores or votes.
    """
    if before is None:
        log.info("the state is of an older version: its labels are not compared with the present")
        return
    changed = []
    for split in SPLITS:
        old, new = before.get(split, {}), now.get(split, {})
        kinds = [kind for kind in ("images", "scores", "votes") if old.get(kind) != new.get(kind)]
        if "images" in kinds:  # then scores and votes belong to other rows
            kinds = ["images or their order"]
        if kinds:
            changed.append(f"the {' and '.join(kinds)} of the {SPLITS[split]} split")
    if changed:
        raise ValueError(
            f"{folder} holds a run on other labels: in data.labels, or the lists of splits, "
            f"{' and '.join(changed)} changed; restore them to continue it, or take another "
            "--run.folder"
        )
