"""A run's course and its predictions as pictures."""

import json
import math
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eat.pictures.saving import save_figure


def draw_curves(run: str | Path, picture: str | Path) -> None:
    """Draw loss, correlations and the spread of points over a run's epochs, from metrics.jsonl."""
    lines = [json.loads(x) for x in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    table = pd.DataFrame(lines).astype({"epoch": int})
    health = [line.get("points") or {} for line in lines]
    figure = Figure(figsize=(15 if any(health) else 10, 4))
    left, right, *more = figure.subplots(1, 3 if any(health) else 2)
    left.plot(table["epoch"], table["train_loss"], marker="o")
    left.set(xlabel="epoch", ylabel="training loss")
    for name in ("srcc", "plcc", "accuracy"):
        right.plot(table["epoch"], table[name].astype(float), marker="o", label=name)
    right.set(xlabel="epoch", title=f"{table['split'].iloc[0]} split")
    right.legend()
    for axis in more:
        for block in health[-1]:
            spread = [epoch.get(block, {}).get("points", math.nan) for epoch in health]
            axis.plot(table["epoch"], spread, marker="o", label=block)
        axis.set(xlabel="epoch", title="interest points: deviation in an image", ylim=(0, 0.7))
        axis.legend()
    for axis in figure.axes:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))  # there is no half epoch
    save_figure(figure, picture)


def draw_predictions(predictions: pd.DataFrame, picture: str | Path) -> None:
    """Draw predicted over rated scores; columns score and predicted."""
    figure = Figure(figsize=(5, 5))
    axis = figure.subplots()
    axis.scatter(predictions["score"], predictions["predicted"], s=8, alpha=0.5)
    low = predictions[["score", "predicted"]].min().min()
    high = predictions[["score", "predicted"]].max().max()
    axis.plot([low, high], [low, high], color="grey", linewidth=0.8)
    axis.set(xlabel="rated score", ylabel="predicted score", aspect="equal")
    save_figure(figure, picture)
