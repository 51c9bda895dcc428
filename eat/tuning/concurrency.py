"""How many trials of an nni experiment run at a time, so that they share the cores."""

import json
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

RECORD = Path("db", "nni.sqlite")  # in the folder of an experiment


def trials_at_once() -> int:
    """How many trials nni runs at a time on this machine.

    It is 1 outside an experiment, and where the experiment's record is on another machine.
    """
    folder = Path(os.environ.get("NNI_OUTPUT_DIR", ""))
    record = next((up / RECORD for up in folder.parents if (up / RECORD).is_file()), None)
    if record is None:
        return 1
    with suppress(sqlite3.Error, ValueError, LookupError, TypeError):  # it is nni's to complain
        with closing(sqlite3.connect(f"{record.resolve().as_uri()}?mode=ro", uri=True)) as database:
            query = "select params from ExperimentProfile order by revision desc limit 1"
            config = json.loads(database.execute(query).fetchone()[0])
        concurrency = config["trialConcurrency"]
        return max(1, min(concurrency, config.get("maxTrialNumber", concurrency)))
    return 1
