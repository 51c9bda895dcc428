"""What the steps of scripts/gpu.py share: their device and sizes, and where their numbers go."""

import json
import os
import sys
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


def precision(name: str) -> AbstractContextManager[Any]:
    """Autocast to fp32, bf16 or fp16 on the step's device."""
    return autocast(DEVICE, name)


def finish() -> None:
    """Wait for all that the device was given to do."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def main(steps: dict[str, Callable[[], list[dict[str, Any]]]]) -> None:
    """Carry out the step that is named on the command line, and write the rows it returns.

    Raises:
        SystemExit: a row is not "ok".
    """
    rows = steps[sys.argv[1]]()
    if "EAT_GPU_JSON" in os.environ:
        Path(os.environ["EAT_GPU_JSON"]).write_text(json.dumps(rows))
    if beyond := [row for row in rows if not row.get("ok", True)]:
        raise SystemExit(f"not as expected: {beyond}")
