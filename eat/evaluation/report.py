"""An evaluation's findings for a terminal, a program and a paper."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from eat.config.run import metric_prefixes
from eat.data.labels.identity import ImageHashes, count_seen
from eat.system.files import finite, write_atomically

RATIO_NOTE = "ratio = SRCC / accuracy, as in the paper's tables; it is not an accuracy"
SHORT = ("srcc", "plcc", "mse", "emd")  # metrics whose names are short for others


def markdown_table(cells: dict[str, str]) -> str:
    """A table of one row, to paste into a paper: the keys are its head."""
    rows = [cells.keys(), ["---"] * len(cells), cells.values()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write_report(folder: str | Path, files: dict[str, dict[str, Any] | str | bytes]) -> list[Path]:
    """Write files into a folder, which is made if it is not there, and return their paths.

    ``files`` has contents by file name; a dict becomes JSON, with null for NaN.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if isinstance(content, dict):
            content = json.dumps(finite(content), indent=2) + "\n"
        if isinstance(content, str):
            content = content.encode()
        write_atomically(folder / name, content)
    return [folder / name for name in files]


def with_bounds(
    metrics: dict[str, float], intervals: dict[str, tuple[float, float]]
) -> dict[str, float]:
    """Metrics, and their intervals as ``NAME_low`` and ``NAME_high``, in one row."""
    bounds = {
        f"{name}_{side}": bound
        for name, interval in intervals.items()
        for side, bound in zip(("low", "high"), interval, strict=True)
    }
    return metrics | bounds


def seen_note(table: pd.DataFrame, folder: str | Path, trained_on: ImageHashes, images: str) -> str:
    """A remark on the images of a table that a model has seen, or may have by their file names.

    Args:
        table: of images that should be new to the model.
        folder: of their files.
        trained_on: the training images.
        images: the name of the table's images in the remark.
    """
    same, named = count_seen(table, folder, trained_on)
    count, known = f"of {table['image'].nunique()} {images}", len(trained_on.names)
    doubt = "these metrics do not tell how the model generalises"
    notes = []
    if same or not named:
        note = f"{same} {count} were among the {known} trained on"
        notes.append(f"WARNING: {note}: {doubt}" if same else note)
    if named:
        note = f"{named} {count} have the same file name as one of the {known} trained on"
        unsure = f"WARNING: {note}; if they are the same photographs, {doubt}"
        notes.append(f"{note}, and other content" if len(trained_on.contents) else unsure)
    return "; ".join(notes)


def as_parquet(table: pd.DataFrame) -> bytes:
    """A table as a Parquet file; a ValueError without pyarrow."""
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
        digest: SHA-256 (hex) of its file, by which ``eat share`` knows what was measured.
        model: its name.
        trained_on: title of the data set that it was trained on.
        dataset: title of the data set evaluated on, or the file of choices.
        split: train, val or test; "whole" for labels without splits, "" for choices.
        fingerprint: of the images evaluated on.
        metrics: named numbers, as ``eat.evaluation.measure.measure`` gives them, or
            ``eat.evaluation.pairs.choice_metrics``.
        targets: columns that the model predicts; metrics of the first have no prefix.
        intervals: 95% bootstrap interval of each.
        predictions: columns as ``eat.evaluation.measure.tabulate`` has them; of choices the file's,
            with predicted scores.
        counts: of pairs, sets and images; by default an image a prediction.
        slices: one row per slice: column, slice, images, the metrics and their intervals; of
            choices one per set, with its pairs.
        published: metrics that the authors report for the checkpoint, if any.
        left_out: labelled images without a file.
        notes: remarks that the numbers must be read with.
        folder: of the images.
    """

    checkpoint: str
    model: str
    trained_on: str
    dataset: str
    split: str
    fingerprint: str
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    predictions: pd.DataFrame
    counts: dict[str, int] = field(default_factory=dict)
    slices: pd.DataFrame = field(default_factory=pd.DataFrame)
    published: dict[str, float] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    folder: str = ""
    targets: list[str] = field(default_factory=lambda: ["score"])
    digest: str = ""

    def __post_init__(self) -> None:
        self.counts = self.counts or {"images": len(self.predictions)}

    def table(self) -> str:
        """The metrics as text for a terminal."""
        counts = (f"{count} {name}" for name, count in self.counts.items())
        split = [f"{self.split} split"] if self.split else []
        lines = [", ".join([self.dataset, *split, *counts])]
        for target, prefix in metric_prefixes(self.targets).items():
            name = "" if self.targets == ["score"] else target
            lines += [*self._metric_lines(name, prefix), *self._slice_lines(name, prefix)]
        if self.left_out:
            lines.append(f"  {len(self.left_out)} labelled images left out: no file")
        notes = [*self.notes, *([RATIO_NOTE] if "ratio" in self.metrics else [])]
        return "\n".join([*lines, *(f"  {note}" for note in notes)])

    def _metric_lines(self, target: str, prefix: str) -> list[str]:
        width = max(10, *(len(name) + 2 for name in self.metrics if "." not in name))
        head = f"  {target:{width}}{'measured':>9}"
        head += f"{'95% interval':>20}" if self.intervals else ""
        lines = [head + (f"{'published':>12}" if self.published else "")]
        for name, value in self.metrics.items():
            of, _, metric = name.rpartition(".")
            if of != prefix.rstrip("."):
                continue
            line = f"  {metric:{width}}{value:9.4f}"
            if name in self.intervals:
                low, high = self.intervals[name]
                line += f"{f'{low:.4f} to {high:.4f}':>20}"
            if name in self.published:
                line += f"{self.published[name]:12.4f}"
            lines.append(line)
        return lines

    def _slice_lines(self, target: str, prefix: str) -> list[str]:
        lines = []
        rows = self.slices.to_dict("records") if "srcc" in self.metrics else []
        for row in rows:
            text = f"  {row['column']} {row['slice']}" + (f", {target}" if target else "")
            line = f"{text:34}{row['images']:>7} images  SRCC {row[f'{prefix}srcc']:7.4f}"
            if f"{prefix}srcc_low" in row:
                line += f" ({row[f'{prefix}srcc_low']:.4f} to {row[f'{prefix}srcc_high']:.4f})"
            lines.append(f"{line}  PLCC {row[f'{prefix}plcc']:7.4f}")
        return lines

    def markdown(self) -> str:
        """The metrics as a table of one row."""
        cells = {"model": self.model, "trained on": self.trained_on, "tested on": self.dataset}
        cells |= {name: str(count) for name, count in self.counts.items()}
        for name, value in self.metrics.items():
            of, _, metric = name.rpartition(".")
            title = metric.upper() if metric in SHORT else metric.replace("_", " ")
            cells[f"{of} {title}".lstrip()] = f"{value:.3f}"
        return markdown_table(cells)

    def summary(self) -> dict[str, Any]:
        """Everything but the predictions, as plain values."""
        own = ("predictions", "counts")
        plain = {name: value for name, value in vars(self).items() if name not in own}
        return plain | self.counts | {"slices": self.slices.to_dict("records")}

    def write(
        self, folder: str | Path, predictions: Literal["csv", "parquet"] = "csv"
    ) -> list[Path]:
        """Write metrics.json, metrics.csv, metrics.md and the predictions; return the paths.

        Raises:
            ValueError: Parquet is wanted and pyarrow is not installed.
        """
        whole = {"column": "", "slice": ""} | self.counts
        row = whole | with_bounds(self.metrics, self.intervals)
        rows = pd.concat([pd.DataFrame([row]), self.slices], ignore_index=True)
        parquet = predictions == "parquet"
        table = as_parquet(self.predictions) if parquet else self.predictions.to_csv(index=False)
        files = {"metrics.json": self.summary(), "metrics.csv": rows.to_csv(index=False)}
        files |= {"metrics.md": self.markdown() + "\n", f"predictions.{predictions}": table}
        return write_report(folder, files)
