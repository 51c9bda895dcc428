"""Evaluation: a model and a split to predictions, predictions and labels to named numbers."""

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from tqdm import tqdm

from eat.checkpoint import CheckpointInfo, load_checkpoint, read_trained_on
from eat.data.dataset import targets
from eat.data.labels.identity import count_seen, fingerprint, identity_hashes
from eat.data.labels.reading import read_labels
from eat.data.labels.table import LabelError, vote_columns
from eat.data.loading import loaded, make_loader, rows_in_order
from eat.data.registry import DatasetSpec
from eat.data.scales import rescale, to_scores
from eat.data.splits import read_splits
from eat.data.transforms import normalise
from eat.evaluation.metrics import bootstrap_interval, emd, score_metrics
from eat.evaluation.released import RELEASED, load_released
from eat.evaluation.report import Evaluation
from eat.inference import autocast, pick_device, use_own_points
from eat.models import EAT

MAX_SLICES = 100  # a column with more values than this is cut into quarters, or refused


def predict(
    model: EAT, loader: DataLoader, device: torch.device, precision: str = "fp32"
) -> NDArray[np.float64]:
    """Outputs of a model for every row of a loader: (N, K), in row order.

    Rows of the data set that the loader leaves out are NaN.
    """
    model.eval()
    outputs = np.full((len(loader.dataset), model.num_outputs), np.nan)
    bar = tqdm(total=len(outputs), desc="evaluate", unit="image", disable=None)
    # One region for all batches, so that the weights are cast once; inference mode would cast them
    # for each.
    with torch.no_grad(), autocast(device, precision), bar:
        for batch in loaded(loader):
            result = model(normalise(batch["pixels"].to(device, non_blocking=True)))
            outputs[batch["row"].numpy()] = result.double().cpu().numpy()
            bar.update(len(result))
    return outputs


def measure(
    outputs: np.ndarray,
    table: pd.DataFrame,
    dataset: DatasetSpec,
    trained_on: DatasetSpec | None = None,
) -> dict[str, float]:
    """Metrics of a whole split.

    Args:
        outputs: (N, K) model outputs, K vote shares or one score.
        table: the N rows of labels.
        dataset: of the labels; its score scale and threshold hold.
        trained_on: the data set of the model, if another; its scores are rescaled.

    Returns:
        srcc, plcc, accuracy, ratio, mse (of scores over ``target_scale``), and emd where labels
        and model have the same vote bins.
    """
    source = trained_on or dataset
    scores = rescale(to_scores(outputs, source.scale), source.scale, dataset.scale)
    metrics = score_metrics(
        scores,
        table["score"].to_numpy(),
        threshold=dataset.positive_above,
        scale=dataset.target_scale,
    )
    if outputs.shape[1] > 1 and outputs.shape[1] == len(vote_columns(table)):
        metrics["emd"] = emd(outputs, targets(table, dataset.scale, outputs.shape[1]).numpy())
    return metrics


def intervals(
    outputs: np.ndarray,
    table: pd.DataFrame,
    dataset: DatasetSpec,
    trained_on: DatasetSpec,
    samples: int = 1000,
) -> dict[str, tuple[float, float]]:
    """95% bootstrap interval over images of each metric of ``measure``; empty for 0 samples."""
    if samples == 0 or len(table) < 2:
        return {}

    def statistic(rows: np.ndarray) -> list[float]:
        return list(measure(outputs[rows], table.iloc[rows], dataset, trained_on).values())

    low, high = bootstrap_interval(statistic, np.arange(len(table)), samples=samples)
    names = measure(outputs, table, dataset, trained_on)
    return {name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)}


def tabulate(
    outputs: np.ndarray, table: pd.DataFrame, dataset: DatasetSpec, trained_on: DatasetSpec
) -> pd.DataFrame:
    """Predictions beside labels: image, score, predicted, and p1..pK for vote shares."""
    columns = {"image": table["image"], "score": table["score"]}
    scores = to_scores(outputs, trained_on.scale)
    columns["predicted"] = rescale(scores, trained_on.scale, dataset.scale)
    if outputs.shape[1] > 1:
        columns |= {f"p{k + 1}": outputs[:, k] for k in range(outputs.shape[1])}
    return pd.DataFrame(columns)


def slices(table: pd.DataFrame, column: str) -> dict[str, NDArray[np.int64]]:
    """Rows of each value of a column, largest slice first.

    ``tag`` stands for tag1 and tag2 together: an image is in the slices of both its tags. A numeric
    column with many values is cut into quarters.

    Raises:
        LabelError: there is no such column, or it has too many values.
    """
    names = ["tag1", "tag2"] if column == "tag" and "tag1" in table else [column]
    if names[0] not in table:
        raise LabelError(
            f"no column {column!r} to slice by; the labels have {', '.join(map(str, table))}"
        )
    values = table[names[0]]
    if pd.api.types.is_numeric_dtype(values) and values.nunique() > MAX_SLICES // 4:
        values = pd.qcut(values, 4, duplicates="drop").astype(str)
        parts = [values]
    else:
        parts = [table[name].astype(str) for name in names]
    rows: dict[str, set[int]] = {}
    for part in parts:
        for value, group in part.groupby(part).indices.items():
            if value:  # "" is no tag
                rows.setdefault(value, set()).update(group.tolist())
    if len(rows) > MAX_SLICES and not column.startswith(("tag", "theme", "challenge")):
        raise LabelError(f"column {column!r} has {len(rows)} values, too many to slice by")
    order = sorted(rows, key=lambda value: (-len(rows[value]), value))
    return {value: np.array(sorted(rows[value])) for value in order}


def slice_metrics(
    outputs: np.ndarray,
    table: pd.DataFrame,
    column: str,
    dataset: DatasetSpec,
    trained_on: DatasetSpec,
    samples: int,
) -> pd.DataFrame:
    """Metrics of each slice of at least two images: column, slice, images, metrics, intervals."""
    rows = []
    for value, members in slices(table, column).items():
        if len(members) < 2:
            continue
        part = outputs[members], table.iloc[members], dataset, trained_on
        row = {"column": column, "slice": value, "images": len(members), **measure(*part)}
        for name, (low, high) in intervals(*part, samples=samples).items():
            row |= {f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def leak_notes(
    table: pd.DataFrame, dataset: DatasetSpec, info: CheckpointInfo, trained_on: NDArray | None
) -> list[str]:
    """What should be known of a test list: its size, and what the model has seen of it."""
    notes = []
    official = dataset.counts.get("test")
    if official and official != len(table):
        notes.append(f"{len(table)} images; the official test split of {dataset.title} has "
                     f"{official}")  # fmt: skip
    released = RELEASED.get(info.dataset) if not info.config else None
    if released is not None and fingerprint(table) != released.test_fingerprint:
        notes.append(f"WARNING: this is not the test split that the released checkpoint belongs "
                     f"to ({released.split}); {released.warning}")  # fmt: skip
    if trained_on is None:
        if released is None:
            notes.append("the checkpoint lists no training images; --trained_on LABELS compares")
        return notes
    seen = count_seen(table, trained_on)
    share = f"{seen} of {len(table)} test images were among the {len(trained_on)} trained on"
    notes.append(f"WARNING: {share}; these metrics do not tell how the model generalises"
                 if seen else share)  # fmt: skip
    return notes


def evaluate_checkpoint(
    checkpoint: str | Path,
    *,
    released: bool = False,
    labels: str | None = None,
    images: str | None = None,
    name: str | None = None,
    test: str | None = None,
    split: Literal["train", "val", "test"] = "test",
    missing: Literal["error", "leave_out"] | None = None,
    cache: str | None = None,
    slice_by: list[str] | None = None,
    trained_on: str | None = None,
    own_points: bool = False,
    samples: int = 1000,
    batch_size: int = 16,
    workers: int = 2,
    device: Literal["auto", "cpu"] = "auto",
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
) -> Evaluation:
    """Evaluate a checkpoint on a split of labelled images.

    Args:
        checkpoint: a run's checkpoint, or a file of the authors' with ``released``.
        released: take the file as one of the two that the authors published.
        labels: label file or folder; None takes those of the run.
        images: image folder; None takes the run's.
        name: data set of the labels; None takes the one trained on.
        test: label file or id list of the test split.
        split: train, val or test. A label file without splits is evaluated whole.
        missing: "error" or "leave_out" for labels without an image; None takes the run's.
        cache: folder of the pixel files that `eat prepare --cache` made; None reads the images
            themselves, also where the run had a cache.
        slice_by: columns of the label table; metrics of each of their values are added.
        trained_on: labels of the images that the model was trained on, if it does not list them.
        own_points: give each image its own interest points where the model averages them over the
            batch (released profile); its scores then do not hang on ``batch_size``.
        samples: bootstrap draws for the 95% intervals; 0 for none.
        batch_size: images a forward pass.
        workers: processes that load images.
        device: auto or cpu.
        precision: fp32, bf16 or fp16.

    Raises:
        WeightsError: the checkpoint cannot be read.
        LabelError: the labels cannot be read, have no such split, or do not fit the images.
        CacheError: the cache was made in another way or of other images.
    """
    model, info = load_released(checkpoint) if released else load_checkpoint(checkpoint)
    own = labels is None  # the run's own labels, split as in training
    run = info.config.get("data", {})
    if own and not run:
        raise LabelError("a released checkpoint names no labels: give --labels and --images")
    name = name or info.dataset
    splits = read_splits(
        name,
        labels or run["labels"],
        images or run.get("images", ""),
        test=test or (run["test"] if own else None),
        val=run["val"] if own else None,
        val_fraction=run["val_fraction"] if own else 0.0,
        missing=missing or run.get("missing", "error"),
        seed=info.config["run"]["seed"] if own else 0,
    )
    tables = splits.tables()
    if split not in tables and not own and len(tables) == 1:
        split, tables = "whole", {"whole": splits.train}
    if split not in tables:
        raise LabelError(f"{labels or run['labels']}: has no {split} split; give --test")
    table, dataset, source = tables[split], splits.dataset, info.dataset_row
    if own_points:
        use_own_points(model)
    outputs = run_split(
        model, info, table, images or run["images"], batch_size, workers, device, precision, cache
    )
    if trained_on:
        seen = identity_hashes(training_rows(read_labels(info.dataset, trained_on)))
    else:
        seen = None if released else read_trained_on(checkpoint)
    notes = leak_notes(table, dataset, info, seen) if split != "train" else []
    if source.name != dataset.name and (source.low, source.high) != (dataset.low, dataset.high):
        notes.append(f"scores mapped from {source.title}'s {source.low:g}..{source.high:g} to "
                     f"{dataset.title}'s {dataset.low:g}..{dataset.high:g} by the straight line "
                     "through the bounds")  # fmt: skip
    if info.model["settings"].get("average_points") or released:
        notes.append("interest points: " + ("each image's own" if own_points else
                     f"averaged over batches of {batch_size}, as released"))  # fmt: skip
    parts = [
        slice_metrics(outputs, table, column, dataset, source, samples) for column in slice_by or []
    ]
    return Evaluation(
        checkpoint=str(checkpoint),
        model=info.model["name"],
        trained_on=source.title,
        dataset=dataset.title,
        split=split,
        fingerprint=fingerprint(table),
        metrics=measure(outputs, table, dataset, source),
        intervals=intervals(outputs, table, dataset, source, samples),
        published=RELEASED[info.dataset].metrics if released else {},
        slices=pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(),
        predictions=tabulate(outputs, table, dataset, source),
        left_out=splits.left_out,
        notes=notes,
    )


def training_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The training split of a label table; all of it, if no row says train."""
    train = table[table["split"] == "train"]
    return train if len(train) else table


def run_split(
    model: EAT,
    info: CheckpointInfo,
    table: pd.DataFrame,
    images: str | Path,
    batch_size: int,
    workers: int,
    device: str,
    precision: str,
    cache: str | None = None,
) -> NDArray[np.float64]:
    """Outputs (N, K) of a checkpoint's model for the rows of a table."""
    target = targets(table, info.dataset_row.scale, 1)
    batches = rows_in_order(len(table), batch_size)
    loader = make_loader(table, images, target, info.preprocess, batches, workers, cache=cache)
    where = pick_device(device)
    return predict(model.to(where), loader, where, precision)
