"""Label files to fields: text that is decoded, split and counted, with every row's line number."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from eat.data.labels.table import (
    LabelError,
    check_repeats,
    cut,
    error_at,
    quote,
    to_numbers,
    warn,
)
from eat.system.files import GB, regular

MOST_BYTES = 4 * GB  # of a label file

IMAGE_NAMES = ("image", "image_id", "path", "file", "filename")
ID_HEADERS = {*IMAGE_NAMES, "id", "imagename", "image name", "name", "worker", "user", "userid"}


@dataclass(frozen=True)
class LabelFile:
    """The fields of one label file, before they mean anything.

    ``fields`` has one row per record, of text or, from typed files, of values. Its index holds the
    line numbers of an editor (named "line"), or record numbers from 1 (named "row").
    """

    path: Path
    fields: pd.DataFrame

    def find(self, *names: str) -> str | None:
        """The column that has one of these names, whatever its case; the first name wins.

        Raises:
            LabelError: two columns differ only in case.
        """
        for name in names:
            matches = [c for c in self.fields.columns if c.casefold() == name.casefold()]
            if len(matches) > 1:
                raise LabelError(
                    f"{self.path}, line 1, column {name}: found {' and '.join(matches)}, expected "
                    "one; rename the other"
                )
            if matches:
                return matches[0]
        return None

    def column(self, *names: str) -> str:
        """As :meth:`find`, for a column that must be there; else raises LabelError."""
        found = self.find(*names)
        if found is None:
            raise LabelError(
                f"{self.path}, line 1: no column {' or '.join(names)}; found "
                f"{quote(self.fields.columns, 20)}; add the column, or name the data set that this "
                "file is from"
            )
        return found

    def text(self, column: str) -> pd.Series:
        """A column as text without blanks at its ends, "" where there is no value."""
        values = self.fields[column]
        return values.astype(str).str.strip().where(values.notna(), "")

    def numbers(
        self, column: str, low: float = -np.inf, high: float = np.inf, *, whole: bool = False
    ) -> pd.Series:
        """A column as finite float64 from ``low`` to ``high``; else raises LabelError."""
        numbers = to_numbers(self.fields, column, self.path)
        bad = (numbers < low) | (numbers > high)
        expected = f"{low:g} to {high:g}"
        if whole and not bad.any():
            bad, expected = numbers % 1 != 0, "a whole number"
        if bad.any():
            raise error_at(self.path, self.fields, bad, column, expected,
                           "correct it, or read the file with the right columns")  # fmt: skip
        return numbers

    def rest(self, used: Sequence[str]) -> dict[str, pd.Series]:
        """The other columns, as numbers where every field is one or empty, else as text."""
        columns = {}
        for name in self.fields.columns.difference(used, sort=False):
            try:
                columns[name] = pd.to_numeric(self.fields[name])
            except (ValueError, TypeError, OverflowError):
                columns[name] = self.text(name)
        return columns


def read_text(path: str | Path) -> str:
    """A text file in UTF-8 (with or without a byte order mark), its line ends as "\\n".

    Warns:
        LabelWarning: the last line has no line end, so that it may have been cut.

    Raises:
        LabelError: the file is absent, empty, binary or in another encoding.
    """
    content = read_bytes(path)
    try:
        text = content.decode("utf-8-sig")
        wrong = text.find("\0")
    except UnicodeDecodeError as error:
        # latin-1 never fails and keeps every line end, so that the line can be counted
        text, wrong = content.decode("latin-1"), error.start
    if wrong >= 0:
        raise LabelError(
            f"{path}, line {text[:wrong].count(chr(10)) + 1}: found the byte "
            f"0x{ord(text[wrong]):02x}, expected text in UTF-8; save the file in that encoding"
        )
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise LabelError(f"{path}: the file is empty, expected labels; copy or download it again")
    if not text.endswith("\n"):
        number, last = text.count("\n") + 1, text.rsplit("\n", 1)[-1]
        warn(
            f"{path}, line {number}: the last line, {cut(last)!r}, has no line end; if the file "
            "was cut, its last value is wrong: compare it with the original"
        )
    return text


def read_bytes(path: str | Path) -> bytes:
    """The content of a file; raises LabelError if it cannot be read."""
    try:
        return regular(path, MOST_BYTES).read_bytes()
    except OSError as error:
        reason = error.strerror or str(error).removeprefix(f"{path}: ")
        raise LabelError(f"{path}: cannot be read ({reason}); give a label file") from error


def read_csv(path: str | Path, columns: Sequence[str] | None = None) -> LabelFile:
    """Fields of a file separated by commas, or by tabs if it is a .tsv.

    Its first line names the columns, unless ``columns`` does.

    Raises:
        LabelError: as :func:`read_text`; or a line has too few or too many fields or a stray quote,
            or two columns have one name.
    """
    path = Path(path)
    reader = csv.reader(
        io.StringIO(read_text(path)),
        delimiter="\t" if path.suffix.lower() == ".tsv" else ",",
        skipinitialspace=True,
        strict=True,
    )
    rows: dict[int, list[str]] = {}  # by the line on which they begin
    line = 1
    try:
        for row in reader:
            if len(row) > 1 or "".join(row).strip():
                rows[line] = row
            line = reader.line_num + 1
    except csv.Error as error:
        raise LabelError(
            f"{path}, line {line}: found {error}, expected fields with their quotes closed; "
            "correct the line"
        ) from error
    if not rows:
        raise LabelError(f"{path}: found only blank lines, expected labels; give another file")
    if columns is None:
        columns = _header(path, rows)
    for line, row in rows.items():
        if len(row) != len(columns):
            raise _wrong_count(path, line, len(row), columns)
    index = pd.Index(list(rows), name="line", dtype=np.int64)
    return LabelFile(path, pd.DataFrame(list(rows.values()), index, list(columns), dtype=object))


def _header(path: Path, rows: dict[int, list[str]]) -> list[str]:
    """Take the first row as the names of the columns."""
    line = next(iter(rows))
    # pandas writes its index under an empty name
    names = [name.strip() or f"column_{k}" for k, name in enumerate(rows.pop(line), start=1)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise LabelError(
            f"{path}, line {line}, column {cut(twice[0])}: found it more than once, expected every "
            "column once; rename or remove one"
        )
    return names


def read_blank_separated(path: str | Path, columns: Sequence[str]) -> LabelFile:
    """Fields of a file without a header, separated by blanks or tabs; errors as ``read_csv``."""
    path = Path(path)
    text = read_text(path)
    # counting first and splitting all at once is twice as fast as keeping a list for each line
    counts = np.array([len(line.split()) for line in text.split("\n")])
    lines = np.flatnonzero(counts) + 1
    wrong = np.flatnonzero(counts[lines - 1] != len(columns))
    if len(wrong):
        line = lines[wrong[0]]
        raise _wrong_count(path, line, counts[line - 1], columns)
    fields = np.array(text.split(), dtype=object).reshape(-1, len(columns))
    index = pd.Index(lines, name="line")
    return LabelFile(path, pd.DataFrame(fields, index, list(columns)))


def _wrong_count(path: Path, line: int, found: int, columns: Sequence[str]) -> LabelError:
    return LabelError(
        f"{path}, line {line}: found {found} fields, expected {len(columns)} "
        f"({quote(columns, 20)}); complete the line, or copy the file again if it was cut"
    )


def read_ids(path: str | Path) -> list[str]:
    """A list of ids, one on a line, under a header or none.

    Raises:
        LabelError: as :func:`read_csv`, or an id stands there twice.
    """
    file = read_csv(path, ["image"])
    ids = file.text("image")
    if ids.iloc[0].casefold() in ID_HEADERS:
        ids = ids.iloc[1:]
    check_repeats(ids.to_frame(), path)
    return ids.tolist()


def read_json_lines(path: str | Path) -> LabelFile:
    """Fields of a file with one JSON object on a line.

    Raises:
        LabelError: as :func:`read_text`; or a line is no JSON object of plain values.
    """
    path = Path(path)
    records: dict[int, dict[str, object]] = {}  # by line
    for line, text in enumerate(read_text(path).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
            if not isinstance(record, dict):
                raise ValueError("not an object")
            if "\\u" in text:  # maybe half a character, which no UTF-8 has
                json.dumps(record, ensure_ascii=False).encode()
            if any(isinstance(value, dict | list) for value in record.values()):
                raise ValueError("a value is an object or a list")
        except (ValueError, RecursionError) as error:
            raise LabelError(
                f"{path}, line {line}: found {text[:60]!r} ({error}), expected one JSON object of "
                "plain values; correct the line"
            ) from error
        records[line] = {name.strip(): value for name, value in record.items()}
    index = pd.Index(list(records), name="line", dtype=np.int64)
    return LabelFile(path, pd.DataFrame(list(records.values()), index, dtype=object))


def read_with(read: Callable[[Path], pd.DataFrame], path: Path, package: str) -> LabelFile:
    """Fields of a typed file through a pandas reader, which needs a package.

    Raises:
        LabelError: the file is absent or damaged, or the package is not installed.
    """
    read_bytes(path)
    try:
        fields = read(path)
    except ImportError as error:
        raise LabelError(
            f"{path}: reading {path.suffix} files needs {package}; run pip install {package}, or "
            "save the labels as CSV"
        ) from error
    except Exception as error:  # the reading packages raise whatever they like
        raise LabelError(
            f"{path}: cannot be read as {path.suffix} ({type(error).__name__}: {error}); copy the "
            "file again or save the labels as CSV"
        ) from error
    fields.columns = [str(name).strip() for name in fields.columns]
    fields.index = pd.RangeIndex(1, len(fields) + 1, name="row")
    return LabelFile(path, fields)


def read_fields(path: str | Path) -> LabelFile:
    """Fields of a table of one's own, by its suffix: .csv, .tsv, .parquet or .jsonl.

    Raises:
        LabelError: as the reader of its kind.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind == ".parquet":
        return read_with(pd.read_parquet, path, "pyarrow")
    if kind in (".jsonl", ".json", ".ndjson"):
        return read_json_lines(path)
    return read_csv(path)
