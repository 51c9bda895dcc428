"""FLICKR-AES: ratings of each worker, or their means."""

from pathlib import Path

import numpy as np
import pandas as pd

from eat.data.labels.fields import read_blank_separated, read_csv, read_ids
from eat.data.labels.formats.build import from_ratings, from_scores

FLICKR_TEST_WORKERS = "test_workers_ID.csv"


def read_flickr_aes(path: str | Path) -> pd.DataFrame:
    """FLICKR-AES (Ren et al., ICCV 2017): ratings of each worker (.csv), or mean scores (.txt).

    The CSV has the columns worker, imagePair and score (1..5). If test_workers_ID.csv lies beside
    it, ratings of those workers are split "test" and the others "train". The text file has a file
    name and a score in 0..1, which is multiplied by 5, on each line.

    Returns:
        image, split, score (rating 1..5 with ``worker``; or mean 0..5 without).

    Warns:
        LabelWarning: a worker rated an image more than once; the mean of the ratings stands.
    """
    path = Path(path)
    if path.suffix.lower() == ".txt":
        file = read_blank_separated(path, ["image", "score"])
        file.numbers("score", 0, 1)
        return from_scores(file, "image", "score", 0, 5, scale=5)
    file = read_csv(path)
    worker, image, score = (file.column(name) for name in ("worker", "imagePair", "score"))
    table = from_ratings(file, worker, image, score, 1, 5)
    listed = path.with_name(FLICKR_TEST_WORKERS)
    if listed.is_file():
        table["split"] = np.where(table["worker"].isin(read_ids(listed)), "test", "train")
    return table
