"""Photographs of a split with what people and a model say of them (the paper's Figure 9)."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from eat.data.decoding import read_image
from eat.pictures.saving import save_for_paper

SIDE = 320  # pixels that a photograph is shrunk to
COLUMNS = 8  # of a picture


def choose_examples(predictions: pd.DataFrame, count: int) -> dict[str, pd.DataFrame]:
    """The ``count`` rows that the model rates best, worst, and most wrongly, in this order each."""
    wrong = (predictions["predicted"] - predictions["score"]).abs()
    best = predictions.sort_values("predicted", ascending=False, kind="stable")
    worst = predictions.sort_values("predicted", kind="stable")
    most = predictions.loc[wrong.sort_values(ascending=False, kind="stable").index]
    named = {"predicted best": best, "predicted worst": worst, "most wrong": most}
    return {title: table.head(count) for title, table in named.items()}


def draw_examples(
    predictions: pd.DataFrame, folder: str | Path, picture: str | Path, count: int
) -> None:
    """Draw the best, worst and most wrong predictions with both scores under each photograph.

    Args:
        predictions: columns image, score (rated) and predicted.
        folder: of the images.
        picture: the PNG to write, and a PDF beside it.
        count: photographs of each kind.

    Raises:
        ImageError: a photograph cannot be read.
    """
    groups = choose_examples(predictions, count)
    columns = min(count, COLUMNS, len(predictions))
    lines = math.ceil(min(count, len(predictions)) / columns)  # a group has
    rows = lines * len(groups)
    figure = Figure(figsize=(1.5 * columns, 1.75 * rows))
    axes = np.array(figure.subplots(rows, columns)).reshape(rows, columns)
    for axis in axes.flat:
        axis.axis("off")
        axis.set_anchor("NW")
    for group, (title, table) in enumerate(groups.items()):
        for place, row in enumerate(table.itertuples()):
            axis = axes[group * lines + place // columns, place % columns]
            image = read_image(Path(folder) / str(row.image), upright=True)
            image.thumbnail((SIDE, SIDE))
            axis.imshow(image)
            text = f"rated {row.score:.2f}\npredicted {row.predicted:.2f}"
            heading = "" if place else f"{title}\n"
            axis.set_title(heading + text, fontsize=7, loc="left")
    save_for_paper(figure, picture)
