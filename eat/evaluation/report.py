"""What an evaluation found, for a terminal, a program and a paper."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from eat.system.files import write_atomically

RATIO_NOTE = "ratio = SRCC / accuracy, as in the paper's tables; it is not an accuracy"


def finite(metrics: dict[str, float]) -> dict[str, float | None]:
    """NaN as None, which JSON has."""
    return {name: None if math.isnan(value) else value for name, value in metrics.items()}


def as_parquet(table: pd.DataFrame) -> bytes:
    """A table as a Parquet file.

    Raises:
        ValueError: pyarrow is not installed.
    """
    try:
        return table.to_parquet(index=False, engine="pyarrow")
    except ImportError as error:
        raise ValueError(
            "Parquet needs pyarrow: pip install 'eat-iaa[parquet]', or take --predictions csv"
        ) from error


@dataclass
class Evaluation:
    """Metrics and predictions of a checkpoint on a split.

    Attributes:
        checkpoint: its path.
        model: its name.
        trained_on: title of the data set that it was trained on.
        dataset: title of the data set evaluated on.
        split: which split.
        fingerprint: of the images evaluated on.
        metrics: named numbers, as ``eat.evaluation.evaluate.measure`` gives them.
        intervals: 95% bootstrap interval of each.
        published: what the authors report for it, if anything.
        slices: one row per slice: column, slice, images, the metrics and their intervals.
        predictions: columns image, score (rated), predicted, and p1..pK for vote shares.
        left_out: labelled images without a file.
        notes: what a reader of the numbers should know.
    """

    checkpoint: str
    model: str
    trained_on: str
    dataset: str
    split: str
    fingerprint: str
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    published: dict[str, float]
    slices: pd.DataFrame
    predictions: pd.DataFrame
    left_out: list[str]
    notes: list[str]

    def table(self) -> str:
        """The metrics as text for a terminal."""
        lines = [f"{self.dataset}, {self.split} split, {len(self.predictions)} images"]
        head = f"  {'':10}{'measured':>9}"
        head += f"{'95% interval':>20}" if self.intervals else ""
        lines.append(head + (f"{'published':>12}" if self.published else ""))
        for name, value in self.metrics.items():
            line = f"  {name:10}{value:9.4f}"
            if name in self.intervals:
                low, high = self.intervals[name]
                line += f"{f'{low:.4f} to {high:.4f}':>20}"
            if name in self.published:
                line += f"{self.published[name]:12.4f}"
            lines.append(line)
        for row in self.slices.to_dict("records"):
            text = f"  {row['column']} {row['slice']}"
            line = f"{text:34}{row['images']:>7} images  SRCC {row['srcc']:7.4f}"
            if "srcc_low" in row:
                line += f" ({row['srcc_low']:.4f} to {row['srcc_high']:.4f})"
            lines.append(f"{line}  PLCC {row['plcc']:7.4f}")
        if self.left_out:
            lines.append(f"  {len(self.left_out)} labelled images left out: no file")
        return "\n".join([*lines, *(f"  {note}" for note in [*self.notes, RATIO_NOTE])])

    def markdown(self) -> str:
        """A table head and one row, to paste into a paper."""
        cells = {"model": self.model, "trained on": self.trained_on, "tested on": self.dataset}
        cells["images"] = str(len(self.predictions))
        for name, value in self.metrics.items():
            cells[name.upper() if name not in ("accuracy", "ratio") else name] = f"{value:.3f}"
        rows = [cells.keys(), ["---"] * len(cells), cells.values()]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    def summary(self) -> dict[str, Any]:
        """Everything but the predictions, as JSON takes it."""
        return {
            "checkpoint": self.checkpoint,
            "model": self.model,
            "trained_on": self.trained_on,
            "dataset": self.dataset,
            "split": self.split,
            "images": len(self.predictions),
            "fingerprint": self.fingerprint,
            "metrics": finite(self.metrics),
            "intervals": {k: [None if math.isnan(x) else x for x in v]
                          for k, v in self.intervals.items()},
            "published": self.published,
            "slices": json.loads(self.slices.to_json(orient="records")),
            "left_out": self.left_out,
            "notes": self.notes,
        }  # fmt: skip

    def write(self, folder: str | Path, predictions: str = "csv") -> list[Path]:
        """Write metrics.json, metrics.csv, metrics.md and the predictions into a folder.

        Args:
            folder: made if it is not there.
            predictions: csv or parquet (which needs pyarrow).

        Returns:
            The paths of the files.

        Raises:
            ValueError: Parquet is wanted and pyarrow is not installed.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        whole = {"column": "", "slice": "", "images": len(self.predictions), **self.metrics}
        for name, (low, high) in self.intervals.items():
            whole |= {f"{name}_low": low, f"{name}_high": high}
        rows = pd.concat([pd.DataFrame([whole]), self.slices], ignore_index=True)
        if predictions == "parquet":
            table = as_parquet(self.predictions)
        else:
            table = self.predictions.to_csv(index=False).encode()
        files = {
            "metrics.json": (json.dumps(self.summary(), indent=2) + "\n").encode(),
            "metrics.csv": rows.to_csv(index=False).encode(),
            "metrics.md": (self.markdown() + "\n").encode(),
            f"predictions.{predictions}": table,
        }
        for name, content in files.items():
            write_atomically(folder / name, content)
        return [folder / name for name in files]
