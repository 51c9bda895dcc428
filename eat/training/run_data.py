"""What a run trains and evaluates on: its splits, and this process's loaders of them."""

import torch
from torch.utils.data import DataLoader

from eat.config import TrainConfig
from eat.data.cache import CachedPixels
from eat.data.dataset import (
    AestheticsDataset,
    Splits,
    TrainBatches,
    make_loader,
    read_splits,
    rows_in_order,
    targets,
)
from eat.data.labels.table import LabelError, vote_columns
from eat.data.transforms import Preprocessing

EVALUATED = (
    64  # most images in an evaluation's forward pass, which keeps nothing for a backward one
)


class RunData:
    """The splits of a run, and loaders of the share of them that a process has.

    Args:
        config: the run's options.
        processes: how many train together.
        process: which of them this is.

    Raises:
        LabelError: label files or images are wrong.
        ValueError: a step has fewer images than there are processes and passes.
    """

    def __init__(self, config: TrainConfig, processes: int = 1, process: int = 0) -> None:
        self.config = config
        self.place = {"processes": processes, "process": process}
        self.splits = self._read_splits()
        self.tables = self.splits.tables()
        self.dataset = self.splits.dataset
        self.outputs = config.model.num_outputs or len(vote_columns(self.splits.train)) or 1
        targets(self.splits.train.iloc[:1], self.dataset.scale, self.outputs)  # fails early
        size, passes = config.optim.batch_size, config.run.passes
        if size < processes * passes:
            raise ValueError(
                f"optim.batch_size is {size}, the images of a step of all processes together: "
                f"expected at least {processes} processes x {passes} run.passes"
            )
        self.batches = TrainBatches(
            len(self.splits.train), size, config.run.seed, passes=passes, **self.place
        )
        self._loaders: dict[str, DataLoader] = {}

    def _read_splits(self) -> Splits:
        data = self.config.data
        splits = read_splits(
            data.name,
            data.labels,
            data.images,
            test=data.test,
            val=data.val,
            val_fraction=data.val_fraction,
            missing=data.missing,
            seed=self.config.run.seed,
            low=data.low,
            high=data.high,
        )
        if not len(splits.train):
            raise LabelError(f"{data.labels}: no image is left for the training split")
        if splits.test is None and splits.val is None:
            raise LabelError(
                f"{data.labels}: no image is marked as test; give --data.test, or "
                "--data.val_fraction 0.1 to hold some out"
            )
        return splits

    @property
    def eval_split(self) -> str:
        """The split that chooses the best epoch."""
        return "val" if "val" in self.tables else "test"

    @property
    def final_split(self) -> str:
        """The split of the run's result."""
        return "test" if "test" in self.tables else "val"

    def loader(self, split: str, preprocessing: Preprocessing) -> DataLoader:
        """This process's share of a split. Made once, and anew after ``drop``."""
        if split not in self._loaders:
            table, batches = self.tables[split], self.batches
            if split != "train":
                size = min(self.config.optim.batch_size, EVALUATED)
                batches = rows_in_order(len(table), size, **self.place)
            target = targets(table, self.dataset.scale, self.outputs)
            given, pixels = self.config.data, preprocessing
            if given.cache:
                pixels = CachedPixels(
                    given.cache, pixels, given.images, table["image"], training=split == "train"
                )
            data = AestheticsDataset(table, given.images, target, pixels)
            self._loaders[split] = make_loader(data, batches, given.workers)
        return self._loaders[split]

    def drop(self, split: str) -> None:
        """Give up a loader whose processes have died."""
        self._loaders.pop(split, None)

    def gathered(self, split: str, outputs: torch.Tensor) -> torch.Tensor:
        """Outputs with zeros in the rows that other processes compute, to be summed."""
        mine = [row for batch in self._loaders[split].batch_sampler for row in batch]
        whole = torch.zeros_like(outputs)
        whole[mine] = outputs[mine]
        return whole
