"""The reader of a user's own labels."""

from pathlib import Path

import numpy as np
import pandas as pd

from eat.data.labels.fields import IMAGE_NAMES, LabelFile, read_csv, read_json_lines, read_with
from eat.data.labels.readers import VOTES, from_votes
from eat.data.labels.table import LabelError, validate


def read_table(path: str | Path, low: float = 1, high: float = 10) -> pd.DataFrame:
    """Labels of your own: .csv, .tsv, .parquet or .jsonl (one JSON object on a line).

    Columns, whatever their case: image (or image_id, path, file, filename); score (or mean, mos)
    in 1..10, or ten vote counts votes_1..votes_10 (or 1..10); split and worker, both optional.

    Returns:
        image, split, score, votes_1..votes_10 and worker where given; other columns as they are.

    Raises:
        LabelError: the file is damaged or has other columns, or it is a .parquet and no reader of
            those is installed.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind == ".parquet":
        file = read_with(pd.read_parquet, path, "pyarrow")
    elif kind in (".jsonl", ".json", ".ndjson"):
        file = read_json_lines(path)
    else:
        file = read_csv(path)
    image = file.column(*IMAGE_NAMES)
    score, split, worker = (
        file.find("score", "mean", "mos"),
        file.find("split"),
        file.find("worker"),
    )
    votes = _own_votes(file, needed=score is None)
    columns = {"image": file.text(image)}
    columns |= {name: file.numbers(given, 0) for name, given in zip(VOTES, votes, strict=False)}
    columns |= {"worker": file.text(worker)} if worker else {}
    columns |= file.rest([image, *votes, *filter(None, (score, split, worker))])
    own = {name: values for name, values in columns.items() if name not in ("split", "score")}
    if score is None:
        table = from_votes(own, path, np.arange(1, 11))
    else:
        frame = pd.DataFrame({**own, "score": file.numbers(score), "split": ""})
        table = validate(frame, low, high, path)
    if split:
        table["split"] = file.text(split).str.lower().to_numpy()
        table.index = file.fields.index
        table = validate(table, low, high, path)
    head = ["image", "split", "score"]
    return table[head + [name for name in table.columns if name not in head]]


def _own_votes(file: LabelFile, needed: bool) -> list[str]:
    for names in (VOTES, [str(k) for k in range(1, 11)]):
        found = [file.find(name) for name in names]
        if all(found):
            return found
        if any(found) and (needed or names is VOTES):
            missing = names[found.index(None)]
            raise LabelError(
                f"{file.path}, line 1: no column {missing}; found "
                f"{', '.join(file.fields.columns)}; expected {names[0]} to {names[-1]}, the votes "
                "for 1 to 10; add it"
            )
    if needed:
        hint = ""
        if file.find("score2") and file.find("score11"):
            hint = "; score2 to score11 are AVA's released votes for 1 to 10: read it as 'ava'"
        raise LabelError(
            f"{file.path}, line 1: no column score (or mean, mos) and no votes_1 to votes_10; "
            f"found {', '.join(file.fields.columns)}; add one{hint}"
        )
    return []
