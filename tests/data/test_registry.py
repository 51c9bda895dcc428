import pickle

import pytest

from eat.data.labels.reading import read_labels, read_ratings
from eat.data.labels.table import LabelError
from eat.data.registry import DATASETS, DatasetSpec, find_dataset
from eat.data.scales import ScoreScale


def test_the_registry_is_consistent():
    assert list(DATASETS) == [
        "ava", "tad66k", "flickr_aes", "aadb", "icaa17k", "spaq", "para", "table", "sample",
    ]  # fmt: skip
    for name, row in DATASETS.items():
        assert isinstance(row, DatasetSpec) and row.name == name
        assert row.low < row.positive_above < row.high
        assert 0 < row.high / row.target_scale <= 1
        assert set(row.counts) <= {"train", "val", "test"}
        assert set().union(*row.layouts) <= {"", "train", "val", "test"}
    assert DATASETS["table"].positive_above == 5.5
    assert (DATASETS["ava"].num_votes, DATASETS["para"].num_votes) == (10, 9)
    assert DATASETS["flickr_aes"].scale == ScoreScale(1, 5, target_scale=5, positive_above=3)


def test_a_table_of_ones_own_has_the_bounds_that_are_given():
    assert find_dataset("table", 0, 100).scale == ScoreScale(0, 100, 100, 50)
    assert find_dataset("table", high=4).scale == ScoreScale(1, 4, 4, 2.5)
    assert find_dataset("table") is DATASETS["table"]
    with pytest.raises(ValueError, match="'table': scores of AVA are 1 to 10; leave --data.low"):
        find_dataset("ava", 1, 10)
    for low, high in ((5, 5), (10, 1), (-5, 0), (0, float("inf")), (float("nan"), 5)):
        with pytest.raises(ValueError, match="low is .* and high is .*: expected .* low below"):
            find_dataset("table", low, high)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="'AADB'.* mean 'aadb'.* ava, tad66k, .* table"):
        find_dataset("AADB")
    with pytest.raises(ValueError, match="did you mean 'tad66k'"):
        read_labels("TAD66", "x")
    with pytest.raises(ValueError, match="did you mean"):
        read_ratings("", "x")


def test_a_row_reaches_another_process_whole():
    assert pickle.loads(pickle.dumps(DATASETS)) == DATASETS
    own = find_dataset("table", 0, 1)
    assert pickle.loads(pickle.dumps(own)) == own


OWN = """
import pandas as pd
from eat.data.registry import DatasetSpec

def read(path):
    return pd.read_csv(path).rename(columns={"file": "image", "mean": "score"}).assign(split="")

spec = DatasetSpec(
    name="album", title="my album", low=0, high=100, target_scale=100, positive_above=50, read=read
)

def made(): return spec
def taken(): return DatasetSpec("ava", "AVA", 1, 10, 10, 5, read)
def path(): return DatasetSpec("x.py:y", "x", 1, 10, 10, 5, read)
def none(): pass
def fails(): return DatasetSpec("x")
words = DatasetSpec("words", "words", 1, 10, 10, 5, lambda path: "labels")
broken = DatasetSpec("broken", "broken", 1, 10, 10, 5, lambda path: 1 / 0)
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "labels.csv").write_text("file,mean\na.jpg,70\nb.jpg,10\n")
    (tmp_path / "my data.py").write_text(OWN)
    return str(tmp_path / "my data.py")


def test_a_data_set_of_ones_own_file_is_read_and_checked(own, tmp_path):
    for name in ("spec", "made"):
        assert find_dataset(f"{own}:{name}").scale == ScoreScale(0, 100, 100, 50)
        table = read_labels(f"{own}:{name}", tmp_path / "labels.csv")
        assert table["score"].tolist() == [70, 10]
    (tmp_path / "labels.csv").write_text("file,mean\na.jpg,700\n")
    with pytest.raises(LabelError, match=r"column score: found '700.0', expected 0 to 100"):
        read_labels(f"{own}:spec", tmp_path / "labels.csv")
    with pytest.raises(ValueError, match="scores of my album are 0 to 100; leave --data.low"):
        find_dataset(f"{own}:spec", 0, 1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "is NoneType: expected an eat.data.registry.DatasetSpec"),
        ("taken", "its name is 'ava': expected one that is not taken yet"),
        ("path", r"its name is 'x.py:y': expected"),
        ("fails", r"my data.py, line 16: TypeError: "),
        ("spce", "did you mean 'spec'"),
        ("words", "read gave str: expected a pandas DataFrame"),
        ("broken", r"my data.py, line 18: ZeroDivisionError"),
    ],
)
def test_a_data_set_file_that_is_not_as_expected_is_told(own, tmp_path, name, message):
    with pytest.raises(ValueError, match=message):
        read_labels(f"{own}:{name}", tmp_path / "labels.csv")
