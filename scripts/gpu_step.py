"""What the steps of scripts/gpu.py share: their device and sizes, and where their numbers go."""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from eat.system.device import autocast

DEVICE = torch.device(os.environ.get("EAT_GPU", "cuda"))
TINY = DEVICE.type == "cpu"  # the steps are tried, not measured
OUT = Path(os.environ.get("EAT_GPU_OUT", "."))  # eight files at most in all
SCRATCH = Path(os.environ.get("EAT_GPU_SCRATCH", "."))
Row = dict[str, Any]


def precision(name: str) -> AbstractContextManager[Any]:
    """Autocast to fp32, bf16 or fp16 on the step's device."""
    return autocast(DEVICE, name)


def finish() -> None:
    """Wait for all that the device was given to do."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def seconds(function: Callable[..., Any], *args: Any, repeats: int = 20) -> float:
    """Of a call, the median after a few."""
    times = []
    for _ in range(2 if TINY else repeats + 3):
        finish()
        start = time.perf_counter()
        function(*args)
        finish()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1 if TINY else 3 :])


def told(rows: list[Row]) -> list[Row]:
    """The rows, printed."""
    for row in rows:
        cells = (
            v if isinstance(v, str) else f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}"
            for k, v in row.items()
        )
        print("  ".join(cells))
    return rows


def write(rows: list[Row]) -> None:
    """Keep a step's rows, also those so far, for the part's JSON file."""
    if "EAT_GPU_JSON" in os.environ:
        file = Path(os.environ["EAT_GPU_JSON"])
        file.with_suffix(".new").write_text(json.dumps(rows))
        file.with_suffix(".new").replace(file)


def main(steps: dict[str, Callable[[], list[Row]]]) -> None:
    """Carry out the step that is named on the command line, and write the rows it returns.

    Raises:
        SystemExit: a row is not "ok".
    """
    rows = steps[sys.argv[1]]()
    write(rows)
    if beyond := [row for row in rows if not row.get("ok", True)]:
        raise SystemExit(f"not as expected: {beyond}")
