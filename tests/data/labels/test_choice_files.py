"""Files of choices: what they hold, and what is refused with its line."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from eat.data.labels.choices import read_choices
from eat.data.labels.table import LabelError


def test_pairs_and_sets_are_read_in_every_form(tmp_path: Path) -> None:
    pairs = pd.DataFrame({"winner": ["a.jpg", "b.jpg"], "loser": ["b.jpg", "c.jpg"], "age": [3, 4]})
    pairs.rename(columns=str.upper).to_csv(tmp_path / "x.csv", index=False)
    pairs.to_json(tmp_path / "x.jsonl", orient="records", lines=True)
    pairs.to_parquet(tmp_path / "x.parquet")
    for kind in ("csv", "jsonl", "parquet"):
        found = read_choices(tmp_path / f"x.{kind}")
        assert found[["winner", "loser"]].to_numpy().tolist() == [
            ["a.jpg", "b.jpg"], ["b.jpg", "c.jpg"],
        ]  # fmt: skip
        assert found.iloc[:, 2].tolist() == [3, 4]
    # A rank, a score and words say the same.
    for column, values in {
        "rank": [1, 3, 2], "score": [7.5, -1, 2], "label": ["Best", "worst", ""],
    }.items():  # fmt: skip
        rows = zip("abc", values, strict=True)
        lines = [{"set": 5, "file": f"{name}.jpg", column: value} for name, value in rows]
        path = tmp_path / "sets.jsonl"
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        table = read_choices(path)
        assert table.sort_values("merit")["image"].tolist() == ["b.jpg", "c.jpg", "a.jpg"]
        assert set(table["set"]) == {"5"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,score\na,1\n", "line 1: no columns winner and loser, nor set, image and rank"),
        ("winner,worse\na,b\n", "line 1: no column loser"),
        ("winner,loser\na,b\nb,b\n", "line 3, column loser: found 'b', expected another"),
        ("winner,loser\n", "found no rows, expected a choice a row"),
        ("winner,loser\na,\n", "line 2, column loser: found '', expected a name"),
        ("set,image\n1,a\n", "line 1: no column rank or score or label"),
        ("set,image,rank\n1,a,1\n1,b,x\n", "line 3, column rank: found 'x', expected a number"),
        ("set,image,rank\n1,a,1\n1,a,2\n", "line 3, column image: found 'a', expected each"),
        ("set,image,rank\n1,a,1\n1,b,2\n2,c,1\n", "line 4, column set: found '2', expected a set"),
        ("set,image,rank\n1,a,2\n1,b,2\n", "line 2, column set: found '1', expected a set with"),
        ("set,image,label\n1,a,best\n1,b,\n", "line 2, column set: found '1', expected a set with"),
        ("set,image,label\n1,a,good\n1,b,\n", "column label: found 'good', expected best, worst"),
    ],
)
def test_what_is_no_choice_is_one_error_with_its_line(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(LabelError, match=re.escape(message)):
        read_choices(tmp_path / "x.csv")
