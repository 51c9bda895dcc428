import pickle

import pytest

from eat.data.labels.reading import read_labels, read_ratings
from eat.data.registry import DATASETS, Dataset, find_dataset


def test_the_registry_is_consistent():
    assert list(DATASETS) == [
        "ava", "tad66k", "flickr_aes", "aadb", "icaa17k", "spaq", "para", "table", "sample",
    ]  # fmt: skip
    for name, row in DATASETS.items():
        assert isinstance(row, Dataset) and row.name == name
        assert row.low < row.positive_above < row.high
        assert 0 < row.high / row.target_scale <= 1
        assert set(row.counts) <= {"train", "val", "test"}
        assert set().union(*row.layouts) <= {"", "train", "val", "test"}
    assert DATASETS["table"].positive_above == 5.5
    assert (DATASETS["ava"].num_votes, DATASETS["para"].num_votes) == (10, 9)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="'AADB'.* mean 'aadb'.* ava, tad66k, .* table"):
        find_dataset("AADB")
    with pytest.raises(ValueError, match="did you mean 'tad66k'"):
        read_labels("TAD66", "x")
    with pytest.raises(ValueError, match="did you mean"):
        read_ratings("", "x")


def test_a_row_reaches_another_process_whole():
    assert pickle.loads(pickle.dumps(DATASETS)) == DATASETS
