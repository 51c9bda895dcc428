"""The page of a run, or of several side by side."""

import json
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from eat.config.files import read_options
from eat.evaluation.measure import first_target
from eat.pictures.page import new_page, shown, write_data
from eat.system.files import json_object
from eat.training.folder import SPLITS
from eat.training.log import scalars
from eat.version import __version__

ASSETS = ("report.body", "page.css", "report.css", "page.js", "charts.js", "report.js")
MOST_RUNS = 4
MOST_LINES = 500  # of a log, the last ones
FAULTS = ("skipped_steps", "replaced_images", "fp16_overflows")
EPOCH = re.compile(r"[\d:]+ epoch \d+: ")  # a line of the log whose numbers stand in the curves
SCORES = ("srcc", "plcc", "accuracy")

Table = dict[str, str]  # values as text, by their names


def make_report(runs: Sequence[str | Path], out: str | Path) -> Path:
    """Make a page of runs: how they were trained, what they reached, and what went wrong.

    Args:
        runs: folders of runs, shown side by side.
        out: folder of the page.

    Returns:
        Its index.html.

    Raises:
        ValueError: there are too many, a folder is no run or holds a damaged file, or ``out`` is
            there and no page of ours.
    """
    if len(runs) > MOST_RUNS:
        raise ValueError(f"found {len(runs)} runs: expected at most {MOST_RUNS}, side by side")
    found = [read_run(Path(run)) for run in runs]
    with new_page(out, ASSETS) as folder:
        write_data(folder, "page", {"version": __version__, "runs": found})
    return Path(out, "index.html")


def read_run(folder: Path) -> dict[str, Any]:
    """What a run's folder tells, as the page takes it: its name, tables, notes and charts.

    Raises:
        ValueError: the folder is no run, or a file in it is damaged.
    """
    if not (folder / "config.yaml").is_file():
        raise ValueError(f"{folder}: no run: expected a folder with config.yaml and metrics.jsonl")
    epochs = read_epochs(folder / "metrics.jsonl")
    starts = read_lines(folder / "starts.jsonl")
    judged = folder / "eval" / "metrics.json"
    evaluation, result = read_object(judged), read_object(folder / "result.json")
    with reading(judged):
        measured = {"Metrics": metrics(evaluation, result), "Slices": slice_table(evaluation)}
    log = folder / "train.log"
    words = log.read_text(errors="replace").splitlines() if log.is_file() else []
    said = [line for line in words if not EPOCH.match(line)]
    if len(said) > MOST_LINES:
        left = f"{len(said) - MOST_LINES} earlier lines are in {log.name} alone"
        said = [left, *said[-MOST_LINES:]]
    left_out = folder / "left_out.txt"
    faults = {
        name: f"{sum(epoch.get(f'train/{name}', 0) for epoch in epochs):g}" for name in FAULTS
    }
    faults["starts"] = str(len(starts))
    absent = left_out.read_text(errors="replace").splitlines() if left_out.is_file() else []
    faults["labelled images without a file"] = str(len(absent))
    tables = measured | {
        "Faults": faults,
        "Options": flat(read_options(folder / "config.yaml")),
        "Environment": flat(starts[-1]) if starts else {},
    }
    return {
        "name": shown(folder),
        "tables": tables,
        "notes": [shown(note) for note in [*evaluation.get("notes", []), *said]],
        "charts": charts(epochs),
        "predictions": predictions(folder),
    }


@contextmanager
def reading(file: Path, line: int | None = None) -> Iterator[None]:
    """Name the file, and the line, whose content is not what a run writes, by a ValueError."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        place = f"{file}, line {line}" if line else str(file)
        raise ValueError(f"{place}: damaged ({reprlib.repr(str(error))})") from error


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The objects of a file with one a line; none if it is not there."""
    found = []
    lines = file.read_text(errors="replace").splitlines() if file.is_file() else []
    for number, line in enumerate(lines, start=1):
        with reading(file, number):
            found.append(json_object(line))
    return found


def read_epochs(file: Path) -> list[dict[str, float]]:
    """The scalars of each epoch."""
    found = []
    for number, line in enumerate(read_lines(file), start=1):
        with reading(file, number):
            found.append(scalars(line | {"epoch": int(line["epoch"])}))
    return found


def read_object(file: Path) -> dict[str, Any]:
    """The object in a file; an empty one if it is not there."""
    with reading(file):
        return json_object(file.read_text(errors="replace")) if file.is_file() else {}


def metrics(evaluation: dict[str, Any], result: dict[str, Any]) -> Table:
    """Metrics of an evaluation with their intervals, or of the end of training."""
    bounds = evaluation.get("intervals", {})
    found = {"split": str(result.get("split", ""))} if result else {}
    found |= {"best epoch": str(result["best_epoch"])} if "best_epoch" in result else {}
    found |= {"evaluated on": f"{evaluation['dataset']}, {evaluation['split']}, "
              f"{evaluation['images']} images"} if evaluation else {}  # fmt: skip
    values = evaluation.get("metrics") or result
    for name, value in values.items():
        if isinstance(value, float):
            low, high = bounds.get(name, (None, None))
            interval = f" ({low:.4f} to {high:.4f})" if low is not None else ""
            found[name] = f"{value:.4f}{interval}"
    return found


def slice_table(evaluation: dict[str, Any]) -> Table:
    """SRCC of each slice of an evaluation."""
    return {
        f"{row['column']}: {row['slice']}": f"SRCC {row['srcc']:.4f} of {row['images']} images"
        for row in evaluation.get("slices", [])
        if row["srcc"] is not None
    }


def flat(options: Mapping[str, Any], prefix: str = "") -> Table:
    """Nested values by dotted names, written as in YAML: null, true."""
    found: Table = {}
    for name, value in options.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = shown(
                value if isinstance(value, str) else json.dumps(value, default=str)
            )
    return found


def charts(epochs: Sequence[dict[str, float]]) -> list[dict[str, Any]]:
    """Curves over the epochs: each a title and series of numbers by their names."""
    names = list(dict.fromkeys(name for epoch in epochs for name in epoch))
    split = next((name.partition("/")[0] for name in names if name.endswith("/srcc")), "")
    wanted = {
        "training loss": {"loss": "train/train_loss"},
        f"{SPLITS.get(split, split)} split": {
            metric: f"{split}/{metric}"
            for metric in (name.partition("/")[2] for name in names if name.startswith(f"{split}/"))
            if metric.rpartition(".")[2] in SCORES
        },
        "interest points: deviation in an image": {
            name.removeprefix("points/points/"): name
            for name in names
            if name.startswith("points/points/")
        },
        "learning rate": {"lr": "train/lr"},
    }
    return [
        {
            "title": title,
            "epochs": [epoch["train/epoch"] for epoch in epochs],
            "series": {name: [epoch.get(key) for epoch in epochs] for name, key in chosen.items()},
        }
        for title, chosen in wanted.items()
        if chosen and epochs
    ]


def predictions(folder: Path) -> list[dict[str, Any]]:
    """Rated and predicted scores of the run's test images; none before its end."""
    file = folder / "predictions.csv"
    if not file.is_file():
        return []
    with reading(file):
        table = first_target(pd.read_csv(file, dtype={"image": str}))
        table = table.astype({"score": float, "predicted": float}).round(4).dropna()
    return [
        {"name": shown(image), "rated": rated, "score": score}
        for image, rated, score in table.itertuples(index=False)
    ]
