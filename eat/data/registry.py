"""The data sets by name: what each is, and how its labels are read."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from eat.data.scales import ScoreScale


@dataclass(frozen=True)
class Dataset:
    """A data set, as a row of :data:`DATASETS`.

    Attributes:
        name: key in the table.
        title: name in print.
        low: lowest score of its scale.
        high: highest score.
        target_scale: scores are divided by this to make the regression target.
        positive_above: scores above this are the positive class of the accuracy.
        read: from a label file to a label table.
        num_votes: vote bins, evenly spaced from ``low`` to ``high``; 0 without votes.
        counts: images in each official split.
        layouts: published files in a folder, by split ("" where a file does not say); the first
            layout that is all there holds, and files with a ? may be absent.
        ratings: published files of single ratings, by preference.
    """

    name: str
    title: str
    low: float
    high: float
    target_scale: float
    positive_above: float
    read: Callable[[str | Path], pd.DataFrame]
    num_votes: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    layouts: tuple[dict[str, str], ...] = ()
    ratings: tuple[str, ...] = ()

    @property
    def scale(self) -> ScoreScale:
        from eat.data.scales import ScoreScale

        return ScoreScale(
            self.low, self.high, self.target_scale, self.positive_above, self.num_votes
        )


CSV_SPLITS = {"train": "train.csv", "val": "val.csv?", "test": "test.csv"}
AADB_LISTS = {
    "train": "imgListTrainRegression_score.txt",
    "val": "imgListValidationRegression_score.txt?",
    "test": "imgListTestNewRegression_score.txt",
}
PARA_SPLITS = {"train": "PARA-GiaaTrain.csv", "test": "PARA-GiaaTest.csv"}
FLICKR_RATINGS = "FLICKR-AES_image_labeled_by_each_worker.csv"


def _inside(folder: str, layout: dict[str, str]) -> dict[str, str]:
    return {split: f"{folder}/{name}" for split, name in layout.items()}


@dataclass(frozen=True)
class Reader:
    """A function of a module of ``eat.data.labels``, imported on use: scoring needs no pandas."""

    name: str
    module: str = "readers"

    def __call__(self, path: str | Path) -> pd.DataFrame:
        return getattr(import_module(f"eat.data.labels.{self.module}"), self.name)(path)


_ROWS = [
    Dataset(
        "ava", "AVA", 1, 10, 10, 5, Reader("read_ava"), 10,
        {"train": 235528, "test": 20000},
        ({"": "AVA.txt", "test": "generic_test.jpgl"}, CSV_SPLITS, {"": "AVA.txt"},
         {"val": "val.csv?", "test": "test.csv"}),
    ),
    Dataset(
        "tad66k", "TAD66K", 1, 10, 10, 5, Reader("read_tad66k"), 0,
        {"train": 52248, "test": 14079},
        (_inside("merge", CSV_SPLITS), CSV_SPLITS, {"train": "train/*.csv", "test": "test/*.csv"},
         {"": "*.csv"}),
    ),
    Dataset(
        "flickr_aes", "FLICKR-AES", 1, 5, 5, 3, Reader("read_flickr_aes"), 0,
        {"train": 35263, "test": 4737},
        ({"": FLICKR_RATINGS}, {"": "FLICKR-AES_image_score.txt"}),
        (FLICKR_RATINGS,),
    ),
    Dataset(
        "aadb", "AADB", 0, 1, 1, 0.5, Reader("read_aadb"), 0,
        {"train": 8500, "val": 500, "test": 1000},
        (AADB_LISTS, _inside("imgListFiles_label", AADB_LISTS), {"": "AADBinfo.mat"}),
    ),
    Dataset(
        "icaa17k", "ICAA17K", 0, 10, 10, 5, Reader("read_icaa17k"), 0,
        {"train": 15734, "test": 1617},
        ({"train": "1train.csv", "test": "1test.csv"},),
    ),
    Dataset(
        "spaq", "SPAQ", 0, 10, 10, 5, Reader("read_spaq"), 0,
        {"train": 10000, "test": 1125},
        ({"train": "spaqTrain.csv", "test": "spaqTest.csv"},
         {"": "MOS and Image attribute scores.xlsx"}),
    ),
    Dataset(
        "para", "PARA", 1, 5, 5, 3, Reader("read_para"), 9,
        {},
        (_inside("annotation", PARA_SPLITS), PARA_SPLITS),
        ("annotation/PARA-Images.csv", "PARA-Images.csv"),
    ),
    Dataset(
        "table", "your own labels", 1, 10, 10, 5.5, Reader("read_table", "own_table"), 0,
        {},
        (CSV_SPLITS, {"": "labels.csv"}),
        ("ratings.csv",),
    ),
]  # fmt: skip
DATASETS: dict[str, Dataset] = {row.name: row for row in _ROWS}
# Drawn by eat.sample.make in AVA's layout; without official counts.
DATASETS["sample"] = replace(DATASETS["ava"], name="sample", title="sample data", counts={})


def find_dataset(name: str) -> Dataset:
    """The data set of a name; raises ValueError naming the nearest one for an unknown name."""
    if name in DATASETS:
        return DATASETS[name]
    nearest = difflib.get_close_matches(str(name).lower(), DATASETS, n=1, cutoff=0)[0]
    raise ValueError(
        f"unknown data set {name!r}: did you mean {nearest!r}? There are {', '.join(DATASETS)}"
    )
