"""A small search as nni records it."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

COLUMNS = {
    "TrialJobEvent": "timestamp integer, trialJobId text, event text, data text, logPath text, "
    "sequenceId integer, message text, environmentId text",
    "MetricData": "timestamp integer, trialJobId text, parameterId text, type text, "
    "sequence integer, data text",
    "ExperimentProfile": "params text, id text, execDuration integer, startTime integer, "
    "endTime integer, logDir text, nextSequenceId integer, revision integer",
}
PROFILE = {"experimentName": "x", "trainingService": {"platform": "local"}}
DRAWN = {"parameters": {"optim.lr": 0.1}}


def record(folder: Path, profile: object, drawn: object, result: object) -> Path:
    """A search of one trial, with what nni keeps as JSON given as text or as values."""

    def text(value: object) -> str:
        return value if isinstance(value, str) else json.dumps(value)

    (folder / "db").mkdir(parents=True)
    (folder / "run").mkdir()
    (folder / "run" / "config.yaml").write_text("optim: {lr: 0.1}\n")
    rows = [
        ("TrialJobEvent", (1, "t", "RUNNING", text(drawn), str(folder / "run"), 0, None, "e")),
        ("TrialJobEvent", (2, "t", "SUCCEEDED", None, str(folder / "run"), 0, None, "e")),
        ("MetricData", (2, "t", "0", "FINAL", 0, text(result))),
        ("ExperimentProfile", (text(profile), "id", 0, 0, None, "", 1, 1)),
    ]
    with closing(sqlite3.connect(folder / "db" / "nni.sqlite")) as database:
        for table, columns in COLUMNS.items():
            database.execute(f"create table {table} ({columns})")
        for table, values in rows:
            database.execute(f"insert into {table} values ({','.join('?' * len(values))})", values)
        database.commit()
    return folder
