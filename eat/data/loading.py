"""From a table to batches: which rows, in which order, and the processes that load them."""

import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from eat.data.cache import CachedPixels
from eat.data.dataset import AestheticsDataset
from eat.data.transforms import PixelSource, Preprocessing


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
        table: labels, N rows.
        folder: of the images.
        target: (N, K), as ``targets`` makes them.
        preprocessing: of the images.
        batches: of row numbers; in training, of pairs of row number and seed.
        workers: processes that load images; 0 loads them in this one.
        cache: folder of the pixel files that ``eat prepare --cache`` made; None reads the images.
        training: read the cache of the side before the random crop.

    Raises:
        CacheError: there is no cache of that side, or it is of other images or another resizing.
    """
    pixels: PixelSource = preprocessing
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


@dataclass(eq=False)
class TrainBatches(Sampler[list[tuple[int, int]]]):
    """Micro-batches that one process loads: its share of each step's batch, in random order.

    Rows, each with a seed, are drawn from (seed, epoch) alone. A step's batch is cut into
    ``processes * accumulation_steps`` micro-batches; a process takes ``accumulation_steps`` of
    them, one after the other. A micro-batch that would be empty, in a last batch smaller than their
    number, has one image that must not count, so that all processes take part in every step.

    ``size`` is the number of rows, ``batch_size`` that of images a step in all processes, and
    ``process`` this one's number.
    """

    size: int
    batch_size: int
    seed: int
    _: KW_ONLY
    accumulation_steps: int = 1
    processes: int = 1
    process: int = 0
    epoch: int = field(default=0, init=False)
    skip: int = field(default=0, init=False)

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
        rows, seeds = draw.permutation(self.size), draw.integers(2**63, size=self.size)
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
    """Batches of row numbers: every ``processes``-th of those that one process would take."""
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
        in_main = threading.current_thread() is threading.main_thread()
        if loader.num_workers and in_main and hasattr(signal, "SIGCHLD"):
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
        reason = text.splitlines()[0].rstrip(".")
        raise LoaderError(
            f"a process that loads images died ({reason}), perhaps for want of memory or by a file "
            "that crashes the decoder"
        ) from error
