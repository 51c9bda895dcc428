"""The label table and its checks.

A label table is a DataFrame with one row per image, or per rating where it has ``worker``:

    image              str, path relative to the folder of the images, as they lie on disk
    split              str, "train", "val", "test", or "" where the labels do not say
    score              float64, mean score (or a worker's rating) on the data set's own scale
    votes_1..votes_K   float64, votes for K evenly spaced scores; optional
    worker             str, who rated; optional
    theme, challenge, tag1, tag2   str, "" for none; optional
    anything else      attributes, under their own names; optional. A column of numbers may be a
                       target, in place of the score or beside it
"""

import re
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd

from eat.data.scales import Scales
from eat.system.words import printable

CONTROL = r"[\x00-\x1f\x7f\x85\u2028\u2029]"  # characters of no name: line ends and the like
LEAST_VOTES = 1e-6  # of an image; less is none, but for rounding
NO_TARGETS = ("image", "split", "worker", "predicted", "votes", "error")  # names in results
SPLITS = ("train", "val", "test", "")


class LabelError(ValueError):
    """Labels that cannot be used. The message names the file, the place and the way out."""


class LabelWarning(UserWarning):
    """Labels that can be used, with something in them that should be known."""


def warn(message: str) -> None:
    """Warn of labels that can be used, on behalf of the caller's caller."""
    warnings.warn(message, LabelWarning, stacklevel=4)


def vote_columns(table: pd.DataFrame) -> list[str]:
    """The names votes_1..votes_K that a label table has, in order; empty without votes."""
    names = [name for name in table.columns if re.fullmatch(r"votes_\d+", str(name))]
    return sorted(names, key=lambda name: int(name.removeprefix("votes_")))


def cut(value: object) -> str:
    """A value as text for a message, cut to a length that can be read."""
    text = str(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def quote(values: Sequence[object] | pd.Series | pd.Index, most: int = 3) -> str:
    """The first values as text for a message, what cannot be printed escaped."""
    texts = [printable(cut(value)) for value in values[:most]]
    return ", ".join(texts) + (", ..." if len(values) > most else "")


def error_at(
    source: object,
    table: pd.DataFrame,
    bad: np.ndarray | pd.Series,
    column: str,
    expected: str,
    advice: str,
) -> LabelError:
    """The error for the rows of a table that are ``bad``, (N,) bool with one true at least.

    It names the first by the table's index, if that is called "line" or "row"; else rows are
    counted from 1.
    """
    rows = np.flatnonzero(bad)
    number = table.index[rows[0]] if table.index.name else rows[0] + 1
    more = f" ({len(rows)} such rows)" if len(rows) > 1 else ""
    return LabelError(
        f"{source}, {table.index.name or 'row'} {number}, column {column}: found "
        f"{cut(table[column].iloc[rows[0]])!r}, expected {expected}{more}; {advice}"
    )


def validate(
    table: pd.DataFrame,
    low: float,
    high: float,
    source: object,
    *,
    advice: str = "correct it, or rescale the scores if they have another scale",
) -> pd.DataFrame:
    """Check a label table and give it its dtypes. No row is added, changed or dropped.

    Args:
        table: columns as in the head of this file.
        low: lowest possible score.
        high: highest possible score.
        source: file that messages name.
        advice: for a score outside of the bounds.

    Raises:
        LabelError: a column is missing; there are no rows; an image name or worker is none, or of
            more than one line; a split is not one; a score is not a number from low to high; votes
            are negative, not finite, or all 0; an image (of the same worker) stands there twice.
    """
    missing = [name for name in ("image", "split", "score") if name not in table]
    if missing:
        raise LabelError(
            f"{source}: no column {missing[0]}; found {quote(table.columns, 20)}; "
            "expected at least image, split and score; add it"
        )
    if table.empty:
        raise LabelError(f"{source}: found no rows, expected at least one label; give another file")
    table = table.copy()
    for column in ("image", "worker"):
        if column in table:
            table[column] = check_names(table, column, source)
    bad = ~table["split"].isin(SPLITS)
    if bad.any():
        raise error_at(source, table, bad, "split", "train, val, test or nothing", "correct it")
    votes = vote_columns(table)
    for column in [*votes, "score"]:
        table[column] = to_numbers(table, column, source)
    if votes:
        _check_votes(table, votes, source)
    outside = (table["score"] < low) | (table["score"] > high)
    if outside.any():
        raise error_at(source, table, outside, "score", f"{low:g} to {high:g}", advice)
    check_repeats(table, source)
    return table.reset_index(drop=True)


def check_targets(table: pd.DataFrame, scales: Scales, source: object) -> pd.DataFrame:
    """A label table whose targets are finite float64 within their scales.

    Raises:
        LabelError: a target is no column that can be one, or a value is not on its scale.
    """
    table = table.copy()
    columns = table.columns.drop([*NO_TARGETS, *vote_columns(table)], errors="ignore")
    for name, scale in scales.items():
        if name not in columns:
            raise LabelError(
                f"{source}: no column {cut(name)!r} to be a target; found {quote(columns, 20)}; "
                "give some of these as data.targets"
            )
        table[name] = to_numbers(table, name, source)
        outside = (table[name] < scale.low) | (table[name] > scale.high)
        if outside.any():
            raise error_at(source, table, outside, name, f"{scale.low:g} to {scale.high:g}",
                           "correct it, or rescale the column")  # fmt: skip
    return table


def to_numbers(table: pd.DataFrame, column: str, source: object) -> pd.Series:
    """A column as finite float64; raises LabelError naming the first that is no such number."""
    values = table[column]
    try:
        numbers = pd.to_numeric(values, errors="coerce").astype(np.float64)
    except OverflowError:  # a whole number of hundreds of digits, which as text is infinite
        numbers = pd.to_numeric(values.astype(str), errors="coerce").astype(np.float64)
    bad = ~np.isfinite(numbers.to_numpy())
    if pd.api.types.infer_dtype(values) != "string":  # of typed files, where true counts as 1
        bad |= values.map(type).isin([bool, np.bool_]).to_numpy()
    if bad.any():
        raise error_at(source, table, bad, column, "a number",
                       "correct it, or read the file with the right columns")  # fmt: skip
    return numbers


def check_names(table: pd.DataFrame, column: str, source: object) -> pd.Series:
    """A column as names of one line, without blanks at their ends; raises LabelError at others."""
    names = table[column].astype(str).str.strip()
    bad = table[column].isna() | (names == "") | names.str.contains(CONTROL)
    if bad.any():
        raise error_at(source, table, bad, column, "a name of one line",
                       "correct it or remove the row")  # fmt: skip
    return names


def _check_votes(table: pd.DataFrame, votes: list[str], source: object) -> None:
    if votes != [f"votes_{k + 1}" for k in range(len(votes))]:
        raise LabelError(
            f"{source}: found {quote(votes, 20)}, expected votes_1 to votes_K without a gap; add "
            "the missing columns"
        )
    for column in votes:
        negative = table[column] < 0
        if negative.any():
            raise error_at(source, table, negative, column, "0 or more votes", "correct it")
    empty = table[votes].sum(axis=1) < LEAST_VOTES
    if empty.any():
        raise error_at(source, table, empty, votes[-1], f"a vote in {votes[0]} to {votes[-1]}",
                       "an image that nobody rated has no score: remove the row")  # fmt: skip


def check_repeats(table: pd.DataFrame, source: object) -> None:
    """Raise LabelError if an image, or an image of one worker, stands in a table twice."""
    keys = ["image", "worker"] if "worker" in table else ["image"]
    numbered = table if table.index.name else table.set_axis(range(1, len(table) + 1))
    repeats = numbered[numbered.duplicated(keys, keep=False)]
    if repeats.empty:
        return
    places = repeats.index.to_series().groupby([repeats[key] for key in keys], sort=False).agg(list)
    images = places.index.get_level_values("image")
    examples = [
        f"{cut(image)} ({table.index.name or 'row'}s {quote(rows)})"
        for image, rows in zip(images[:4], places[:4], strict=True)
    ]
    by = " and worker" if "worker" in table else ""
    raise LabelError(
        f"{source}, column image: found {len(places)} more than once: {quote(examples)}; expected "
        f"one row per image{by}; remove the repeated rows"
    )
