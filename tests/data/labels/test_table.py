import numpy as np
import pandas as pd
import pytest

from eat.data.labels.table import LabelError, validate, vote_columns


def small(**columns):
    return pd.DataFrame({"image": ["a", "b"], "split": "", "score": [1, 2.5], **columns})


def test_validate_keeps_rows_and_sets_dtypes():
    table = small(votes_1=[1, 2], votes_2=[0, 3], flash=["x", "y"])
    result = validate(table, 1, 5, "here")
    assert len(result) == 2 and result["votes_1"].dtype == np.float64
    assert result["flash"].tolist() == ["x", "y"]
    assert table["votes_1"].dtype == np.int64


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"score": [1, np.nan]}, "row 2, column score: found 'nan', expected a number"),
        ({"score": [np.inf, -np.inf]}, r"row 1, .*found 'inf', .*\(2 such rows\)"),
        ({"score": [0.5, 2]}, "row 1, column score: found '0.5', expected 1 to 5"),
        ({"image": ["a", None]}, "row 2, column image: found '(None|nan)', expected a name"),
        (
            {"image": ["a", "b\nc"]},
            r"row 2, column image: found 'b\\nc', expected a name of one line",
        ),
        (
            {"worker": ["w", "v\x1b[31m"]},
            r"row 2, column worker: found 'v\\x1b\[31m', expected a na",
        ),
        (
            {"score": [1, 10**400]},
            r"row 2, column score: found '10{59}... \(401 characters\)', exp",
        ),
        ({"votes_1": [1, 1e-320], "votes_2": 0}, "row 2, column votes_2: .*expected a vote in"),
        ({"split": ["train", "trian"]}, "row 2, column split: found 'trian'"),
        (
            {"image": ["a", "a"]},
            r"found 1 more than once: a \(rows 1, 2\); expected one row per im",
        ),
        ({"worker": ["w", " "]}, "row 2, column worker: found ' ', expected a name"),
        ({"votes_1": [1, -1], "votes_2": 1}, "row 2, column votes_1: found '-1.0', expected 0 or"),
        ({"votes_1": [1, 0], "votes_2": 0}, "row 2, column votes_2: .*expected a vote in votes_1"),
        ({"votes_1": [1, 0], "votes_3": 1}, "found votes_1, votes_3, expected votes_1 to votes_K"),
    ],
)
def test_validate_refuses(columns, message):
    with pytest.raises(LabelError, match="here.*" + message):
        validate(small(**columns), 1, 5, "here")
    with pytest.raises(LabelError, match="here: no column score; found image, split"):
        validate(small().drop(columns="score"), 1, 5, "here")


def test_validate_counts_all_repeated_images():
    table = pd.DataFrame({"image": list("abcdefabcde"), "split": "", "score": 1.0})
    with pytest.raises(LabelError, match=r"found 5 more than once: a \(rows 1, 7\), .*, \.\.\.;"):
        validate(table, 0, 1, "here")


def test_an_image_may_come_once_per_worker():
    assert len(validate(small(image=["a", "a"], worker=["v", "w"]), 1, 5, "here")) == 2
    with pytest.raises(LabelError, match="one row per image and worker"):
        validate(small(image=["a", "a"], worker=["w", "w"]), 1, 5, "here")


def test_votes_are_in_numeric_order():
    table = pd.DataFrame(columns=[f"votes_{k}" for k in (10, 2, 1, 9)] + ["votes"])
    assert vote_columns(table) == ["votes_1", "votes_2", "votes_9", "votes_10"]
