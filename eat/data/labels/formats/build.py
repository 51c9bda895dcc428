"""From the fields of a label file to a checked label table: of scores, votes or ratings."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eat.data.labels.fields import LabelFile
from eat.data.labels.table import quote, validate, vote_columns, warn


def snake_case(name: str) -> str:
    """colorScore_mean -> color_score_mean."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[\s\-]+", "_", name.strip()).lower()


def from_scores(
    file: LabelFile,
    image: str,
    score: str,
    low: float,
    high: float,
    *,
    scale: float = 1.0,
    columns: Mapping[str, pd.Series] | None = None,
) -> pd.DataFrame:
    """A checked table from an image and a score column of a file.

    All other columns are kept, their names in snake_case, unless ``columns`` replaces them. Scores
    are multiplied by ``scale``, and are then from ``low`` to ``high``.
    """
    table = {"image": file.text(image), "split": "", "score": file.numbers(score) * scale}
    table |= {snake_case(name): values for name, values in file.rest([image, score]).items()}
    return validate(pd.DataFrame(table | dict(columns or {})), low, high, file.path)


def from_votes(
    columns: Mapping[str, pd.Series | str | float], path: Path, values: NDArray[np.float64]
) -> pd.DataFrame:
    """A checked table from image and vote columns.

    Args:
        columns: image, votes_1..votes_K, maybe split, and others that are kept.
        path: file that messages name.
        values: (K,) the scores that were voted for. An image's score is their mean.
    """
    frame = pd.DataFrame({"image": "", "split": "", "score": 0.0, **columns})
    votes = frame[vote_columns(frame)].to_numpy()
    # The check of the votes refuses an image without any; rounding must not leave the scale.
    means = votes @ values / np.maximum(votes.sum(axis=1), 1e-12)
    frame["score"] = means.clip(values[0], values[-1])
    return validate(frame, values[0], values[-1], path)


def from_ratings(
    file: LabelFile, worker: str, image: str, score: str, low: float, high: float
) -> pd.DataFrame:
    """One row per image and worker; repeated ratings become their mean, with a warning."""
    ratings = {"worker": file.text(worker), "score": file.numbers(score)}
    table = pd.DataFrame({"image": file.text(image), "split": "", **ratings})
    keys = ["image", "worker"]
    again = table.duplicated(keys)
    if again.any():
        warn(
            f"{file.path}: {again.sum()} ratings repeat a worker's rating of the same image, such "
            f"as {quote(table.loc[again, 'image'])}; the mean of them stands for each"
        )
        means = table.groupby(keys, sort=False)["score"].transform("mean")
        table = table.assign(score=means)[~again]
    return validate(table, low, high, file.path)
