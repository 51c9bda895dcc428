"""AVA: the votes of its photographs, with tags and challenges."""

from pathlib import Path

import numpy as np
import pandas as pd

from eat.data.labels.fields import LabelFile, read_blank_separated, read_csv, read_text
from eat.data.labels.formats.build import from_votes
from eat.data.labels.table import LabelError, error_at, quote

AVA_RELEASED = ["image_id", *(f"score{k}" for k in range(2, 12)), "tag1", "tag2", "tag3"]


def read_ava(path: str | Path) -> pd.DataFrame:
    """AVA (Murray et al., CVPR 2012): ``AVA.txt``, or a .csv of the released random split.

    AVA.txt has index, image id, votes for 1..10, two tags and a challenge on each line. A CSV has
    the header image_id, score2..score11, tag1, tag2, tag3, where scoreK+1 counts votes for K.
    tags.txt and challenges.txt give the names, where they lie beside the labels.

    Returns:
        image ("ID.jpg"), split "", score (mean vote, 1..10), votes_1..votes_10, tag1, tag2 and
        challenge (names, or numbers without a name, "" for 0).
    """
    path = Path(path)
    if path.suffix.lower() == ".csv":
        file = read_csv(path)
        _refuse_shifted_votes(file)
        names = AVA_RELEASED
    else:
        names = ["index", "image id", *(f"votes for {k}" for k in range(1, 11))]
        names += ["tag 1", "tag 2", "challenge"]
        file = read_blank_separated(path, names)
        file.numbers("index", whole=True)
    ids, votes, topics = names[-14], names[-13:-3], names[-3:]
    image_ids = file.text(ids)
    odd = ~image_ids.str.fullmatch("[0-9]+")
    if odd.any():
        raise error_at(path, file.fields, odd, ids, "a whole number", "correct it")
    table = {"image": image_ids + ".jpg"}
    table |= {f"votes_{k + 1}": file.numbers(name, 0, whole=True) for k, name in enumerate(votes)}
    lists = {"tag1": "tags.txt", "tag2": "tags.txt", "challenge": "challenges.txt"}
    for (column, name), topic in zip(lists.items(), topics, strict=True):
        known = read_names(path.with_name(name)) if path.with_name(name).is_file() else {}
        numbers = file.numbers(topic, 0, 1e6, whole=True).astype(int)
        table[column] = numbers.map(lambda k, known=known: known.get(k, str(k) if k else ""))
    return from_votes(table, path, np.arange(1.0, 11.0))


def _refuse_shifted_votes(file: LabelFile) -> None:
    missing = [name for name in AVA_RELEASED if name not in file.fields.columns]
    if missing:
        raise LabelError(
            f"{file.path}, line 1: no column {missing[0]}; found "
            f"{quote(file.fields.columns, 20)}; expected {', '.join(AVA_RELEASED)}. In the "
            "released files score2 counts the votes for 1 and score11 those for 10: with score1 to "
            "score10 every vote may be off by one. Rename the columns if you know which score each "
            "counts, or give the votes as votes_1 to votes_10 of data set 'table'"
        )


def read_names(path: str | Path) -> dict[int, str]:
    """AVA's tags.txt or challenges.txt: a number, a blank and a name on each line.

    Raises:
        LabelError: a line has no whole number or no name.
    """
    names = {}
    for line, text in enumerate(read_text(path).split("\n"), start=1):
        number, _, name = text.strip().partition(" ")
        if number and not (number.isdecimal() and name):
            raise LabelError(
                f"{path}, line {line}: found {text!r}, expected a number and a name; correct it"
            )
        if number:
            names[int(number)] = name.strip()
    return names
