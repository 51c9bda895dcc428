"""From a table to batches: which rows, in which order, and the processes that load them."""

import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from eat.data.cache import CachedPixels
from eat.data.dataset import AestheticsDataset, LoaderError, loaded
from eat.data.transforms import Preprocessing

__all__ = ["LoaderError", "TrainBatches", "loaded", "make_loader", "rows_in_order", "share"]


def make_loader(
    table: pd.DataFrame,
    folder: str | Path,
    target: Tensor,
    preprocessing: Preprocessing,
    batches: Iterable[list],
    workers: int,
    *,
    cache: str | Path | None = None,
    training: bool = False,
) -> DataLoader:
    """Loader of the given batches of keys. It drops and repeats no image.

    Args:
        table: labels, (N) rows.
        folder: of the images.
        target: (N, K) targets, as of ``targets``.
        preprocessing: how images become pixels.
        batches: of row numbers; in training, of pairs of row number and seed.
        workers: processes that load images; 0 loads them in this one.
        cache: folder of the pixel files that ``eat prepare --cache`` made; None reads the images.
        training: the cache of the side before the random crop is the one to read.

    Raises:
        CacheError: there is no such cache.
    """
    pixels: Preprocessing | CachedPixels = preprocessing
    if cache:
        pixels = CachedPixels(cache, preprocessing, folder, table["image"], training=training)
    return DataLoader(
        AestheticsDataset(table, folder, target, pixels),
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        worker_init_fn=_leave_interrupts_to_main if workers else None,
    )


def _leave_interrupts_to_main(worker: int) -> None:
    """Let a loading process survive Ctrl-C, so that the main one can finish."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def share(total: int, parts: int, part: int) -> tuple[int, int]:
    """First place and size of one part of a batch that is split as evenly as possible."""
    size, rest = divmod(total, parts)
    return part * size + min(part, rest), size + (part < rest)


class TrainBatches(Sampler[list[tuple[int, int]]]):
    """Micro-batches that one process loads: its share of each step's batch, in random order.

    Rows, each with a seed, are drawn from (seed, epoch) alone. A step's batch is cut into
    ``processes * accumulation_steps`` micro-batches; a process takes ``accumulation_steps`` of
    them, one after the other. A micro-batch that would be empty, in a last batch smaller than their
    number, has one image that must not count, so that all processes take part in every step.

    Args:
        size: rows of the training split.
        batch_size: images a step, of all processes.
        seed: of the order and the augmentation.
        accumulation_steps: micro-batches of a step in each process.
        processes: their number.
        process: this one's.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        *,
        accumulation_steps: int = 1,
        processes: int = 1,
        process: int = 0,
    ) -> None:
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.accumulation_steps = accumulation_steps
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
        return self.accumulation_steps * (self.steps - self.skip)

    def keys(self) -> list[tuple[int, int]]:
        """All rows of the epoch in order, each with its seed."""
        draw = np.random.default_rng([self.seed, self.epoch])
        rows = draw.permutation(self.size)
        seeds = draw.integers(2**63, size=self.size)
        return list(zip(rows.tolist(), seeds.tolist(), strict=True))

    def step_size(self, step: int) -> int:
        """Images of a step's batch, of all processes."""
        return min(self.batch_size, self.size - step * self.batch_size)

    def micro_batches(self, step: int) -> list[tuple[int, int]]:
        """First place and size of each of this process's micro-batches in a step's batch.

        One of size 0 has the batch's first image.
        """
        first = self.process * self.accumulation_steps
        count = self.processes * self.accumulation_steps
        size = self.step_size(step)
        own = [share(size, count, first + i) for i in range(self.accumulation_steps)]
        return [(place, images) if images else (0, 0) for place, images in own]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        keys = self.keys()
        for step in range(self.skip, self.steps):
            batch = keys[step * self.batch_size : (step + 1) * self.batch_size]
            for first, count in self.micro_batches(step):
                yield batch[first : first + max(count, 1)]


def rows_in_order(
    size: int, batch_size: int, *, processes: int = 1, process: int = 0
) -> list[list[int]]:
    """Batches of row numbers: every ``processes``-th of those that one process would take.

    Each row is in one batch of one process, and no batch depends on their number.
    """
    starts = range(process * batch_size, size, processes * batch_size)
    return [list(range(start, min(start + batch_size, size))) for start in starts]
