"""Images and targets of one split, as PyTorch's data set."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from eat.data.decoding import ImageError
from eat.data.labels.table import LabelError, vote_columns
from eat.data.scales import Scales
from eat.data.transforms import PixelSource

TRIES = 100  # images tried in the place of a broken one


def targets(table: pd.DataFrame, scales: Scales, num_outputs: int) -> Tensor:
    """Targets for a model with ``num_outputs`` outputs.

    Returns:
        (N, K) columns of the table divided by their ``target_scale`` for as many outputs as there
        are ``scales``, else vote shares.

    Raises:
        LabelError: the labels do not have as many vote bins as the model has outputs.
    """
    if num_outputs == len(scales):
        shares = [table[name].to_numpy() / scale.target_scale for name, scale in scales.items()]
        return torch.tensor(np.stack(shares, axis=1)).float()
    columns = vote_columns(table)
    if len(columns) != num_outputs:
        raise LabelError(
            f"the labels have {len(columns)} vote bins, and the model has {num_outputs} outputs; "
            f"set model.num_outputs to {len(columns) or 1}, or data.targets to as many columns"
        )
    votes = table[columns].to_numpy(dtype=np.float64)
    return torch.tensor(votes / votes.sum(axis=1, keepdims=True)).float()


class AestheticsDataset(Dataset):
    """Images and targets of one split.

    A key is a row number (evaluation), or a pair of row number and seed (training). The
    augmentation is drawn from the seed, so an item does not depend on which process loads it. An
    image that cannot be read in training is replaced by another, drawn from the seed too, and
    ``error`` says why; the run decides what to do about it.

    Items are dicts: ``pixels`` uint8 (3, size, size), ``target`` float32 (K,), ``row`` int, and in
    training ``error``, empty for a sound image.

    Raises:
        ImageError: on access, if the image cannot be read in evaluation, or in training after
            ``TRIES`` broken images in a row.
    """

    def __init__(
        self, table: pd.DataFrame, folder: str | Path, target: Tensor, pixels: PixelSource
    ) -> None:
        self.images = table["image"].to_numpy(dtype=object)
        self.folder = Path(folder)
        self.target = target
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Tensor | int | str]:
        if isinstance(key, tuple):
            return self._training_item(*key)
        pixels = self.pixels.evaluation(self.folder / self.images[key])
        return {"pixels": pixels, "target": self.target[key], "row": key}

    def _training_item(self, row: int, seed: int) -> dict[str, Tensor | int | str]:
        others, error = np.random.default_rng([seed, 1]), ""
        for _ in range(TRIES):
            try:
                pixels = self.pixels.training(self.folder / self.images[row], seed)
            except ImageError as broken:
                error = error or str(broken)
                row = int(others.integers(len(self.images)))
                continue
            return {"pixels": pixels, "target": self.target[row], "row": row, "error": error}
        raise ImageError(f"{error}; and so are {TRIES - 1} others that were to replace it")
