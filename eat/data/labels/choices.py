"""What people chose: of two photographs the better, or of a set the best and the worst."""

from pathlib import Path

import pandas as pd

from eat.data.labels.fields import IMAGE_NAMES, LabelFile, read_fields
from eat.data.labels.table import LabelError, check_names, error_at, quote

MERITS = {"best": 1.0, "": 0.0, "worst": -1.0}  # of the words in a column label


def read_choices(path: str | Path) -> pd.DataFrame:
    """Read a file of choices: .csv, .tsv, .parquet or .jsonl (one JSON object on a line).

    Columns, whatever their case: winner and loser, of two photographs, and maybe set; or set, image
    (or image_id, path, file, filename) and one of rank (1 is the best), score (the highest is the
    best) and label (best, worst or nothing). Other columns are kept.

    Returns:
        A row a pair: winner, loser, maybe set; or a row a photograph of a set: set, image, merit,
        which is the higher the better.

    Raises:
        LabelError: the file cannot be read; a column is missing, or a value; a photograph is
            compared with itself, or twice in a set; or a set has no best and worst.
    """
    file = read_fields(path)
    if file.fields.empty:
        raise LabelError(f"{file.path}: found no rows, expected a choice a row")
    if file.find("winner") or file.find("loser"):
        return _pairs(file)
    if file.find("set"):
        return _sets(file)
    raise LabelError(
        f"{file.path}, line 1: no columns winner and loser, nor set, image and rank (or score, or "
        f"label); found {quote(file.fields.columns, 20)}; add them"
    )


def _pairs(file: LabelFile) -> pd.DataFrame:
    found = {name: file.column(name) for name in ("winner", "loser")}
    if group := file.find("set"):
        found["set"] = group
    table = pd.DataFrame({name: file.text(column) for name, column in found.items()})
    table = table.assign(**file.rest([*found.values()]))
    for column in found:
        table[column] = check_names(table, column, file.path)
    same = table["winner"] == table["loser"]
    if same.any():
        raise error_at(file.path, table, same, "loser", "another photograph than the winner",
                       "remove the row")  # fmt: skip
    return table


def _sets(file: LabelFile) -> pd.DataFrame:
    found = {"set": file.column("set"), "image": file.column(*IMAGE_NAMES)}
    table = pd.DataFrame({name: file.text(column) for name, column in found.items()})
    for column in found:
        table[column] = check_names(table, column, file.path)
    rank, score = file.find("rank"), file.find("score", "mean", "mos")
    if rank:
        found["merit"], table["merit"] = rank, -file.numbers(rank)
    elif score:
        found["merit"], table["merit"] = score, file.numbers(score)
    else:
        found["merit"] = file.column("rank", "score", "label")
        words = file.text(found["merit"]).str.lower()
        table["merit"] = words.map(MERITS)
        if table["merit"].isna().any():
            raise error_at(file.path, table.assign(label=words), table["merit"].isna(), "label",
                           "best, worst or nothing", "correct it")  # fmt: skip
    table = table.assign(**file.rest([*found.values()]))
    again = table.duplicated(["set", "image"])
    if again.any():
        raise error_at(file.path, table, again, "image", "each photograph of a set once",
                       "remove the row")  # fmt: skip
    merits = table.groupby("set")["merit"]
    least, most = merits.transform("min"), merits.transform("max")
    undecided = least == most
    if rank is None and score is None:  # all words are needed, or all others would be the worst
        undecided |= (least > MERITS["worst"]) | (most < MERITS["best"])
    if undecided.any():
        raise error_at(file.path, table, undecided, "set", "a set with a best and a worst",
                       "complete the set, or remove it")  # fmt: skip
    return table
