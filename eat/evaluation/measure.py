"""Evaluators: a model and a loader to outputs, outputs and labels to named numbers."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from eat.config.run import metric_prefixes
from eat.data.dataset import targets
from eat.data.labels.table import vote_columns
from eat.data.scales import Scales, ScoreScale, mean_scores
from eat.data.transforms import Preprocessing
from eat.evaluation.metrics import bootstrap_interval, emd, score_metrics
from eat.evaluation.points import PointWatch
from eat.models import AestheticModel
from eat.system.device import autocast

Array = NDArray[np.float64]


def predict(
    model: AestheticModel,
    batches: Iterable[dict[str, Any]],
    rows: int,
    preprocessing: Preprocessing,
    device: torch.device,
    precision: str = "fp32",
    watch: PointWatch | None = None,
) -> Array:
    """Outputs of a model for the ``rows`` of a table: (N, K), in their order.

    Those that are in no batch of the loader's are NaN. ``preprocessing`` is the loader's, and
    ``watch`` looks at the first batches.
    """
    model.eval()
    outputs = np.full((rows, model.num_outputs), np.nan)
    seen, results = [], []  # on the device, which is waited for once
    bar = tqdm(total=len(outputs), desc="evaluate", unit="image", disable=None)
    # One autocast region for all batches casts the weights once; inference mode would cast them
    # for each.
    with torch.no_grad(), autocast(device, precision), bar:
        for batch in batches:
            pixels = preprocessing.normalise(batch["pixels"].to(device, non_blocking=True))
            if watch is not None and watch.wants_more():
                record = watch.record()
                with torch.compiler.set_stance("force_eager"):  # not worth compiling for
                    result = model(pixels, record)
                watch.add(record)
            else:
                result = model(pixels)
            seen.append(batch["row"])
            results.append(result)
            bar.update(len(result))
        if seen:
            outputs[torch.cat(seen).numpy()] = torch.cat(results).cpu().double().numpy()
    return outputs


def measure(
    outputs: Array, table: pd.DataFrame, scales: Scales, sources: Scales | None = None
) -> dict[str, float]:
    """Metrics of a split.

    Args:
        outputs: (N, K) model outputs, K vote shares or a score for each target.
        table: the N rows of labels.
        scales: of the labels, by target; their thresholds and target scales hold.
        sources: the scales that the model was trained on, if others; its scores are rescaled.

    Returns:
        srcc, plcc, accuracy, ratio, mse (of scores over ``target_scale``), and emd where labels
        and model have the same vote bins. Those of the second target on are named TARGET.srcc and
        so on.
    """
    return {
        prefix + metric: value
        for prefix, scale, vectors in _vectors(outputs, table, scales, sources)
        for metric, value in _metrics(scale, *vectors).items()
    }


def intervals(
    outputs: Array,
    table: pd.DataFrame,
    scales: Scales,
    sources: Scales | None = None,
    *,
    samples: int = 1000,
) -> dict[str, tuple[float, float]]:
    """95% bootstrap interval over images of each metric of ``measure``; empty for 0 samples."""
    if samples == 0 or len(table) < 2:
        return {}
    found: dict[str, tuple[float, float]] = {}
    for prefix, scale, vectors in _vectors(outputs, table, scales, sources):

        def statistic(*rows: Array, scale: ScoreScale = scale) -> list[float]:
            return list(_metrics(scale, *rows).values())

        low, high = bootstrap_interval(statistic, *vectors, samples=samples)
        names = [prefix + metric for metric in _metrics(scale, *vectors)]
        found |= zip(names, zip(low.tolist(), high.tolist(), strict=True), strict=True)
    return found


def tabulate(
    outputs: Array, table: pd.DataFrame, scales: Scales, sources: Scales | None = None
) -> pd.DataFrame:
    """Predictions beside labels: image, score, predicted, and p1..pK for vote shares.

    Of several targets, each rated column and then what is predicted: score, predicted, color,
    color.predicted.
    """
    predictions, prefixes = table[["image"]].copy(), metric_prefixes(scales)
    for name, scores in mean_scores(outputs, scales, sources).items():
        predictions[name] = table[name]
        predictions[f"{prefixes[name]}predicted"] = scores
    if outputs.shape[1] > len(scales):
        predictions[[f"p{k + 1}" for k in range(outputs.shape[1])]] = outputs
    return predictions


def first_target(predictions: pd.DataFrame) -> pd.DataFrame:
    """The columns of the first target in a table of ``tabulate``, as image, score, predicted."""
    return predictions.iloc[:, :3].set_axis(["image", "score", "predicted"], axis=1)


def _vectors(
    outputs: Array, table: pd.DataFrame, scales: Scales, sources: Scales | None
) -> Iterator[tuple[str, ScoreScale, list[Array]]]:
    """For each target the prefix of its metrics, its scale and what they are computed of.

    That is predicted and rated scores (N,), and where both have K votes their shares (N, K).
    """
    prefixes, votes = metric_prefixes(scales), outputs.shape[1]
    for name, predicted in mean_scores(outputs, scales, sources).items():
        vectors = [predicted, table[name].to_numpy()]
        if votes > len(scales) and votes == len(vote_columns(table)):
            vectors += [outputs, targets(table, scales, votes).numpy()]
        yield prefixes[name], scales[name], vectors


def _metrics(scale: ScoreScale, predicted: Array, rated: Array, *shares: Array) -> dict[str, float]:
    metrics = score_metrics(
        predicted, rated, threshold=scale.positive_above, scale=scale.target_scale
    )
    return metrics | {"emd": emd(*shares)} if shares else metrics
