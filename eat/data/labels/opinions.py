"""What one person thinks of photographs: ratings, or choices between two."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from eat.data.labels.fields import IMAGE_NAMES, LabelFile, read_fields
from eat.data.labels.table import LabelError, error_at, quote

USUAL_SCALES = ((0, 1), (1, 5), (1, 10), (0, 10), (0, 100))
MOST_RATING = 1e30  # its square is a float64, as ridge regression needs


class Opinions(NamedTuple):
    """The opinions of a file.

    Attributes:
        table: image and score, or winner and loser, in the file's order. An image may have several
            ratings.
        low: lowest rating that could be given; 0 of choices.
        high: highest one; 1 of choices.
        guessed: the bounds are those of the first usual scale that has all ratings.
    """

    table: pd.DataFrame
    low: float
    high: float
    guessed: bool


def read_opinions(
    ratings: str | Path | pd.DataFrame, low: float | None = None, high: float | None = None
) -> Opinions:
    """Read the opinions of one person.

    Args:
        ratings: .csv, .tsv, .parquet or .jsonl, or a table, with the columns winner and loser; or
            image (or image_id, path, file, filename) and score (or rating, mean, mos), whatever
            their case.
        low: lowest rating that could be given, if ``high`` is given too.
        high: highest one.

    Raises:
        LabelError: the file cannot be read, has other columns or several people's ratings; a name
            is empty, a winner its own loser, or a rating no number within the bounds.
    """
    if isinstance(ratings, pd.DataFrame):
        index = pd.RangeIndex(1, len(ratings) + 1, name="row")
        file = LabelFile(Path("ratings"), ratings.set_axis(index))
    else:
        file = read_fields(ratings)
    if file.fields.empty:
        raise LabelError(f"{file.path}: found no rows, expected a rating or choice a row")
    worker = file.find("worker")
    people = file.text(worker).drop_duplicates() if worker else ()
    if len(people) > 1:
        raise LabelError(
            f"{file.path}: ratings of several workers, {quote(people)}: "
            "expected those of one person; keep one worker's rows"
        )
    if file.find("winner") or file.find("loser"):
        if file.find(*IMAGE_NAMES):
            raise LabelError(
                f"{file.path}: columns of ratings and of choices: expected image and score, or "
                "winner and loser; remove the others"
            )
        table = _names(file, {"winner": ("winner",), "loser": ("loser",)})
        same = table["winner"] == table["loser"]
        if same.any():
            raise error_at(file.path, table, same, "loser", "another image than the winner",
                           "remove the row")  # fmt: skip
        return Opinions(table.reset_index(drop=True), 0, 1, False)
    table = _names(file, {"image": IMAGE_NAMES})
    score = file.column("score", "rating", "mean", "mos")
    if (low is None) != (high is None):
        raise LabelError("low and high are the ends of one scale: give --low and --high, or none")
    guessed = low is None
    if low is None or high is None:
        values = file.numbers(score, -MOST_RATING, MOST_RATING)
        low, high = next(
            (one for one in USUAL_SCALES if one[0] <= values.min() and values.max() <= one[1]),
            (values.min(), values.max()),
        )
    elif not -MOST_RATING <= low < high <= MOST_RATING:
        raise LabelError(
            f"low is {low} and high is {high}: expected low below high, from {-MOST_RATING:g} to "
            f"{MOST_RATING:g}"
        )
    table["score"] = file.numbers(score, low, high)
    return Opinions(table.reset_index(drop=True), float(low), float(high), guessed)


def _names(file: LabelFile, columns: dict[str, Sequence[str]]) -> pd.DataFrame:
    """Columns of names of images, none of them empty."""
    table = pd.DataFrame({own: file.text(file.column(*names)) for own, names in columns.items()})
    for column in table:
        empty = table[column] == ""
        if empty.any():
            raise error_at(file.path, table, empty, column, "the name of an image",
                           "correct it or remove the row")  # fmt: skip
    return table
