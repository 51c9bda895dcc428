"""The table of a user's own labels."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from eat.data.labels.fields import IMAGE_NAMES, LabelFile, read_fields
from eat.data.labels.formats.build import from_votes
from eat.data.labels.table import LabelError, cut, quote, validate
from eat.data.registry import PLAIN

OTHER_SCALE = f"correct it, or give the bounds of your scale by --data.low and --data.high {PLAIN}"


def read_table(
    path: str | Path, low: float | None = None, high: float | None = None
) -> pd.DataFrame:
    """Labels of your own: .csv, .tsv, .parquet or .jsonl (one JSON object on a line).

    Columns, whatever their case: image (or image_id, path, file, filename); score (or mean, mos)
    from ``low`` to ``high``, or vote counts votes_1..votes_K of evenly spaced scores from ``low``
    to ``high``; split and worker, both optional. Ten vote counts may be named 1..10.

    Args:
        path: the file.
        low: lowest score; None takes 1.
        high: highest score; None takes 10. With neither bound K is ten, else 2 or more.

    Returns:
        image, split, score, votes_1..votes_K and worker where given; other columns as they are.
    """
    bins = 10 if low is None and high is None else None
    low, high = 1.0 if low is None else low, 10.0 if high is None else high
    file = read_fields(path)
    image = file.column(*IMAGE_NAMES)
    score = file.find("score", "mean", "mos")
    split, worker = file.find("split"), file.find("worker")
    votes = _find_votes(file, bins, needed=score is None)
    columns: dict[str, pd.Series | str | float] = {
        "image": file.text(image),
        "split": file.text(split).str.lower() if split else "",
        "score": file.numbers(score) if score else 0.0,
    }
    columns |= {f"votes_{k}": file.numbers(name, 0) for k, name in enumerate(votes, start=1)}
    columns |= {"worker": file.text(worker)} if worker else {}
    columns |= file.rest([image, *votes, *filter(None, (score, split, worker))])
    if score is None:
        return from_votes(columns, file.path, np.linspace(low, high, len(votes)))
    return validate(pd.DataFrame(columns), low, high, file.path, advice=OTHER_SCALE)


def _find_votes(file: LabelFile, bins: int | None, *, needed: bool) -> list[str]:
    """The ``bins`` columns of votes in order, or 2 or more for None; none beside a score."""
    present = [c for c in file.fields.columns if re.fullmatch(r"votes_\d+", c, re.IGNORECASE)]
    count = bins or max(len(present), 2)
    names = [f"votes_{k + 1}" for k in range(count)] if present else list(map(str, range(1, 11)))
    found = [name for name in map(file.find, names) if name]
    absent = [name for name in names if file.find(name) is None]
    if not absent and len(present) in (0, len(found)):
        return found
    columns = quote(file.fields.columns, 20)
    if present or (found and needed):
        problem = f"no column {cut(absent[0])}" if absent else f"{len(present)} columns of votes"
        other = f"for another number give --data.low and --data.high {PLAIN}"
        advice = "add it" if absent else other
        raise LabelError(
            f"{file.path}, line 1: {problem}; found {columns}; expected {names[0]} to {names[-1]}, "
            f"the votes for evenly spaced scores; {advice}"
        )
    if needed:
        ava = file.find("score2") and file.find("score11")
        hint = "; score2 to score11 are AVA's votes for 1 to 10: read it as 'ava'" if ava else ""
        raise LabelError(
            f"{file.path}, line 1: no column score (or mean, mos) and no votes_1 to "
            f"votes_{bins or 'K'}; found {columns}; add one{hint}"
        )
    return []
