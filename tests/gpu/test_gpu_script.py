"""The script that measures on a GPU goes on after a step that fails, and says which did."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "scripts"))
import gpu


def test_a_step_that_fails_hangs_or_lacks_a_package_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = "import os, pathlib; pathlib.Path(os.environ['EAT_GPU_JSON']).write_text('[3]')"
    steps = [
        gpu.Step("crash", 30, (), ("-c", "import os; os.abort()")),
        gpu.Step("hang", 1, (), ("-c", "import time; time.sleep(60)")),
        gpu.Step("lack", 30, ("json", "no_such_module"), ("-c", "")),
        gpu.Step("other", 30, (), ("-c", "raise SystemExit('not chosen')")),
        gpu.Step("good", 30, (), ("-c", write), last=True),
    ]
    monkeypatch.setitem(gpu.PARTS, "check", (2, steps))
    part = gpu.Part("check", tmp_path / "out", "cuda", ["crash", "hang", "lack", "good"])
    assert not part.carry_out()
    found = {row["name"]: row for row in json.loads((tmp_path / "out" / "check.json").read_text())}
    assert {name: row["status"] for name, row in found.items()} == {
        "crash": "failed, exit code -6",
        "hang": "timed out",
        "lack": "not run, lacks no_such_module",
        "good": "ok",
    }
    assert found["good"]["numbers"] == [3] and list(found)[-1] == "good"
    text = (tmp_path / "out" / "check.txt").read_text()
    assert "hang: timed out" in text and "not chosen" not in text
    assert gpu.Part("check", tmp_path / "out", "cuda", ["good"]).carry_out()


@pytest.mark.parametrize("part", gpu.PARTS)
def test_each_step_has_a_function(part: str) -> None:
    steps = __import__(f"gpu_{part}")
    names = {*getattr(steps, "STEPS", {})} | {*getattr(steps, "RUNS", {})} | {*vars(steps)}
    assert {step.name for step in gpu.PARTS[part][1] if step.command is None} <= names
