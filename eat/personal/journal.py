"""Finished workers of an interrupted call, on disk."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eat.personal.report import WorkerResult
from eat.system.files import append_line, cut_torn_line, finite, json_object, write_atomically
from eat.system.words import changes

PATHS = ("checkpoint", "labels", "images")  # settings that may change between two calls


class Journal:
    """Finished workers in ``workers.jsonl`` of a folder, beside the settings they belong to.

    Args:
        folder: made if it is not there; None keeps nothing.
        settings: of this call, as JSON takes them.

    Attributes:
        done: results by worker, those of earlier calls included.

    Raises:
        ValueError: the folder holds results with other settings, or is damaged.
    """

    def __init__(self, folder: str | None, settings: dict[str, Any]) -> None:
        self.done: dict[str, WorkerResult] = {}
        self.repeats = settings["repeats"]
        self.path = Path(folder) / "workers.jsonl" if folder else None
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _keep_settings(self.path.with_name("settings.json"), settings)
        if self.path.exists():
            self._read(self.path)

    def _read(self, path: Path) -> None:
        cut_torn_line(path)
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
            try:
                result = _result(json_object(line), self.repeats)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise ValueError(
                    f"{path}, line {number}: damaged ({error}); remove the line, and its worker is "
                    "adapted again"
                ) from error
            self.done[result.worker] = result

    def add(self, result: WorkerResult) -> None:
        """Record a finished worker, on disk at once."""
        self.done[result.worker] = result
        if self.path is not None:
            append_line(self.path, json.dumps(finite(asdict(result))))


def _result(row: dict[str, Any], repeats: int) -> WorkerResult:
    """The result that a line of the journal was made of.

    Raises:
        KeyError, TypeError, ValueError, OverflowError: it was made of none of ``repeats`` SRCCs.
    """
    pair = [
        [math.nan if value is None else float(value) for value in row[name]]
        for name in ("personalised", "general")
    ]
    result = WorkerResult(str(row["worker"]), int(row["images"]), *pair)
    if finite(asdict(result)) != row or any(len(values) != repeats for values in pair):
        raise ValueError("not a result of this call")
    if any(abs(value) > 1 + 1e-9 for values in pair for value in values):
        raise ValueError("SRCC beyond -1..1")
    return result


def _keep_settings(path: Path, settings: dict[str, Any]) -> None:
    """Write the settings beside the results, or hold them against those that are there."""
    text = json.dumps(settings, indent=2) + "\n"
    if not path.exists():
        write_atomically(path, text.encode())
        return
    try:
        before, now = json_object(path.read_text()), json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}); take another --out") from error
    changed = changes(before, {name: now[name] for name in now if name not in PATHS})
    if changed:
        raise ValueError(
            f"{path.parent} holds results with other settings: {changed}; take the same ones to "
            "continue, or another --out"
        )
