"""What people say of the photographs of a gallery, which makes it the error page of a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from eat.data.labels.reading import read_labels
from eat.data.labels.table import LabelError, vote_columns
from eat.data.registry import find_dataset
from eat.data.scales import ScoreScale, rescale
from eat.evaluation.measure import measure
from eat.evaluation.slices import slices
from eat.pictures.gallery.photographs import Photograph


@dataclass
class Ratings:
    """Labels of the images in a folder.

    Attributes:
        table: a row an image.
        target: its column that the model predicts, of several the first.
        scale: of that column.
        title: of the data set and split.
        columns: of the table, to slice by.
    """

    table: pd.DataFrame
    target: str
    scale: ScoreScale
    title: str
    columns: list[str]

    def add_to(self, photographs: list[Photograph], source: ScoreScale) -> dict[str, Any]:
        """Rate photographs, and sort them by the model's errors, the worst first.

        Args:
            photographs: their ``place`` is the row of the table. Their scores on ``source``, the
                scale that the model was trained on, become those on the labels' scale.

        Returns:
            What the page says of the ratings: metrics, of all and of each slice.
        """
        named = vote_columns(self.table) if self.target == "score" else []
        votes = self.table[named].to_numpy(float)
        votes = votes / votes.sum(axis=1, keepdims=True)  # a copy: the table lends its own
        outputs = np.full((len(self.table), max(len(photographs[0].votes), 1)), np.nan)
        for one in photographs:
            outputs[one.place] = one.votes or one.score / source.target_scale
            one.score = float(rescale(np.float64(one.score), source, self.scale))
            one.rated = float(self.table[self.target].iloc[one.place])
            one.rated_votes = tuple(votes[one.place].tolist())

        def measured(part: Sequence[Photograph]) -> dict[str, float]:
            errors = np.array([one.error for one in part])
            found = {"images": len(part), "bias": errors.mean(), "error": abs(errors).mean()}
            if len(part) < 2:
                return found
            rows = [one.place for one in part]
            scales = {self.target: self.scale}, {self.target: source}
            return found | measure(outputs[rows], self.table.iloc[rows], *scales)

        parts: list[dict[str, Any]] = []
        for column in self.columns:
            for value, rows in slices(self.table, column).items():
                within = set(rows.tolist())
                part = [one for one in photographs if one.place in within]
                if not part:
                    continue
                for one in part:
                    one.slices.append(len(parts))
                parts.append({"column": column, "slice": value} | measured(part))
        photographs.sort(key=lambda one: -abs(one.error))
        return {"title": self.title, "metrics": measured(photographs), "slices": parts}


def read_ratings(
    paths: Sequence[str],
    *,
    labels: str,
    name: str,
    low: float | None = None,
    high: float | None = None,
    test: str | None = None,
    split: str | None = None,
    slice_by: Sequence[str] | None = None,
    targets: Sequence[str] = (),
) -> Ratings:
    """Read the labels of the images in a folder: of the split asked for, else of a test split.

    Args:
        paths: the folder alone.
        targets: of the model, columns of the labels; none for a model of their scores or votes.

    The others are documented at ``eat.config.pictures.GalleryOptions``.

    Raises:
        LabelError: the labels cannot be read, have no such split, or no such column to slice by.
        ValueError: there is another path, or none that is a folder.
    """
    if len(paths) != 1 or not Path(paths[0]).is_dir():
        found = f"{len(paths)} paths" if len(paths) > 1 else repr(paths[0])[:200]
        raise ValueError(f"found {found}: expected the folder of the images that --labels names")
    dataset = find_dataset(name, low, high)
    table = read_labels(name, labels, low=low, high=high, test=test, targets=targets or None)
    split = split or ("test" if (table["split"] == "test").any() else None)
    if split:
        table = table[table["split"] == split].reset_index(drop=True)
    if table.empty:
        raise LabelError(f"{labels}: no image of the {split} split")
    columns = list(dict.fromkeys(slice_by or []))
    for column in columns:  # before any image is read
        slices(table, column)
    title = f"{dataset.title}, {split} split" if split else dataset.title
    target, scale = next(iter(dataset.scales(targets).items()))
    return Ratings(table, target, scale, title, columns)
