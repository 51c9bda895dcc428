"""The input benchmark runs, and measures what it says."""

import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "benchmark_input.py"


def test_the_input_table_names_every_way_and_the_difference(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--count", "3", "--rounds", "1", "--checkpoint", str(checkpoint)]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *argv])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("3 images of ")
    ways = {line[:18].strip(): float(line.split()[-1]) for line in lines[2:6]}
    assert list(ways) == ["released recipe", "exact", "fast", "cache"]
    assert ways["released recipe"] == 1
    assert lines[6].startswith("pixels, fast - exact: mean 0.00")
    assert "SRCC of both" in lines[7]
