"""Parts of a split by a column of its labels."""

import numpy as np
import pandas as pd
import pytest

from eat.cli import main
from eat.data.labels.table import LabelError
from eat.evaluation.slices import slice_metrics, slices


def test_slices_follow_a_column_and_tags_count_in_both_columns() -> None:
    table = pd.DataFrame({"tag1": ["Sky", "Sea", ""], "tag2": ["", "Sky", "Sea"]})
    table["theme"], table["light"] = ["a", "b", "a"], np.arange(3.0)
    assert {k: v.tolist() for k, v in slices(table, "tag").items()} == {
        "Sea": [1, 2],
        "Sky": [0, 1],
    }
    assert {k: v.tolist() for k, v in slices(table, "theme").items()} == {"a": [0, 2], "b": [1]}
    with pytest.raises(LabelError, match="no column 'colour' to slice by; the labels have tag1"):
        slices(table, "colour")


def test_a_numeric_column_is_cut_into_quarters() -> None:
    table = pd.DataFrame({"light": np.arange(100.0)})
    assert sorted(map(len, slices(table, "light").values())) == [25, 25, 25, 25]


def test_rows_without_a_value_are_in_no_slice() -> None:
    table = pd.DataFrame({"light": [np.nan, 1.0, 1.0, 2.0], "place": [None, "a", "", "a"]})
    table["nothing"] = np.nan
    assert {k: v.tolist() for k, v in slices(table, "light").items()} == {"1.0": [1, 2], "2.0": [3]}
    assert {k: v.tolist() for k, v in slices(table, "place").items()} == {"a": [1, 3]}
    many = pd.DataFrame({"light": [*range(100), np.nan]})
    assert sorted(map(len, slices(many, "light").values())) == [25, 25, 25, 25]
    with pytest.raises(LabelError, match="column 'nothing' is empty"):
        slices(table, "nothing")


def test_a_column_without_two_equal_values_gives_no_slices_and_says_so() -> None:
    table = pd.DataFrame({"image": ["a.jpg", "b.jpg", "c.jpg"]})
    with pytest.raises(LabelError, match="column 'image' has no value twice"):
        slice_metrics(table, "image", lambda rows: {"srcc": 1.0})


def test_a_list_is_asked_for_as_one_writes_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "best.safetensors", "--slice_by", "tag"])
    assert "found 'tag', expected a list such as [a,b] or null" in capsys.readouterr().err
