"""A finished or running search: its trials as a table, and the best one as a run to repeat."""

import json
import math
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from eat.config.commands import BestOptions
from eat.config.files import read_options
from eat.system.files import json_object, write_atomically
from eat.tuning.nni_engine import PARAMETERS, RECORD
from eat.tuning.optuna_engine import read_card, read_trials
from eat.tuning.trial import JOB, options

# What nni calls a trial's last event, apart from those that only lead to another.
STATUSES = {"WAITING", "RUNNING", "SUCCEEDED", "FAILED", "USER_CANCELED", "SYS_CANCELED"}
STATUSES |= {"EARLY_STOPPED", "UNKNOWN"}


class SearchError(ValueError):
    """A search that cannot be read, or has no result; the message says what there is."""


@dataclass
class Search:
    """A search as its engine recorded it.

    Attributes:
        id: nni's name of the experiment, or Optuna's of the study.
        name: as in nni's config.
        platform: of nni's trials, local or remote; or optuna.
        maximize: whether a larger result is better.
        trials: a row a trial, in the order of their start: number, trial, status, final, best, last
            and epochs (of what it reported), seconds, folder, error, and its options by name.
    """

    id: str
    name: str
    platform: str
    maximize: bool
    trials: pd.DataFrame

    def best(self) -> dict[str, Any]:
        """The row of the trial with the best final result.

        Raises:
            SearchError: no trial has one.
        """
        final = self.trials["final"].dropna()
        if final.empty:
            counts = self.trials["status"].value_counts()
            found = ", ".join(f"{count} {status}" for status, count in counts.items()) or "none"
            raise SearchError(f"{self.id}: no trial has a final result; trials: {found}")
        place = int(final.argmax() if self.maximize else final.argmin())
        return self.trials.loc[final.index[place]].to_dict()


def find_search(experiment: str, experiments: str) -> Path:
    """The folder of a search, given as itself or by nni's id of it, a folder in ``experiments``.

    Raises:
        SearchError: there is no such search.
    """
    parent = Path(experiments).expanduser()
    for folder in (Path(experiment), parent / experiment):
        if (folder / RECORD).is_file():
            return folder
    known = sorted(path.parents[1].name for path in parent.glob(f"[!_]*/{RECORD}"))
    raise SearchError(
        f"{experiment}: no search of that name in {experiments}; found: "
        f"{', '.join(known) or 'none'}; give another, its folder, or --experiments"
    )


def open_search(experiment: str, settings: BestOptions) -> Search:
    """Read a search given by its folder, by Optuna's storage, or as for ``find_search``.

    Raises:
        SearchError: there is no such search, or its record cannot be read.
    """
    folder, storage, study = Path(experiment), experiment, settings.study
    if card := read_card(folder):
        if "nni" in card:
            return read_search(find_search(str(card["nni"]), settings.experiments))
        storage, study = str(card.get("storage")), str(card.get("study"))
        if "***" in storage:
            raise SearchError(f"{folder}: its record is in {storage}: give that URL, and --study")
    elif "://" not in experiment and not folder.is_file():
        return read_search(find_search(experiment, settings.experiments))
    name, rows = read_trials(storage, study)
    return Search(name, "", "optuna", True, _table([row | options(drawn) for row, drawn in rows]))


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows or None, columns=None if rows else ["status", "final"])


def read_search(folder: str | Path) -> Search:
    """Read what nni recorded, whether the search is running or not.

    Raises:
        SearchError: the record is damaged or empty.
    """
    path = Path(folder) / RECORD
    try:
        return _read_record(path)
    except SearchError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError,
            RecursionError) as error:  # fmt: skip
        raise SearchError(f"{path}: holds what nni does not write ({error!r:.200})") from error


def _read_record(path: Path) -> Search:
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            events, metrics, profiles = (
                pd.read_sql_query(f"select rowid, * from {table} order by rowid", database)
                for table in ("TrialJobEvent", "MetricData", "ExperimentProfile")
            )
    except (sqlite3.Error, pd.errors.DatabaseError) as error:
        raise SearchError(
            f"{path}: cannot be read as nni's record of a search ({error})"
        ) from error
    if profiles.empty:
        raise SearchError(f"{path}: the search was never started")
    config = json.loads(profiles.iloc[-1]["params"])
    arguments = (config.get("tuner") or {}).get("classArgs") or {}
    maximize = arguments.get("optimize_mode", "maximize") == "maximize"
    service = config["trainingService"]
    by_id = {str(each.get("parameter_id")): each["parameters"] for each in _drawn(events)}
    rows = [
        _read_trial(str(trial), group, metrics[metrics["trialJobId"] == trial], by_id, maximize)
        for trial, group in events[events["trialJobId"] != ""].groupby("trialJobId", sort=False)
    ]
    return Search(
        id=profiles.iloc[-1]["id"],
        name=config.get("experimentName") or "",
        platform=service["platform"] if isinstance(service, dict) else "hybrid",
        maximize=maximize,
        trials=_table(rows),
    )


def _read_trial(
    trial: str,
    events: pd.DataFrame,
    metrics: pd.DataFrame,
    drawn: dict[str, dict[str, Any]],
    maximize: bool,
) -> dict[str, Any]:
    known = events[events["event"].isin(STATUSES)]
    folders = known["logPath"].dropna().str.replace(r"^file://[^:]*:", "", regex=True)
    folder = folders.iloc[-1] if len(folders) else ""
    periodical = metrics[metrics["type"] == "PERIODICAL"]
    # A trial that continues reports again what it had reported, under the same numbers.
    epochs = dict(zip(periodical["sequence"], periodical["data"], strict=True))
    values = [_result(data) for data in epochs.values()]
    final = [_result(data) for data in metrics.loc[metrics["type"] == "FINAL", "data"]]
    status = known["event"].iloc[-1] if len(known) else "UNKNOWN"
    return {
        "number": int(known["sequenceId"].dropna().max()) if len(known) else -1,
        "trial": trial,
        "status": status,
        "final": final[-1] if final else math.nan,
        "best": (max if maximize else min)(values, default=math.nan),
        "last": values[-1] if values else math.nan,
        "epochs": len(values),
        "seconds": _seconds(known),
        "folder": folder,
        "error": last_words(folder) if status == "FAILED" else "",
    } | options(_parameters(events, metrics, folder, drawn))


def _parameters(
    events: pd.DataFrame, metrics: pd.DataFrame, folder: str, drawn: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """What a trial ran with, of what was drawn.

    nni hands parameters to trials in the order in which they ask, and records them in the order of
    their start. So what a trial reports, or has kept, of them holds before that record.
    """
    known = Path(folder, PARAMETERS)
    own = json_object(known.read_text()) if folder and known.is_file() else {}
    for number in (*metrics["parameterId"].dropna()[::-1], own.get("parameter_id")):
        if str(number) in drawn:
            return drawn[str(number)]
    return next((each["parameters"] for each in _drawn(events)), {})


def _drawn(events: pd.DataFrame) -> list[dict[str, Any]]:
    """What the tuner drew, as events record it."""
    return [json.loads(data) for data in events["data"].dropna() if data]


def _result(data: str) -> float:
    """The number that nni compares, from a report that it keeps as JSON in JSON."""
    value = json.loads(json.loads(data))
    number = float(value["default"] if isinstance(value, dict) else value)
    return number if math.isfinite(number) else math.nan


def last_words(folder: str | Path) -> str:
    """A failed trial's last error message, if its folder is on this machine."""
    for name in ("trial.stderr", "stderr"):
        file = Path(folder) / name
        if folder and file.is_file():
            lines = [line for line in file.read_text(errors="replace").splitlines() if line.strip()]
            errors = [line for line in lines if "error:" in line]
            return (errors or lines or [""])[-1].strip()
    return ""


def _seconds(events: pd.DataFrame) -> float:
    """Time between each start and the event after it, in seconds."""
    total, start = 0.0, None
    for event, when in zip(events["event"], events["timestamp"], strict=True):
        if start is not None:
            total += (when - start) / 1000
        start = when if event == "RUNNING" else None
    return total


def best(experiment: str, settings: BestOptions) -> tuple[Search, dict[str, Any], Path]:
    """Write the best trial's config and a table of all trials.

    Returns:
        The search; the best trial's row, with ``checkpoint`` added (empty if it is on another
        machine); and the folder, which holds config.yaml and trials.csv.

    Raises:
        SearchError: there is no such search, no trial of it has a result, or its trials are the
            runs of ``eat reproduce``.
    """
    search = open_search(experiment, settings)
    if JOB in search.trials:
        raise SearchError(
            f"{experiment}: its trials are the runs of a table by eat reproduce, not a search: "
            "read NAME.md in that command's --out"
        )
    folder = Path(settings.out or f"best-{search.id}")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "trials.csv", search.trials.to_csv(index=False).encode())
    row = search.best()
    run = Path(row["folder"])
    checkpoint = run / "checkpoints" / "best.safetensors"
    row["checkpoint"] = str(checkpoint) if checkpoint.is_file() else ""
    if (run / "config.yaml").is_file():
        config = read_options(run / "config.yaml")
        config["run"] = config.get("run", {}) | {"folder": None, "resume": "never"}
    else:  # on another machine: what the search chose, to be laid over the trial command's options
        config = nested(options({name: row[name] for name in chosen(search.trials)}))
    write_atomically(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False).encode())
    return search, row, folder


def chosen(trials: pd.DataFrame) -> list[str]:
    """The columns that hold options."""
    return [str(name) for name in trials if "." in str(name)]


def nested(dotted: dict[str, Any]) -> dict[str, Any]:
    """Options by dotted name as groups, the way a config file has them."""
    groups: dict[str, Any] = {}
    for name, value in dotted.items():
        *path, last = name.split(".")
        group = groups
        for part in path:
            group = group.setdefault(part, {})
        group[last] = value
    return groups
