"""Columns of the labels as targets: checked on entry, on scales of their own."""

from pathlib import Path

import pytest

from eat.data.labels.reading import read_labels
from eat.data.labels.table import LabelError
from eat.data.registry import AADB_ATTRIBUTES, DATASETS
from eat.data.scales import ScoreScale

ROWS = ["a.jpg,5,2", "b.jpg,6,3", "c.jpg,7,4"]


def read(folder: Path, rows: list[str], *targets: str) -> list[float]:
    (folder / "own.csv").write_text("\n".join(["image,score,Warmth", *rows, ""]))
    return read_labels("table", folder / "own.csv", targets=targets)[targets[0]].tolist()


def test_a_target_is_a_column_by_its_very_name(tmp_path: Path) -> None:
    assert read(tmp_path, ROWS, "Warmth", "score") == [2, 3, 4]
    with pytest.raises(LabelError, match=r"own.csv: no column 'warmth' .* found score, Warmth"):
        read(tmp_path, ROWS, "warmth")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", r"row 2, column Warmth: found 'nan', expected a number"),
        ("warm", r"row 2, column Warmth: found 'warm', expected a number"),
        ("inf", r"row 2, column Warmth: found 'inf', expected a number"),
        ("0.5", r"row 2, column Warmth: found '0.5', expected 1 to 10"),
    ],
)
def test_a_value_that_is_no_target_is_named_with_its_row(
    value: str, message: str, tmp_path: Path
) -> None:
    rows = [ROWS[0], f"b.jpg,6,{value}", ROWS[2]]
    assert read(tmp_path, rows, "score") == [5, 6, 7]  # who does not ask for it is not bothered
    with pytest.raises(LabelError, match=message):
        read(tmp_path, rows, "Warmth")


def test_columns_have_the_scale_of_the_scores_unless_the_registry_says_otherwise() -> None:
    color = DATASETS["icaa17k"].scales(["score", "color", "probability"])
    assert color["score"] == color["color"] == DATASETS["icaa17k"].scale
    assert color["probability"] == ScoreScale(0, 1, 1, 0.5)
    assert len(AADB_ATTRIBUTES) == 11
    assert DATASETS["aadb"].scales(["score", "light"])["light"] == ScoreScale(-1, 1, 1, 0)
    assert [*DATASETS["ava"].scales()] == ["score"]
