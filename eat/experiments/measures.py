"""What is measured of a finished run."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pandas as pd

from eat.checkpoint import read_info
from eat.config import TrainConfig
from eat.evaluation.measure import first_target
from eat.evaluation.metrics import bootstrap_interval, plcc, srcc
from eat.evaluation.slices import Rows, slice_column, slice_metrics
from eat.experiments.results import Record
from eat.experiments.study import measure_background
from eat.experiments.table import Experiment, Row, image_side
from eat.experiments.workers import measure_workers
from eat.models.cost import model_cost
from eat.system.files import finite
from eat.system.stops import TrainingError
from eat.training.setup import read_run_splits

MIN_SLICE = 10  # images, of which a rank correlation says something
CONVERGED = 0.002  # an epoch has converged that lies within this of the best


def describe_run(experiment: Experiment, row: Row, config: TrainConfig, digest: str) -> Record:
    """What is known of a run before it is trained."""
    published = {f"published_{name}": value for name, value in asdict(row.published).items()}
    return {
        "experiment": experiment.name,
        "row": row.name,
        "seed": config.run.seed,
        "digest": digest,
        "data": config.data.name,
        "model": config.model.name,
        "side": image_side(config),
        "epochs": config.optim.epochs,
        "source": row.source or experiment.where,
    } | published


def measure(experiment: Experiment, row: Row, config: TrainConfig, folder: Path) -> Record:
    """All that an experiment says of a finished run, from its folder.

    Raises:
        TrainingError: the folder is damaged, or an adaptation diverged.
    """
    try:
        record = measure_run(folder, str(config.model.name))
    except (OSError, ValueError, LookupError) as error:
        raise TrainingError(
            f"{folder} is damaged ({type(error).__name__}: {error}): remove it, and the same "
            "command trains the run again"
        ) from error
    if experiment.slice_by:
        table = read_run_splits(config).tables()[record["split"]]
        column = slice_column(table, experiment.slice_by)
        record["slices"] = json.dumps(measure_slices(folder, table, column))
    if experiment.task == "background":
        record |= measure_background(folder, str(config.model.name))
    images = record["images_seen"] // config.optim.epochs
    reduced = experiment.reduced(row, config, images)
    if row.shots is not None:
        found, more = measure_workers(experiment, row, config, folder)
        record, reduced = record | found, reduced + more
    record["reduced"] = "; ".join(reduced) or None
    return record


def measure_run(folder: Path, model: str | None = None) -> Record:
    """What every experiment says of a run: metrics, cost, program, machine."""
    result = json.loads((folder / "result.json").read_text())
    start = last_start(folder)
    info = read_info(folder / "checkpoints" / "best.safetensors")
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    metric = info.config["run"]["metric"]
    defined = [epoch for epoch in epochs if epoch[metric] is not None]
    enough = max(epoch[metric] for epoch in defined) - CONVERGED
    predictions = first_target(pd.read_csv(folder / "predictions.csv"))
    told, found = result["srcc"], srcc(predictions["predicted"], predictions["score"])
    if told is not None and abs(told - found) > 1e-6:
        raise ValueError(f"predictions.csv gives an SRCC of {found:.6f}, result.json {told:.6f}")
    health = epochs[result["best_epoch"] - 1].get("points") or {}
    spread = {name: round(block["points"], 4) for name, block in health.items()}
    return (
        result
        | start
        | asdict(model_cost(partial(info.model.build, model)))
        | image_intervals(predictions)
        | {
            "fingerprints": " ".join(
                f"{k}:{v['fingerprint'][:16]}" for k, v in info.splits.items()
            ),
            "images_seen": info.splits["train"]["images"] * len(epochs),
            "converged_epoch": next(e["epoch"] for e in defined if e[metric] >= enough),
            "point_spread": json.dumps(spread) if spread else None,
        }
    )


def measure_slices(folder: Path, table: pd.DataFrame, column: str) -> dict[str, float]:
    """SRCC in each slice of at least ten images of a finished run's split, the largest first.

    Args:
        folder: of the run.
        table: labels of the split.
        column: to slice by.
    """
    predictions = first_target(pd.read_csv(folder / "predictions.csv", dtype={"image": str}))
    # A run may have left broken images out.
    table = predictions.merge(table.drop(columns="score"), on="image")
    columns = table["predicted"].to_numpy(), table["score"].to_numpy()

    def measured(rows: Rows) -> dict[str, float]:
        return {"srcc": srcc(*(values[rows] for values in columns))}

    found = slice_metrics(table, column, measured)
    found = found[(found["images"] >= MIN_SLICE) & found["srcc"].notna()]
    return {
        str(name): round(value, 6)
        for name, value in zip(found["slice"], found["srcc"], strict=True)
    }


def last_start(folder: Path) -> Record:
    """Program and machine that a run was last started with."""
    start = json.loads((folder / "starts.jsonl").read_text().splitlines()[-1])
    return {
        "commit": start["git"] or f"version {start['eat']}",
        "machine": ", ".join([start["processor"], *start["gpus"]]),
        "cores": start["cores"],
        "python": start["python"],
        "torch": start["packages"]["torch"],
    }


def image_intervals(predictions: pd.DataFrame) -> dict[str, float | None]:
    """95% bootstrap intervals over images of SRCC and PLCC; columns score and predicted."""
    columns = predictions["predicted"].to_numpy(), predictions["score"].to_numpy()
    low, high = bootstrap_interval(lambda p, t: [srcc(p, t), plcc(p, t)], *columns)
    ends = {"low": low, "high": high}
    return finite(
        {
            f"{m}_{end}": float(v[i])
            for i, m in enumerate(("srcc", "plcc"))
            for end, v in ends.items()
        }
    )
