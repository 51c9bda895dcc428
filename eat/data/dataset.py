"""From a label table to batches: splits, targets, dataset and loader."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from eat.data.cache import CachedPixels
from eat.data.labels import LabelError, vote_columns
from eat.data.registry import DATASETS, Dataset, read_labels
from eat.data.transforms import Preprocessing


@dataclass
class Splits:
    """The label tables of a run, one row per image.

    Attributes:
        dataset: the row of the registry.
        train: training images.
        val: images on which the best epoch is chosen; None without a validation split.
        test: test images; None without a test split.
        left_out: images that have a label and no file.
    """

    dataset: Dataset
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
    test: str | Path | None = None,
    val: str | Path | None = None,
    val_fraction: float = 0.0,
    missing: str = "error",
    seed: int = 0,
) -> Splits:
    """Read label files and hold them against the images on disk.

    Args:
        name: a row of the registry.
        labels: label file or folder.
        images: folder of the images.
        test: label file or id list of the test split.
        val: the same of the validation split.
        val_fraction: share of the training images drawn as validation split, if there is none.
        missing: "error", or "leave_out".
        seed: of that draw.

    Raises:
        LabelError: a label file is wrong, or labels have no image and ``missing`` is "error".
    """
    table = read_labels(name, labels, test=test, val=val)
    table, left_out = with_images(table, images, missing)
    parts = {split: rows.reset_index(drop=True) for split, rows in table.groupby("split")}
    train = parts.get("train", parts.get("", table.iloc[:0]))
    held = parts.get("val")
    if held is None and val_fraction > 0:
        draw = np.random.default_rng(seed).permutation(len(train))
        count = max(1, round(val_fraction * len(train)))
        held = train.iloc[np.sort(draw[:count])].reset_index(drop=True)
        train = train.iloc[np.sort(draw[count:])].reset_index(drop=True)
    return Splits(DATASETS[name], train, held, parts.get("test"), left_out)


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
    here = names.isin(present)
    absent = names[~here].tolist()
    if absent and missing != "leave_out":
        raise LabelError(
            f"{folder}: {len(absent)} of {len(table)} labelled images are not there, such as "
            f"{', '.join(absent[:3])}; give the right --data.images, or leave them out with "
            "--data.missing leave_out"
        )
    if not here.any():
        raise LabelError(f"{folder}: holds none of the {len(table)} labelled images")
    return table[here].reset_index(drop=True), absent


def targets(table: pd.DataFrame, dataset: Dataset, num_outputs: int) -> Tensor:
    """What a model with ``num_outputs`` outputs is trained on.

    Returns:
        (N, K) vote shares for K outputs, or (N, 1) scores divided by the data set's
        ``target_scale`` for one.

    Raises:
        LabelError: the labels do not have as many vote bins as the model has outputs.
    """
    if num_outputs == 1:
        return torch.tensor(table["score"].to_numpy() / dataset.target_scale).float()[:, None]
    columns = vote_columns(table)
    if len(columns) != num_outputs:
        raise LabelError(
            f"{dataset.title} has labels with {len(columns)} vote bins, and the model has "
            f"{num_outputs} outputs; set model.num_outputs to {len(columns) or 1}"
        )
    votes = table[columns].to_numpy(dtype=np.float64)
    return torch.tensor(votes / votes.sum(axis=1, keepdims=True)).float()


def to_scores(outputs: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Model outputs as mean scores on the data set's own scale.

    Args:
        outputs: (N, K) shares of K evenly spaced scores from ``low`` to ``high``, taken as they
            are (the released model's need not sum to 1); or (N, 1) scores over ``target_scale``.
        dataset: the data set that the model was trained on.

    Returns:
        (N,) float64.
    """
    outputs = np.asarray(outputs, dtype=np.float64)
    if outputs.shape[1] == 1:
        return outputs[:, 0] * dataset.target_scale
    return outputs @ np.linspace(dataset.low, dataset.high, outputs.shape[1])


class AestheticsDataset(TorchDataset):
    """Images and targets of one split.

    A key is a row number (evaluation), or a pair of row number and seed (training, with the
    augmentation drawn from the seed), so that what a row becomes does not hang on which process
    loads it. Pixels come from the image files, or from a cache of them.

    Items are dicts: ``pixels`` uint8 (3, size, size), ``target`` float32 (K,), ``row`` int.

    Raises:
        ImageError: on access, if the image cannot be read.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        folder: str | Path,
        target: Tensor,
        preprocessing: Preprocessing | CachedPixels,
    ) -> None:
        self.images = table["image"].to_numpy(dtype=object)
        self.folder = Path(folder)
        self.target = target
        self.preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Tensor | int]:
        row, seed = key if isinstance(key, tuple) else (key, None)
        path = self.folder / self.images[row]
        if seed is None:
            pixels = self.preprocessing.evaluation(path)
        else:
            pixels = self.preprocessing.training(path, seed)
        return {"pixels": pixels, "target": self.target[row], "row": row}


class EpochSampler(Sampler[tuple[int, int]]):
    """Rows in random order, each with a seed, both drawn from (seed, epoch) alone."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.epoch = 0
        self.skip = 0

    # Not named set_epoch: accelerate calls that with a count of its own.
    def begin(self, epoch: int, skip: int = 0) -> None:
        """Choose the epoch that the next iteration draws for, and how many rows it leaves out."""
        self.epoch, self.skip = epoch, skip

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        draw = np.random.default_rng([self.seed, self.epoch])
        rows = draw.permutation(self.size)
        seeds = draw.integers(2**63, size=self.size)
        return zip(rows[self.skip :].tolist(), seeds[self.skip :].tolist(), strict=True)


def leave_interrupts_to_main(worker: int) -> None:
    """Let a loading process live on when Ctrl-C reaches it, so that the main one can finish."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def make_loader(
    dataset: AestheticsDataset, batch_size: int, workers: int, sampler: EpochSampler | None = None
) -> DataLoader:
    """Batches in row order, or in the sampler's. No image is dropped or repeated."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        worker_init_fn=leave_interrupts_to_main if workers else None,
    )
