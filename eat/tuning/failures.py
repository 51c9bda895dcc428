"""Reasons of failed trials."""

from pathlib import Path


def last_words(folder: str | Path) -> str:
    """A failed trial's last error message, if its folder is on this machine."""
    for name in ("trial.stderr", "stderr"):
        file = Path(folder) / name
        if folder and file.is_file():
            lines = [line for line in file.read_text(errors="replace").splitlines() if line.strip()]
            errors = [line for line in lines if "error:" in line]
            return (errors or lines or [""])[-1].strip()
    return ""
