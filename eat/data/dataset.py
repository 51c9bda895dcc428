"""From a label table to batches: splits, targets, dataset and loader."""

import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from eat.data.cache import CachedPixels
from eat.data.labels.reading import read_labels
from eat.data.labels.table import LabelError, vote_columns
from eat.data.registry import DATASETS, Dataset
from eat.data.transforms import ImageError, Preprocessing

TRIES = 100  # images tried in the place of a broken one


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
    low: float | None = None,
    high: float | None = None,
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
            f"the table has labels with {len(columns)} vote bins, and the model has "
            f"{num_outputs} outputs; set model.num_outputs to {len(columns) or 1}"
        )
    votes = table[columns].to_numpy(dtype=np.float64)
    return torch.tensor(votes / votes.sum(axis=1, keepdims=True)).float()


class AestheticsDataset(TorchDataset):
    """Images and targets of one split.

    A key is a row number (evaluation), or a pair of row number and seed (training), with the
    augmentation drawn from the seed, so that what a row becomes does not hang on which process
    loads it. An image that cannot be read in training is replaced by another, drawn from the seed
    too, and ``error`` says why; what to do about it is the run's affair. Pixels come from
    the image files, or from a cache of them.

    Items are dicts: ``pixels`` uint8 (3, size, size), ``target`` float32 (K,), ``row`` int, and in
    training ``error``, empty for a sound image.

    Raises:
        ImageError: on access, if the image cannot be read in evaluation, or in training after
            ``TRIES`` broken images in a row.
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

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Tensor | int | str]:
        if isinstance(key, tuple):
            return self._training_item(*key)
        pixels = self.preprocessing.evaluation(self.folder / self.images[key])
        return {"pixels": pixels, "target": self.target[key], "row": key}

    def _training_item(self, row: int, seed: int) -> dict[str, Tensor | int | str]:
        others = np.random.default_rng([seed, 1])
        error = ""
        for _ in range(TRIES):
            try:
                pixels = self.preprocessing.training(self.folder / self.images[row], seed)
            except ImageError as broken:
                error = error or str(broken)
                row = int(others.integers(len(self.images)))
                continue
            return {"pixels": pixels, "target": self.target[row], "row": row, "error": error}
        raise ImageError(f"{error}; and so are {TRIES - 1} others that were to replace it")


def share(whole: int, parts: int, part: int) -> tuple[int, int]:
    """First place and size of one part of a batch that is split as evenly as can be."""
    size, rest = divmod(whole, parts)
    return part * size + min(part, rest), size + (part < rest)


class TrainBatches(Sampler[list[tuple[int, int]]]):
    """What one process loads: its parts of each step's batch, in random order.

    Rows, each with a seed, are drawn from (seed, epoch) alone. A step's batch is cut into
    ``processes * passes`` parts; a process takes ``passes`` of them, one after the other. A part
    that would be empty, in a last batch smaller than their number, has one image that must not
    count, so that all processes take part in every step.

    Args:
        size: rows of the training split.
        batch_size: images a step, of all processes together.
        seed: of the order and the augmentation.
        passes: forward passes a step in each process.
        processes: their number.
        process: this one's.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        *,
        passes: int = 1,
        processes: int = 1,
        process: int = 0,
    ) -> None:
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.passes = passes
        self.processes = processes
        self.process = process
        self.epoch = 0
        self.skip = 0

    def begin(self, epoch: int, skip: int = 0) -> None:
        """Choose the epoch that the next iteration draws for, and how many steps it leaves out."""
        self.epoch, self.skip = epoch, skip

    @property
    def steps(self) -> int:
        """Steps of an epoch. The last one may have fewer images."""
        return -(-self.size // self.batch_size)

    def __len__(self) -> int:
        return self.passes * (self.steps - self.skip)

    def keys(self) -> list[tuple[int, int]]:
        """All rows of the epoch in order, each with its seed."""
        draw = np.random.default_rng([self.seed, self.epoch])
        rows = draw.permutation(self.size)
        seeds = draw.integers(2**63, size=self.size)
        return list(zip(rows.tolist(), seeds.tolist(), strict=True))

    def whole(self, step: int) -> int:
        """Images of a step's batch."""
        return min(self.batch_size, self.size - step * self.batch_size)

    def parts(self, step: int) -> list[tuple[int, int]]:
        """First place and size of each of this process's parts of a step's batch.

        A part of size 0 has the batch's first image.
        """
        first, count = self.process * self.passes, self.processes * self.passes
        parts = [share(self.whole(step), count, first + i) for i in range(self.passes)]
        return [part if part[1] else (0, 0) for part in parts]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        keys = self.keys()
        for step in range(self.skip, self.steps):
            batch = keys[step * self.batch_size : (step + 1) * self.batch_size]
            for first, count in self.parts(step):
                yield batch[first : first + max(count, 1)]


def rows_in_order(
    size: int, batch_size: int, *, processes: int = 1, process: int = 0
) -> list[list[int]]:
    """Batches of row numbers: every ``processes``-th of those that one process would take.

    Each row is in one batch of one process, and no batch hangs on their number.
    """
    starts = range(process * batch_size, size, processes * batch_size)
    return [list(range(start, min(start + batch_size, size))) for start in starts]


class LoaderError(ChildProcessError):
    """A process that loads images died; the message names it."""


def loaded(loader: DataLoader) -> Iterator[dict[str, Any]]:
    """The loader's batches.

    Raises:
        LoaderError: a loading process died.
        ImageError: an image cannot be read.
    """
    try:
        batches = iter(loader)
        if loader.num_workers and threading.current_thread() is threading.main_thread():
            # PyTorch's handler raises wherever the main process is, even amid a step. Without it a
            # death is noticed here, within seconds.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        yield from batches
    except (RuntimeError, ConnectionError, EOFError) as error:
        # If it died while it handed over a batch, their connection broke, maybe in the thread that
        # pins memory. "Caught ..." are errors of the images, raised anew.
        text = str(error) or type(error).__name__
        deaths = ("DataLoader worker (pid", "Pin memory thread exited")
        known = not isinstance(error, RuntimeError) or text.startswith(deaths)
        if not loader.num_workers or not known or text.startswith("Caught "):
            raise
        told = text.splitlines()[0].rstrip(".")
        raise LoaderError(
            f"a process that loads images died ({told}), perhaps for want of memory or by a file "
            "that crashes the decoder"
        ) from error


def leave_interrupts_to_main(worker: int) -> None:
    """Let a loading process live on when Ctrl-C reaches it, so that the main one can finish."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def make_loader(dataset: AestheticsDataset, batches: Iterable[list], workers: int) -> DataLoader:
    """A loader of the given batches of keys. No image is dropped or repeated."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        worker_init_fn=leave_interrupts_to_main if workers else None,
    )
