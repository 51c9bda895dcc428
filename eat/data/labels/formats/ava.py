"""AVA: the votes of its photographs, with tags and challenges."""

from pathlib import Path

import numpy as np
import pandas as pd

from eat.data.labels.fields import LabelFile, read_blank_separated, read_csv, read_text
from eat.data.labels.formats.build import from_votes
from eat.data.labels.table import LabelError, error_at

AVA_RELEASED = ["image_id", *(f"score{k}" for k in range(2, 12)), "tag1", "tag2", "tag3"]


def read_ava(
    path: str | Path, tags: str | Path | None = None, challenges: str | Path | None = None
) -> pd.DataFrame:
    """AVA (Murray et al., CVPR 2012): ``AVA.txt``, or a .csv of the released random split.

    Args:
        path: AVA.txt (index, image id, votes for 1..10, two tags, challenge), or a CSV with the
            header image_id, score2..score11, tag1, tag2, tag3, where scoreK+1 counts votes for K.
        tags: file of numbers and names; None takes tags.txt beside the labels, if there is one.
        challenges: the same, challenges.txt.

    Returns:
        image ("ID.jpg"), split "", score (mean vote, 1..10), votes_1..votes_10, tag1, tag2 and
        challenge (names, or numbers without a name, "" for 0).

    Raises:
        LabelError: the file, or a file of names, is damaged or has other columns.
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
    tag_names = _names_beside(path, tags, "tags.txt")
    challenge_names = _names_beside(path, challenges, "challenges.txt")
    lists = {"tag1": tag_names, "tag2": tag_names, "challenge": challenge_names}
    for (column, known), topic in zip(lists.items(), topics, strict=True):
        numbers = file.numbers(topic, 0, 1e6, whole=True).astype(int)
        known_or_number = {k: known.get(k, str(k) if k else "") for k in numbers.unique()}
        table[column] = numbers.map(known_or_number)
    return from_votes(table, path, np.arange(1.0, 11.0))


def _names_beside(path: Path, given: str | Path | None, name: str) -> dict[int, str]:
    beside = path.with_name(name)
    if given is None and not beside.is_file():
        return {}
    return read_names(given or beside)


def _refuse_shifted_votes(file: LabelFile) -> None:
    missing = [name for name in AVA_RELEASED if name not in file.fields.columns]
    if missing:
        raise LabelError(
            f"{file.path}, line 1: no column {missing[0]}; found "
            f"{', '.join(file.fields.columns)}; expected {', '.join(AVA_RELEASED)}. In the "
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
