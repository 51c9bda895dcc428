import pickle

import pytest

from eat.data.labels.reading import read_labels, read_ratings
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
