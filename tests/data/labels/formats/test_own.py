import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from eat.data.labels.formats.own import read_table
from eat.data.labels.table import LabelError, vote_columns

fast = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def test_own_columns_are_kept_as_they_are(tmp_path):
    (tmp_path / "a.csv").write_text(
        "ISO speed,Filename,Mean,camera,Split\n100,a.jpg,5,X,train\n,b.jpg,6,,Test\n"
    )
    table = read_table(tmp_path / "a.csv")
    assert table.columns.tolist() == ["image", "split", "score", "ISO speed", "camera"]
    assert table["split"].tolist() == ["train", "test"]
    assert table["camera"].tolist() == ["X", ""]
    assert table["ISO speed"][0] == 100 and np.isnan(table["ISO speed"][1])


def test_own_votes_may_be_named_1_to_10(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("image," + ",".join(map(str, range(1, 11))) + "\na.jpg" + ",1" * 10 + "\n")
    table = read_table(path)
    assert table["score"].tolist() == [5.5]
    assert len(vote_columns(table)) == 10


def test_json_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"image": "a.jpg", "mos": 5, "flash": true}\n\n{"mos": "6", "image": "b"}\n')
    table = read_table(path)
    assert table["score"].tolist() == [5.0, 6.0]
    half = r'{"image": "c\udce9", "mos": 1}'
    for bad in ("[1]", '{"image": "c", "mos": [1]}', '{"image": "c"', "[" * 10**5, half):
        path.write_text('{"image": "a.jpg", "mos": 5}\n' + bad + "\n")
        with pytest.raises(LabelError, match="a.jsonl, line 2: .*one JSON object"):
            read_table(path)
    path.write_text('{"image": "a.jpg", "mos": 5}\n\n{"image": "b.jpg"}\n')
    with pytest.raises(LabelError, match="a.jsonl, line 3, column mos"):
        read_table(path)


def test_parquet(tmp_path, monkeypatch):
    frame = pd.DataFrame({"image": ["a.jpg", "b.jpg"], "score": [5.0, 6.5], "iso": [100, 200]})
    path = tmp_path / "a.parquet"
    path.write_bytes(b"content")
    monkeypatch.setattr(pd, "read_parquet", lambda path: frame.copy())
    table = read_table(path)
    assert table["score"].tolist() == [5.0, 6.5] and table["iso"].tolist() == [100, 200]


@fast
@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[a-zé][a-z _/]{0,8}[a-z]\.jpg", fullmatch=True),
            st.floats(1, 10),
            st.sampled_from(["train", "val", "test", ""]),
        ),
        min_size=1,
        unique_by=lambda row: row[0],
    )
)
def test_own_table_round_trip(tmp_path, rows):
    frame = pd.DataFrame(rows, columns=["image", "score", "split"])
    frame.to_csv(tmp_path / "round.csv", index=False)
    table = read_table(tmp_path / "round.csv")
    assert table["image"].tolist() == frame["image"].tolist()
    assert table["split"].tolist() == frame["split"].tolist()
    np.testing.assert_allclose(table["score"], frame["score"], rtol=1e-14)
    table.to_csv(tmp_path / "again.csv", index=False)
    assert_frame_equal(read_table(tmp_path / "again.csv"), table)


def write_votes(path, *rows):
    """Votes of as many bins as the first row has."""
    header = "image," + ",".join(f"votes_{k}" for k in range(1, len(rows[0])))
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 100), (1, 5), (-1, 1), (None, 4), (5, None)])
def test_scores_have_the_bounds_that_are_given(tmp_path, low, high):
    bottom, top = 1 if low is None else low, 10 if high is None else high
    path = tmp_path / "own.csv"
    path.write_text(f"image,score\na.jpg,{bottom}\nb.jpg,{top}\n")
    assert read_table(path, low, high)["score"].tolist() == [bottom, top]
    for outside in (bottom - 0.1, top + 0.1):
        path.write_text(f"image,score\na.jpg,{bottom}\nb.jpg,{outside}\n")
        expected = f"line 3, column score: .*expected {bottom} to {top}; .*--data.low and --data.h"
        with pytest.raises(LabelError, match=expected):
            read_table(path, low, high)


def test_votes_are_evenly_spaced_between_the_bounds(tmp_path):
    path = write_votes(
        tmp_path / "a.csv", ("a.jpg", 1, 0, 1), ("b.jpg", 0, 0, 4), ("c.jpg", 0, 3, 1)
    )
    assert read_table(path, 0, 100)["score"].tolist() == [50, 100, 62.5]
    two = write_votes(tmp_path / "b.csv", ("a.jpg", 3, 1))
    assert read_table(two, low=0, high=1)["score"].tolist() == [0.25]
    ten = write_votes(tmp_path / "c.csv", ("a.jpg", *[0] * 9, 2))
    assert read_table(ten)["score"].tolist() == read_table(ten, 1, 10)["score"].tolist() == [10]


def test_votes_of_another_number_than_ten_need_bounds(tmp_path):
    for count in (3, 12):
        path = write_votes(tmp_path / "a.csv", ("a.jpg", *[1] * count))
        with pytest.raises(LabelError, match="a.csv, line 1: .*expected votes_1 to votes_10"):
            read_table(path)
        assert len(vote_columns(read_table(path, 0, 1))) == count
    path = write_votes(tmp_path / "a.csv", ("a.jpg", 1))
    with pytest.raises(LabelError, match="no column votes_2"):
        read_table(path, 0, 1)
    path.write_text("image,votes_1,votes_3\na.jpg,1,1\n")
    with pytest.raises(LabelError, match="no column votes_2"):
        read_table(path, 0, 1)
