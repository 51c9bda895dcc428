"""Temporary."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from torch import Tensor
from torch.utils.data import DataLoader

from eat.data import dataset
from eat.data.cache import CachedPixels
from eat.data.dataset import AestheticsDataset, LoaderError, TrainBatches, loaded, rows_in_order
from eat.data.transforms import Preprocessing

__all__ = ["LoaderError", "TrainBatches", "loaded", "make_loader", "rows_in_order"]


def make_loader(
    table: pd.DataFrame,
    folder: str | Path,
    target: Tensor,
    preprocessing: Preprocessing,
    batches: Iterable[list],
    workers: int,
    *,
    cache: str | None = None,
    training: bool = False,
) -> DataLoader:
    """Temporary."""
    pixels = preprocessing
    if cache:
        pixels = CachedPixels(cache, pixels, folder, table["image"], training=training)
    data = AestheticsDataset(table, folder, target, pixels)
    return dataset.make_loader(data, batches, workers)
