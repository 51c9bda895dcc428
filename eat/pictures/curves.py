"""A run's course and its predictions as pictures."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eat.config.run import METRICS
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
    for name in [name for name in table if name.rpartition(".")[2] in METRICS]:
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
    """Draw predicted over rated scores of each target, as ``tabulate`` has them side by side."""
    places = [k for k, name in enumerate(predictions) if f".{name}".endswith(".predicted")]
    figure = Figure(figsize=(5 * len(places), 5))
    axes = np.ravel(figure.subplots(1, len(places)))
    for axis, place in zip(axes, places, strict=True):
        pair = predictions.iloc[:, [place - 1, place]].to_numpy()
        axis.scatter(*pair.T, s=8, alpha=0.5)
        axis.plot(*[[pair.min(), pair.max()]] * 2, color="grey", linewidth=0.8)
        name = predictions.columns[place - 1]
        axis.set(xlabel=f"rated {name}", ylabel=f"predicted {name}", aspect="equal")
    save_figure(figure, picture)
