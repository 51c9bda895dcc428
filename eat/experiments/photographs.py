"""Figures that show photographs, drawn from the runs of an experiment."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from eat.evaluation.measure import first_target
from eat.evaluation.saliency import load_gradcam
from eat.experiments.table import Experiment
from eat.pictures.examples import draw_examples
from eat.pictures.saliency import draw_saliency_of_models

COUNT = {"saliency": 4, "examples": 8}  # photographs, of examples of each kind


def check_photographs(experiment: Experiment) -> None:
    """Refuse an experiment whose figure cannot be drawn here.

    Raises:
        ValueError: grad-cam is not installed.
    """
    if experiment.plot == "saliency":
        load_gradcam()


def draw_photographs(
    experiment: Experiment, folders: Mapping[str, Path], images: Path, picture: Path
) -> None:
    """Draw the figure of an experiment that shows test photographs; of another, none.

    Args:
        folders: of finished runs, by the row's name.
        images: folder of the photographs.
        picture: the PNG to write.

    Raises:
        ValueError: a run's folder is gone.
    """
    if experiment.plot not in COUNT or not folders:
        return
    for row, folder in folders.items():
        if not (folder / "checkpoints" / "best.safetensors").is_file():
            raise ValueError(
                f"{folder}: the run of {row!r} is gone, which {picture.name} is drawn from: remove "
                f"its line from {picture.with_suffix('.csv')}, and the same command trains it again"
            )
    predictions = first_target(pd.read_csv(next(iter(folders.values())) / "predictions.csv"))
    count = min(COUNT[experiment.plot], len(predictions))
    if experiment.plot == "examples":
        draw_examples(predictions, images, picture, count)
        return
    by_score = predictions.sort_values("score", kind="stable").reset_index(drop=True)
    # The middles of as many equal parts, from low to high rated.
    chosen = by_score.iloc[[(2 * i + 1) * len(by_score) // (2 * count) for i in range(count)]]
    photos = {
        images / name: float(score)
        for name, score in zip(chosen["image"], chosen["score"], strict=True)
    }
    checkpoints = {
        row: folder / "checkpoints" / "best.safetensors" for row, folder in folders.items()
    }
    draw_saliency_of_models(checkpoints, photos, f"{experiment.where}: {experiment.title}", picture)
