"""What runs gave: a line of a CSV for each row and seed, written as soon as it is there."""

import csv
import io
import math
import reprlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from eat.system.files import append_line, write_atomically

Record = dict[str, Any]  # by the names of COLUMNS; None where there is no value

# Of a CSV, with the type of their cells. ``failed`` is empty, or says why there are no results.
COLUMNS: dict[str, type] = {
    **dict.fromkeys(("experiment", "row"), str),
    "seed": int,
    **dict.fromkeys(("digest", "failed", "reduced", "command", "commit", "machine"), str),
    "cores": int,
    **dict.fromkeys(("python", "torch", "data", "fingerprints", "model"), str),
    **dict.fromkeys(("side", "epochs", "images_seen"), int),
    "split": str,
    **dict.fromkeys(("best_epoch", "converged_epoch"), int),
    **dict.fromkeys(("srcc", "srcc_low", "srcc_high", "plcc", "plcc_low", "plcc_high"), float),
    **dict.fromkeys(("accuracy", "ratio", "mse", "emd"), float),
    **dict.fromkeys(("params", "macs", "memory", "points", "eq12"), int),
    "point_spread": str,
    # of the study of the background
    **dict.fromkeys(("foreground_srcc", "background_srcc", "background_area"), float),
    **dict.fromkeys(("background_attention", "background_gradient"), str),
    # of personalised rows: over test workers, before and after adaptation, and the difference
    "ratings": str,
    **dict.fromkeys(("shots", "repeats", "workers"), int),
    **dict.fromkeys(("personal_srcc", "personal_deviation", "personal_low"), float),
    **dict.fromkeys(("personal_high", "general_srcc", "gain", "gain_low", "gain_high"), float),
    **{
        f"published_{name}": float for name in ("srcc", "plcc", "ratio", "mse", "gflops", "mparams")
    },
    **dict.fromkeys(("published_personal", "published_deviation"), float),
    "published_epochs": int,
    "source": str,
    "slices": str,
}
KEYS = ("row", "seed", "digest")


class Results:
    """The CSV of an experiment. Several processes may add to it.

    Raises:
        ValueError: the file holds something else, or a line of it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def drop_torn_line(self) -> str:
        """Remove a last line that was not written to its end, and return it."""
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = content.rfind(b"\n") + 1
        if not whole:
            self.path.unlink(missing_ok=True)
        elif whole < len(content):
            with self.path.open("r+b") as file:
                file.truncate(whole)
        return content[whole:].decode(errors="replace")

    def read(self) -> dict[tuple[str, int, str], Record]:
        """The records by row, seed and digest; of several of one run the last."""
        if not self.path.exists():
            return {}
        # An unfinished last line is one that another process is writing.
        text = self.path.read_text(errors="replace")
        header, *lines = [*csv.reader(text[: text.rfind("\n") + 1].splitlines())] or [[*COLUMNS]]
        if not {*KEYS} <= {*header} <= {*COLUMNS} or len({*header}) < len(header):
            raise ValueError(
                f"{self.path}: its columns are {', '.join(header)[:200]}: expected those of eat "
                "reproduce; move the file away, or choose another --out"
            )
        records = [self._record(header, cells, n) for n, cells in enumerate(lines, start=2)]
        return {tuple(record[name] for name in KEYS): record for record in records}

    def _record(self, header: list[str], cells: list[str], number: int) -> Record:
        try:
            pairs = zip(header, cells, strict=True)
            given = {name: COLUMNS[name](cell) if cell else None for name, cell in pairs}
            for name, value in given.items():
                if isinstance(value, float) and not math.isfinite(value):
                    raise ValueError(f"{name} is {value}")
        except ValueError as error:
            raise ValueError(
                f"{self.path}: line {number} is damaged ({error}): remove it; its run is then "
                "measured again, or trained again if its folder is gone"
            ) from error
        if (other := given.get("experiment")) not in (None, self.path.stem):
            raise ValueError(
                f"{self.path}: line {number} is of {reprlib.repr(other)}: move the file away, or "
                "choose another --out"
            )
        return dict.fromkeys(COLUMNS) | given

    def renew(self) -> None:
        """Give a file of another version, whose columns are fewer or in another order, these.

        Raises:
            ValueError: as ``read``.
        """
        if self.path.exists() and self._header() != list(COLUMNS):
            lines = [csv_line(COLUMNS), *map(record_line, self.read().values())]
            write_atomically(self.path, "".join(f"{line}\n" for line in lines).encode())

    def _header(self) -> list[str]:
        with self.path.open(errors="replace", newline="") as file:
            return next(csv.reader(file), [])

    def add(self, record: Record) -> None:
        """Append a record; values that it lacks are left empty."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError), self.path.open("x") as file:  # one process's header
            file.write(csv_line(COLUMNS) + "\n")
        append_line(self.path, record_line(record))


def record_line(record: Record) -> str:
    """A record's line, without its end."""
    cells = [record.get(name) for name in COLUMNS]
    return csv_line("" if cell is None else str(cell) for cell in cells)


def csv_line(cells: Iterable[str]) -> str:
    """Cells as a line of a CSV, without its end."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()
