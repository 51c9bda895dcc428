"""Parts of a split by a column of its labels."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eat.data.labels.table import LabelError

Rows = NDArray[np.int64]

MAX_SLICES = 100  # most values of a column
MANY_VALUES = 25  # a numeric column with more is cut into quarters
WITHOUT_LIMIT = ("tag", "theme", "challenge")  # columns that are made to slice by


def slice_column(table: pd.DataFrame, names: Sequence[str]) -> str:
    """The first of these columns that a table has.

    Raises:
        LabelError: it has none.
    """
    found = [name for name in names if {name, f"{name}1"} & {*table}]
    if not found:
        raise LabelError(
            f"no column {' or '.join(names)} to slice by; the labels have "
            f"{', '.join(map(str, table))}"
        )
    return found[0]


def slices(table: pd.DataFrame, column: str) -> dict[str, Rows]:
    """Rows of each value of a column, largest slice first; rows without a value are in none.

    ``tag`` stands for tag1 and tag2: an image is in the slices of both its tags. A numeric column
    with many values is cut into quarters.

    Raises:
        LabelError: there is no such column, it is empty, or it has too many values.
    """
    names = ["tag1", "tag2"] if column == "tag" and "tag1" in table else [column]
    if names[0] not in table:
        raise LabelError(
            f"no column {column!r} to slice by; the labels have {', '.join(map(str, table))}"
        )
    rows: dict[str, set[int]] = {}
    for name in names:
        for row, value in enumerate(_texts(table[name])):
            rows.setdefault(value, set()).add(row)
    rows.pop("", None)
    if not rows:
        raise LabelError(f"column {column!r} is empty: there is nothing to slice by")
    if len(rows) > MAX_SLICES and not column.startswith(WITHOUT_LIMIT):
        raise LabelError(f"column {column!r} has {len(rows)} values, too many to slice by")
    order = sorted(rows, key=lambda value: (-len(rows[value]), value))
    return {value: np.array(sorted(rows[value])) for value in order}


def _texts(values: pd.Series) -> list[str]:
    """A column's values as text, "" for none."""
    if pd.api.types.is_numeric_dtype(values) and values.nunique() > MANY_VALUES:
        values = pd.qcut(values, 4, duplicates="drop")
    return values.astype(str).where(values.notna(), "").tolist()


def slice_metrics(
    table: pd.DataFrame, column: str, measured: Callable[[Rows], dict[str, float]]
) -> pd.DataFrame:
    """Metrics of each slice of at least two images, as ``measured`` takes rows to named numbers.

    Returns:
        A row a slice: column, slice, images, and the named numbers.

    Raises:
        LabelError: there is no such slice.
    """
    found = {value: rows for value, rows in slices(table, column).items() if len(rows) >= 2}
    if not found:
        raise LabelError(f"column {column!r} has no value twice: there is nothing to slice by")
    return pd.DataFrame(
        {"column": column, "slice": value, "images": len(rows), **measured(rows)}
        for value, rows in found.items()
    )
