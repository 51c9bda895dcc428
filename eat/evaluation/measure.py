"""Evaluators: a model and a loader to outputs, outputs and labels to named numbers."""

from collections.abc import Sized
from typing import cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from tqdm import tqdm

from eat.data.dataset import targets
from eat.data.labels.table import vote_columns
from eat.data.loading import loaded
from eat.data.scales import ScoreScale, rescale, to_scores
from eat.data.transforms import Preprocessing
from eat.evaluation.metrics import bootstrap_interval, emd, score_metrics
from eat.evaluation.points import PointWatch
from eat.models import AestheticModel
from eat.system.device import autocast

Array = NDArray[np.float64]


def predict(
    model: AestheticModel,
    loader: DataLoader,
    preprocessing: Preprocessing,
    device: torch.device,
    precision: str = "fp32",
    watch: PointWatch | None = None,
) -> Array:
    """Outputs of a model for every row of a loader: (N, K), in row order.

    Rows of the data set that the loader leaves out are NaN. ``preprocessing`` is the loader's, and
    ``watch`` looks at the first batches.
    """
    model.eval()
    outputs = np.full((len(cast(Sized, loader.dataset)), model.num_outputs), np.nan)
    bar = tqdm(total=len(outputs), desc="evaluate", unit="image", disable=None)
    # One autocast region for all batches casts the weights once; inference mode would cast them
    # for each.
    with torch.no_grad(), autocast(device, precision), bar:
        for batch in loaded(loader):
            pixels = preprocessing.normalise(batch["pixels"].to(device, non_blocking=True))
            if watch is not None and watch.wants_more():
                record = watch.record()
                result = model.forward(pixels, record)  # a record is not worth compiling for
                watch.add(record)
            else:
                result = model(pixels)
            outputs[batch["row"].numpy()] = result.double().cpu().numpy()
            bar.update(len(result))
    return outputs


def mean_scores(outputs: Array, scale: ScoreScale, source: ScoreScale | None = None) -> Array:
    """Outputs (N, K) of a model trained on ``source`` as mean scores (N,) on ``scale``."""
    source = source or scale
    return rescale(to_scores(outputs, source), source, scale)


def measure(
    outputs: Array, table: pd.DataFrame, scale: ScoreScale, source: ScoreScale | None = None
) -> dict[str, float]:
    """Metrics of a split.

    Args:
        outputs: (N, K) model outputs, K vote shares or one score.
        table: the N rows of labels.
        scale: of the labels; its threshold and target scale hold.
        source: the scale that the model was trained on, if another; its scores are rescaled.

    Returns:
        srcc, plcc, accuracy, ratio, mse (of scores over ``target_scale``), and emd where labels
        and model have the same vote bins.
    """
    return _metrics(scale, *_vectors(outputs, table, scale, source))


def intervals(
    outputs: Array,
    table: pd.DataFrame,
    scale: ScoreScale,
    source: ScoreScale | None = None,
    *,
    samples: int = 1000,
) -> dict[str, tuple[float, float]]:
    """95% bootstrap interval over images of each metric of ``measure``; empty for 0 samples."""
    if samples == 0 or len(table) < 2:
        return {}
    vectors = _vectors(outputs, table, scale, source)

    def statistic(*rows: Array) -> list[float]:
        return list(_metrics(scale, *rows).values())

    low, high = bootstrap_interval(statistic, *vectors, samples=samples)
    names = _metrics(scale, *vectors)
    return dict(zip(names, zip(low.tolist(), high.tolist(), strict=True), strict=True))


def tabulate(
    outputs: Array, table: pd.DataFrame, scale: ScoreScale, source: ScoreScale | None = None
) -> pd.DataFrame:
    """Predictions beside labels: image, score, predicted, and p1..pK for vote shares."""
    predictions = table[["image", "score"]].copy()
    predictions["predicted"] = mean_scores(outputs, scale, source)
    if outputs.shape[1] > 1:
        predictions[[f"p{k + 1}" for k in range(outputs.shape[1])]] = outputs
    return predictions


def _vectors(
    outputs: Array, table: pd.DataFrame, scale: ScoreScale, source: ScoreScale | None
) -> list[Array]:
    """Predicted and rated scores (N,), and where both have K votes their shares (N, K)."""
    vectors = [mean_scores(outputs, scale, source), table["score"].to_numpy()]
    votes = outputs.shape[1]
    if votes > 1 and votes == len(vote_columns(table)):
        vectors += [outputs, targets(table, scale, votes).numpy()]
    return vectors


def _metrics(scale: ScoreScale, predicted: Array, rated: Array, *shares: Array) -> dict[str, float]:
    metrics = score_metrics(
        predicted, rated, threshold=scale.positive_above, scale=scale.target_scale
    )
    return metrics | {"emd": emd(*shares)} if shares else metrics
