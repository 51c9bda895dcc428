"""The data sets by name: what each is, and how its labels are read."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from eat.data.scales import ScoreScale
from eat.system.plugins import blaming, file_of, is_path, load_object
from eat.system.words import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pandas as pd

PLAIN = "(of eat prepare and eat evaluate: --low and --high)"  # names of the bounds, for messages


@dataclass(frozen=True)
class DatasetSpec:
    """A data set, as a row of :data:`DATASETS`.

    Attributes:
        name: key in the table.
        title: name in print.
        low, high, target_scale, positive_above, num_votes: as in :class:`ScoreScale`.
        read: from a label file to a label table.
        voters: of an image, on average; 0 if the data set has no votes, or it is not known.
        counts: images in each official split.
        layouts: published files in a folder, by split ("" where a file does not say); the first
            layout that is all there holds, and files with a ? may be absent.
        ratings: published files of single ratings, by preference.
        targets: scales of further columns of the labels, where they are not those of the scores.
    """

    name: str
    title: str
    low: float
    high: float
    target_scale: float
    positive_above: float
    read: Callable[[str | Path], pd.DataFrame]
    num_votes: int = 0
    voters: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    layouts: tuple[dict[str, str], ...] = ()
    ratings: tuple[str, ...] = ()
    targets: dict[str, ScoreScale] = field(default_factory=dict)

    @property
    def scale(self) -> ScoreScale:
        """The scale of its scores."""
        return ScoreScale(
            self.low, self.high, self.target_scale, self.positive_above, self.num_votes
        )

    def scales(self, targets: Iterable[str] | None = None) -> dict[str, ScoreScale]:
        """The scale of each target, a column of its labels; None for the score alone."""
        return {name: self.targets.get(name, self.scale) for name in targets or ("score",)}


@dataclass(frozen=True)
class Reader:
    """A function of a module of ``eat.data.labels.formats``, and keywords for it.

    The module is imported when the function is called, because scoring needs no pandas.
    """

    module: str
    function: str
    bounds: tuple[tuple[str, float], ...] = ()

    def __call__(self, path: str | Path) -> pd.DataFrame:
        module = import_module(f"eat.data.labels.formats.{self.module}")
        return getattr(module, self.function)(path, **dict(self.bounds))


@dataclass(frozen=True)
class OwnReader:
    """The reader of a data set in a user's file, whose tables are checked as any other."""

    file: Path
    spec: DatasetSpec

    def __call__(self, path: str | Path) -> pd.DataFrame:
        from eat.data.labels.table import validate

        with blaming(self.file):
            table = self.spec.read(path)
            if not hasattr(table, "columns"):
                raise TypeError(f"read gave {type(table).__name__}: expected a pandas DataFrame")
        return validate(table, self.spec.low, self.spec.high, path)


CSV_SPLITS = {"train": "train.csv", "val": "val.csv?", "test": "test.csv"}
AADB_LISTS = {
    "train": "imgListTrainRegression_score.txt",
    "val": "imgListValidationRegression_score.txt?",
    "test": "imgListTestNewRegression_score.txt",
}
PARA_SPLITS = {"train": "PARA-GiaaTrain.csv", "test": "PARA-GiaaTest.csv"}
FLICKR_RATINGS = "FLICKR-AES_image_labeled_by_each_worker.csv"
AADB_ATTRIBUTES = {  # columns, by the names of their files
    "BalacingElements": "balancing_elements",  # their spelling
    "ColorHarmony": "color_harmony",
    "Content": "content",
    "DoF": "dof",
    "Light": "light",
    "MotionBlur": "motion_blur",
    "Object": "object",
    "Repetition": "repetition",
    "RuleOfThirds": "rule_of_thirds",
    "Symmetry": "symmetry",
    "VividColor": "vivid_color",
}


def _inside(folder: str, layout: dict[str, str]) -> dict[str, str]:
    return {split: f"{folder}/{name}" for split, name in layout.items()}


_ROWS = [
    DatasetSpec(
        name="ava", title="AVA", low=1, high=10, target_scale=10, positive_above=5, num_votes=10,
        read=Reader("ava", "read_ava"), voters=210,
        counts={"train": 235528, "test": 20000},
        layouts=({"": "AVA.txt", "test": "generic_test.jpgl"}, CSV_SPLITS, {"": "AVA.txt"},
                 {"val": "val.csv?", "test": "test.csv"}),
    ),
    DatasetSpec(
        name="tad66k", title="TAD66K", low=1, high=10, target_scale=10, positive_above=5,
        read=Reader("tad66k", "read_tad66k"),
        counts={"train": 52248, "test": 14079},
        layouts=(_inside("merge", CSV_SPLITS), CSV_SPLITS,
                 {"train": "train/*.csv", "test": "test/*.csv"}, {"": "*.csv"}),
    ),
    DatasetSpec(
        name="flickr_aes", title="FLICKR-AES", low=1, high=5, target_scale=5, positive_above=3,
        read=Reader("flickr_aes", "read_flickr_aes"),
        counts={"train": 35263, "test": 4737},
        layouts=({"": FLICKR_RATINGS}, {"": "FLICKR-AES_image_score.txt"}),
        ratings=(FLICKR_RATINGS,),
    ),
    DatasetSpec(
        name="aadb", title="AADB", low=0, high=1, target_scale=1, positive_above=0.5,
        read=Reader("aadb", "read_aadb"),
        counts={"train": 8500, "val": 500, "test": 1000},
        layouts=(AADB_LISTS, _inside("imgListFiles_label", AADB_LISTS), {"": "AADBinfo.mat"}),
        targets=dict.fromkeys(AADB_ATTRIBUTES.values(), ScoreScale(-1, 1, 1, 0)),
    ),
    DatasetSpec(
        name="icaa17k", title="ICAA17K", low=0, high=10, target_scale=10, positive_above=5,
        read=Reader("icaa17k", "read_icaa17k"),
        counts={"train": 15734, "test": 1617},
        layouts=({"train": "1train.csv", "test": "1test.csv"},),
        targets={"probability": ScoreScale(0, 1, 1, 0.5)},
    ),
    DatasetSpec(
        name="spaq", title="SPAQ", low=0, high=10, target_scale=10, positive_above=5,
        read=Reader("spaq", "read_spaq"),
        counts={"train": 10000, "test": 1125},
        layouts=({"train": "spaqTrain.csv", "test": "spaqTest.csv"},
                 {"": "MOS and Image attribute scores.xlsx"}),
    ),
    DatasetSpec(
        name="para", title="PARA", low=1, high=5, target_scale=5, positive_above=3, num_votes=9,
        read=Reader("para", "read_para"), voters=25,
        layouts=(_inside("annotation", PARA_SPLITS), PARA_SPLITS),
        ratings=("annotation/PARA-Images.csv", "PARA-Images.csv"),
    ),
    DatasetSpec(
        name="table", title="your own labels", low=1, high=10, target_scale=10, positive_above=5.5,
        read=Reader("own", "read_table"),
        layouts=(CSV_SPLITS, {"": "labels.csv"}),
        ratings=("ratings.csv",),
    ),
]  # fmt: skip
DATASETS: dict[str, DatasetSpec] = {row.name: row for row in _ROWS}
# Drawn by eat.sample.make in AVA's layout; without official counts.
DATASETS["sample"] = replace(
    DATASETS["ava"], name="sample", title="sample data", voters=200, counts={}
)


def own_dataset(name: str) -> DatasetSpec:
    """The data set of FILE.py:NAME: a ``DatasetSpec``, or a function that returns one.

    Raises:
        ValueError: the file is not as expected, or the data set has the name of another.
    """
    found, file = load_object(name), file_of(name)
    if callable(found):
        with blaming(file):
            found = found()
    if not isinstance(found, DatasetSpec):
        kind = type(found).__name__
        raise ValueError(f"{name} is {kind}: expected an eat.data.registry.DatasetSpec")
    if found.name in DATASETS or is_path(found.name):
        raise ValueError(f"{name}: its name is {found.name!r}: expected one that is not taken yet")
    return replace(found, read=OwnReader(file, found))


def find_dataset(name: str, low: float | None = None, high: float | None = None) -> DatasetSpec:
    """The data set of a name, or of FILE.py:NAME, which is imported.

    The data set ``table`` may be given bounds, where None takes 1 and 10. Its scores are then
    divided by ``high`` for the target, those above the middle are the positive class, and its
    labels may have any number of votes.

    Raises:
        ValueError: there is no such data set, or not in its file; it is not ``table`` and bounds
            are given; or the bounds are no scale.
    """
    if name not in DATASETS and not is_path(name):
        near = nearest(str(name), DATASETS, cutoff=0)
        raise ValueError(
            f"unknown data set {name!r}: did you mean {near!r}? There are {', '.join(DATASETS)}"
        )
    spec = own_dataset(name) if is_path(name) else DATASETS[name]
    if low is None and high is None:
        return spec
    if name != "table":
        raise ValueError(
            f"low and high are for the data set 'table': scores of {spec.title} are "
            f"{spec.low:g} to {spec.high:g}; leave --data.low and --data.high out {PLAIN}"
        )
    low, high = spec.low if low is None else low, spec.high if high is None else high
    if not (math.isfinite(low) and math.isfinite(high) and low < high and high > 0):
        raise ValueError(
            f"low is {low} and high is {high}: expected numbers with low below high, and high "
            f"above 0; give --data.low and --data.high {PLAIN}"
        )
    return replace(
        spec,
        low=low,
        high=high,
        target_scale=high,
        positive_above=(low + high) / 2,
        read=Reader("own", "read_table", (("low", low), ("high", high))),
    )
