"""Provenance of a run: program, libraries, machine."""

import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from eat.system.processes import world_size
from eat.version import __version__

PACKAGES = ("torch", "timm", "numpy", "pandas", "pillow", "simplejpeg", "accelerate", "nni")


def git_revision(folder: Path) -> str | None:
    """The commit checked out in a folder, with ``+changes`` if its code differs; or None.

    What runs write, such as ``results/``, is no code.
    """

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # The repository must be this program's own, not one that it was installed into.
        if not Path(git("rev-parse", "--show-toplevel")).samefile(folder):
            return None
        changes = git("status", "--porcelain", "--", ".", ":(exclude)results")
        return git("rev-parse", "HEAD") + ("+changes" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith("model name")).partition(": ")[2]
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def describe() -> dict[str, Any]:
    """Program, libraries and machine of this process, as JSON values."""
    gpus = range(torch.cuda.device_count())
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "folder": os.getcwd(),
        "eat": __version__,
        "git": git_revision(Path(__file__).parents[2]),
        "python": platform.python_version(),
        "packages": {name: _installed(name) for name in PACKAGES},
        "cuda": torch.version.cuda,
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in gpus],
        "processes": world_size(),
        "pid": os.getpid(),
    }
