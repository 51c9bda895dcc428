"""What runs gave: a line of a CSV for each row and seed, written as soon as it is there."""

import csv
import io
import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from eat.checkpoint import read_info
from eat.config import TrainConfig
from eat.evaluation.metrics import bootstrap_interval, plcc, srcc
from eat.evaluation.slices import Rows, slice_metrics
from eat.experiments.table import Experiment, Row, image_side
from eat.models.cost import model_cost
from eat.system.files import append_line, finite

Record = dict[str, Any]  # by the names of COLUMNS; None where there is no value

MIN_SLICE = 10  # images, of which a rank correlation says something
CONVERGED = 0.002  # an epoch has converged that lies within this of the best
# Of a CSV, with the type of their cells. ``failed`` is empty, or says why there are no results.
COLUMNS: dict[str, type] = {
    **dict.fromkeys(("experiment", "row"), str),
    "seed": int,
    **dict.fromkeys(("digest", "failed", "reduced", "command", "commit", "machine"), str),
    "cores": int,
    **dict.fromkeys(("python", "torch", "data", "fingerprints", "model"), str),
    **dict.fromkeys(("side", "epochs", "images_seen"), int),
    "split": str,
    **dict.fromkeys(("best_epoch", "converged_epoch"), int),
    **dict.fromkeys(("srcc", "srcc_low", "srcc_high", "plcc", "plcc_low", "plcc_high"), float),
    **dict.fromkeys(("accuracy", "ratio", "mse", "emd"), float),
    **dict.fromkeys(("params", "macs", "memory", "points", "eq12"), int),
    "point_spread": str,
    # of the study of the background
    **dict.fromkeys(("foreground_srcc", "background_srcc", "background_area"), float),
    "background_attention": str,
    **{
        f"published_{name}": float for name in ("srcc", "plcc", "ratio", "mse", "gflops", "mparams")
    },
    "published_epochs": int,
    "source": str,
    "slices": str,
}


class Results:
    """The CSV of an experiment. Several processes may add to it.

    Raises:
        ValueError: the file holds something else, or a line of it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def drop_torn_line(self) -> str:
        """Remove a last line that was not written to its end, and return it."""
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = content.rfind(b"\n") + 1
        if not whole:
            self.path.unlink(missing_ok=True)
        elif whole < len(content):
            with self.path.open("r+b") as file:
                file.truncate(whole)
        return content[whole:].decode(errors="replace")

    def read(self) -> dict[tuple[str, int, str], Record]:
        """The records by row, seed and digest; of several of one run the last."""
        if not self.path.exists():
            return {}
        # An unfinished last line is one that another process is writing.
        text = self.path.read_text(errors="replace")
        lines = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))
        if lines and lines[0] != list(COLUMNS):
            raise ValueError(
                f"{self.path}: its columns are {', '.join(lines[0])[:200]}: expected those of eat "
                "reproduce; move the file away, or choose another --out"
            )
        records = [self._record(cells, number) for number, cells in enumerate(lines[1:], start=2)]
        return {(record["row"], record["seed"], record["digest"]): record for record in records}

    def _record(self, cells: list[str], number: int) -> Record:
        try:
            pairs = zip(COLUMNS.items(), cells, strict=True)
            return {name: kind(cell) if cell else None for (name, kind), cell in pairs}
        except ValueError as error:
            raise ValueError(
                f"{self.path}: line {number} is damaged ({error}): remove it; its run is then "
                "measured again, or trained again if its folder is gone"
            ) from error

    def add(self, record: Record) -> None:
        """Append a record; values that it lacks are left empty."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError), self.path.open("x") as file:  # one process's header
            file.write(",".join(COLUMNS) + "\n")
        cells = [record.get(name) for name in COLUMNS]
        words = ["" if cell is None else str(cell) for cell in cells]
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(words)
        append_line(self.path, line.getvalue())


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


def measure_run(folder: Path) -> Record:
    """The results of a finished run, from its folder."""
    result = json.loads((folder / "result.json").read_text())
    start = last_start(folder)
    info = read_info(folder / "checkpoints" / "best.safetensors")
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    metric = info.config["run"]["metric"]
    defined = [epoch for epoch in epochs if epoch[metric] is not None]
    enough = max(epoch[metric] for epoch in defined) - CONVERGED
    health = epochs[result["best_epoch"] - 1].get("points") or {}
    spread = {name: round(block["points"], 4) for name, block in health.items()}
    return (
        result
        | start
        | asdict(model_cost(info.model.build))
        | image_intervals(pd.read_csv(folder / "predictions.csv"))
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
    predictions = pd.read_csv(folder / "predictions.csv", dtype={"image": str})
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
