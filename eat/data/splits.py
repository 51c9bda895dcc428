"""The splits of a run: label files held against the images on disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from eat.data.labels.reading import read_labels
from eat.data.labels.table import LabelError, quote
from eat.data.registry import DatasetSpec, find_dataset


@dataclass
class Splits:
    """The label tables of a run, one row per image.

    ``val`` chooses the best epoch. ``left_out`` lists images that have a label and no file.
    """

    dataset: DatasetSpec
    train: pd.DataFrame
    val: pd.DataFrame | None
    test: pd.DataFrame | None
    left_out: list[str]

    def tables(self) -> dict[str, pd.DataFrame]:
        """The splits that there are, by name."""
        tables = {"train": self.train, "val": self.val, "test": self.test}
        return {name: table for name, table in tables.items() if table is not None}


def read_splits(
    name: str,
    labels: str | Path,
    images: str | Path,
    *,
    low: float | None = None,
    high: float | None = None,
    test: str | Path | None = None,
    val: str | Path | None = None,
    targets: Sequence[str] | None = None,
    val_fraction: float = 0.0,
    missing: str = "error",
    seed: int = 0,
) -> Splits:
    """Read label files and hold them against the images on disk.

    The options are those of :class:`eat.config.DataConfig`; ``seed`` is that of the draw of the
    validation images.

    Raises:
        ValueError: there is no such data set, or the bounds are no scale or not for it.
        LabelError: a label file is wrong, or labels have no image and ``missing`` is "error".
    """
    table = read_labels(name, labels, low=low, high=high, test=test, val=val, targets=targets)
    table, left_out = with_images(table, images, missing)
    splits = {split: rows.reset_index(drop=True) for split, rows in table.groupby("split")}
    train = splits.get("train", splits.get("", table.iloc[:0]))
    held = splits.get("val")
    if held is None and val_fraction > 0:
        draw = np.random.default_rng(seed).permutation(len(train))
        count = max(1, round(val_fraction * len(train)))
        held = train.iloc[np.sort(draw[:count])].reset_index(drop=True)
        train = train.iloc[np.sort(draw[count:])].reset_index(drop=True)
    return Splits(find_dataset(name, low, high), train, held, splits.get("test"), left_out)


def with_images(
    table: pd.DataFrame, folder: str | Path, missing: str
) -> tuple[pd.DataFrame, list[str]]:
    """Rows whose image file exists, and the images of the others.

    Raises:
        LabelError: the folder is absent, or images are missing and ``missing`` is "error".
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise LabelError(f"{folder}: no such image folder")
    # One listing per folder is many times faster than asking for each file.
    names = table["image"]
    parents = {str(Path(name).parent) for name in names.unique()}
    present: set[str] = set()
    for parent in parents:
        if (folder / parent).is_dir():
            prefix = "" if parent == "." else f"{parent}/"
            present.update(f"{prefix}{entry.name}" for entry in (folder / parent).iterdir())
    here = names.map(present.__contains__)  # isin fails at a file name that is not UTF-8
    absent = names[~here].tolist()
    if absent and missing != "leave_out":
        raise LabelError(
            f"{folder}: {len(absent)} of {len(table)} labelled images are not there, such as "
            f"{quote(absent)}; give the right folder, or leave them out with --missing "
            "leave_out (of a run --data.missing)"
        )
    if not here.any():
        raise LabelError(f"{folder}: holds none of the {len(table)} labelled images")
    return table[here].reset_index(drop=True), absent
