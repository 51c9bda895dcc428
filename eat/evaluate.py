"""Evaluation: a model and a split to predictions, predictions and labels to named numbers."""

import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from eat.checkpoint import CheckpointInfo, load_checkpoint, write_atomically
from eat.data.dataset import AestheticsDataset, make_loader, read_splits, targets, to_scores
from eat.data.labels import LabelError, vote_columns
from eat.data.registry import Dataset
from eat.data.transforms import normalise
from eat.metrics import emd, score_metrics
from eat.models import EAT

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Autocast to ``precision``: fp32 (none), bf16 or fp16."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


def pick_device(name: str) -> torch.device:
    """The device that "auto" or "cpu" stands for."""
    return torch.device("cuda" if name == "auto" and torch.cuda.is_available() else "cpu")


def predict(
    model: EAT, loader: DataLoader, device: torch.device, precision: str = "fp32", title: str = ""
) -> np.ndarray:
    """Outputs of a model for every row of a loader: (N, K) float64, in row order."""
    model.eval()
    outputs = np.full((len(loader.dataset), model.num_outputs), np.nan)
    bar = tqdm(total=len(outputs), desc=title or "evaluate", unit="image", disable=None)
    with torch.inference_mode(), bar:
        for batch in loader:
            pixels = normalise(batch["pixels"].to(device, non_blocking=True))
            with autocast(device, precision):
                result = model(pixels)
            outputs[batch["row"].numpy()] = result.double().cpu().numpy()
            bar.update(len(result))
    return outputs


def rescale(scores: np.ndarray, source: Dataset, target: Dataset) -> np.ndarray:
    """Scores of one data set's scale on another's: the line that maps bounds to bounds."""
    share = (scores - source.low) / (source.high - source.low)
    return target.low + share * (target.high - target.low)


def measure(
    outputs: np.ndarray, table: pd.DataFrame, dataset: Dataset, trained_on: Dataset | None = None
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
    scores = rescale(to_scores(outputs, source), source, dataset)
    metrics = score_metrics(
        scores,
        table["score"].to_numpy(),
        threshold=dataset.positive_above,
        scale=dataset.target_scale,
    )
    if outputs.shape[1] > 1 and outputs.shape[1] == len(vote_columns(table)):
        metrics["emd"] = emd(outputs, targets(table, dataset, outputs.shape[1]).numpy())
    return metrics


@dataclass
class Evaluation:
    """Metrics and predictions of a checkpoint on a split.

    Attributes:
        checkpoint: its path.
        dataset: title of the data set.
        split: which split.
        metrics: named numbers, as ``measure`` gives them.
        predictions: columns image, score (rated), predicted, and p1..pK for vote shares.
        left_out: labelled images without a file.
    """

    checkpoint: str
    dataset: str
    split: str
    metrics: dict[str, float]
    predictions: pd.DataFrame
    left_out: list[str]

    def table(self) -> str:
        """The metrics as text for a terminal."""
        head = f"{self.dataset}, {self.split} split, {len(self.predictions)} images"
        if self.left_out:
            head += f" ({len(self.left_out)} left out: no file)"
        rows = [f"  {name:10}{value:8.4f}" for name, value in self.metrics.items()]
        note = "  (ratio = SRCC / accuracy, as in the paper's tables; it is not an accuracy)"
        return "\n".join([head, *rows, note])

    def write(self, folder: str | Path) -> tuple[Path, Path]:
        """Write metrics.json and predictions.csv into a folder; returns their paths."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        summary = {
            "checkpoint": self.checkpoint,
            "dataset": self.dataset,
            "split": self.split,
            "images": len(self.predictions),
            "left_out": self.left_out,
            "metrics": {k: None if np.isnan(v) else v for k, v in self.metrics.items()},
        }
        metrics, predictions = folder / "metrics.json", folder / "predictions.csv"
        write_atomically(metrics, json.dumps(summary, indent=2).encode() + b"\n")
        write_atomically(predictions, self.predictions.to_csv(index=False).encode())
        return metrics, predictions


def tabulate(
    outputs: np.ndarray, table: pd.DataFrame, dataset: Dataset, trained_on: Dataset
) -> pd.DataFrame:
    """Predictions beside labels: image, score, predicted, and p1..pK for vote shares."""
    columns = {"image": table["image"], "score": table["score"]}
    columns["predicted"] = rescale(to_scores(outputs, trained_on), trained_on, dataset)
    if outputs.shape[1] > 1:
        columns |= {f"p{k + 1}": outputs[:, k] for k in range(outputs.shape[1])}
    return pd.DataFrame(columns)


def evaluate_checkpoint(
    checkpoint: str | Path,
    *,
    labels: str | None = None,
    images: str | None = None,
    name: str | None = None,
    test: str | None = None,
    split: str = "test",
    missing: str | None = None,
    batch_size: int = 16,
    workers: int = 2,
    device: str = "auto",
    precision: str = "fp32",
) -> Evaluation:
    """Evaluate a checkpoint on a split of labelled images.

    Args:
        checkpoint: a run's checkpoint.
        labels: label file or folder; None takes those of the run.
        images: image folder; None takes the run's.
        name: data set of the labels; None takes the one trained on.
        test: label file or id list of the test split.
        split: train, val or test. A label file without splits is evaluated whole.
        missing: "error" or "leave_out" for labels without an image; None takes the run's.
        batch_size: images a forward pass. A model that averages its interest points over the
            batch (released profile) scores differently for each.
        workers: processes that load images.
        device: auto or cpu.
        precision: fp32, bf16 or fp16.

    Raises:
        WeightsError: the checkpoint cannot be read.
        LabelError: the labels cannot be read, have no such split, or do not fit the images.
    """
    model, info = load_checkpoint(checkpoint)
    where = info.config["data"]
    own = labels is None
    splits = read_splits(
        name or info.dataset,
        labels or where["labels"],
        images or where["images"],
        test=where["test"] if own and test is None else test,
        val=where["val"] if own else None,
        val_fraction=where["val_fraction"] if own else 0.0,
        missing=missing or where["missing"],
        seed=info.config["run"]["seed"],
    )
    table = getattr(splits, split)
    if table is None and not own and splits.val is None:
        table, split = splits.train, "whole"
    if table is None or not len(table):
        raise LabelError(f"{labels or where['labels']}: has no {split} split; give --test")
    outputs = run_split(
        model,
        info,
        table,
        images or where["images"],
        batch_size,
        workers,
        pick_device(device),
        precision,
    )
    dataset, trained_on = splits.dataset, info.dataset_row
    return Evaluation(
        str(checkpoint),
        dataset.title,
        split,
        measure(outputs, table, dataset, trained_on),
        tabulate(outputs, table, dataset, trained_on),
        splits.left_out,
    )


def run_split(
    model: EAT,
    info: CheckpointInfo,
    table: pd.DataFrame,
    images: str | Path,
    batch_size: int,
    workers: int,
    device: torch.device,
    precision: str,
) -> np.ndarray:
    """Outputs (N, K) of a checkpoint's model for the rows of a table."""
    target = targets(table, info.dataset_row, 1)
    data = AestheticsDataset(table, images, target, info.preprocess)
    loader = make_loader(data, batch_size, workers)
    return predict(model.to(device), loader, device, precision)
