"""PARA: votes on a scale of nine steps, or ratings of each worker."""

from pathlib import Path

import numpy as np
import pandas as pd

from eat.data.labels.fields import LabelFile, read_csv
from eat.data.labels.formats.build import from_ratings, from_votes, snake_case
from eat.data.labels.table import error_at


def read_para(path: str | Path) -> pd.DataFrame:
    """PARA (Yang et al., CVPR 2022): PARA-GiaaTrain.csv, PARA-GiaaTest.csv or PARA-Images.csv.

    Columns are found by name: sessionId, imageName; aestheticScore_1.0 to aestheticScore_5.0 in
    steps of 0.5 and aestheticScore_mean; or userId and aestheticScore.

    Returns:
        image ("session/name"), split "", score (1..5); ``worker`` from PARA-Images.csv, else
        votes_1..votes_9 for 1.0, 1.5, ..., 5.0, theme (the scene) and the other columns, such as
        quality_score_mean.

    Warns:
        LabelWarning: a worker rated an image more than once; the mean of the ratings stands.
    """
    file = read_csv(path)
    session, name = file.column("sessionId", "session"), file.column("imageName", "image")
    for column in (session, name):
        empty = file.text(column) == ""
        if empty.any():
            raise error_at(file.path, file.fields, empty, column, "a name", "fill it in")
    image = file.text(session) + "/" + file.text(name)
    worker = file.find("userId", "user")
    if worker:
        score = file.column("aestheticScore", "score")
        paths = LabelFile(file.path, file.fields.assign(**{name: image}))
        return from_ratings(paths, worker, name, score, 1, 5)
    bins = [file.column(f"aestheticScore_{k / 2:.1f}", f"{k / 2:.1f}") for k in range(2, 11)]
    columns = {f"votes_{k + 1}": file.numbers(bin_, 0) for k, bin_ in enumerate(bins)}
    scene, mean = file.find("semantic"), file.find("aestheticScore_mean", "mean")
    used = [session, name, *bins, *filter(None, (scene, mean))]
    columns |= {"theme": file.text(scene)} if scene else {}
    columns |= {snake_case(key): values for key, values in file.rest(used).items()}
    table = from_votes({"image": image, **columns}, file.path, np.linspace(1, 5, 9))
    if mean:
        table["score"] = file.numbers(mean, 1, 5).to_numpy()
    return table
