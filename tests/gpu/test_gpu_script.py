"""The script that measures on a GPU goes on after a step that fails, and says which did."""

import json
import math
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "scripts"))
import gpu


def test_a_step_that_fails_hangs_or_lacks_a_package_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = "import os, pathlib; pathlib.Path(os.environ['EAT_GPU_JSON']).write_text('[3]')"
    steps = [
        gpu.Step("crash", 30, (), ("-c", "import os; os.abort()")),
        gpu.Step("hang", 1, (), ("-c", "import time; time.sleep(60)")),
        gpu.Step("lack", 30, ("json", "no_such_module.part"), ("-c", "")),
        gpu.Step("other", 30, (), ("-c", "raise SystemExit('not chosen')")),
        gpu.Step("cut", 30, (), ("-c", write.replace("[3]", "[3, "))),
        gpu.Step("good", 30, (), ("-c", write), last=True),
    ]
    monkeypatch.setitem(gpu.PARTS, "check", (2, steps))
    part = gpu.Part("check", tmp_path / "out", "cuda", ["crash", "hang", "lack", "cut", "good"])
    assert not part.carry_out()
    found = {row["name"]: row for row in json.loads((tmp_path / "out" / "check.json").read_text())}
    assert {name: row["status"] for name, row in found.items()} == {
        "crash": "failed, exit code -6",
        "hang": "timed out",
        "lack": "not run, lacks no_such_module.part",
        "cut": "ok",
        "good": "ok",
    }
    assert found["cut"]["numbers"] is None  # written half, as by a step that was killed
    assert found["good"]["numbers"] == [3] and list(found)[-1] == "good"
    text = (tmp_path / "out" / "check.txt").read_text()
    assert "hang: timed out" in text and "not chosen" not in text
    assert gpu.Part("check", tmp_path / "out", "cuda", ["good"]).carry_out()


@pytest.mark.parametrize("part", gpu.PARTS)
def test_each_step_has_a_function(part: str) -> None:
    steps = __import__(f"gpu_{part}")
    names = {*getattr(steps, "STEPS", {})} | {*getattr(steps, "RUNS", {})} | {*vars(steps)}
    assert {step.name for step in gpu.PARTS[part][1] if step.command is None} <= names


def test_a_part_begins_when_its_script_does(tmp_path: Path) -> None:
    before = time.monotonic() - gpu.PART_SECONDS
    part = gpu.Part("check", tmp_path / "out", "cuda", ["tests"], start=before)
    assert not part.carry_out() and part.outcomes[0].status == "not run, no time left"


def test_aims_are_beside_what_the_compiled_model_reaches() -> None:
    import gpu_speed

    def row(kind: str, model: str, precision: str, rate: float) -> dict[str, Any]:
        about = {"kind": kind, "model": model, "precision": precision}
        return about | {"images_per_second": rate, "of_peak": rate / 1000}

    rows = [
        row("train", "plain eat_base", "fp32", 100.0),
        row("train", "eat_base", "bf16", 250.0),
        row("train", "eat_base compiled", "bf16", 330.0),
        row("train", "eat_base compiled", "fp16", 340.0),
        row("train", "swin_base_patch4_window7_224 compiled", "bf16", 300.0),
    ]
    found = {row["what"]: (row["found"], row["aim"]) for row in gpu_speed.aims(rows)}
    wanted = {"x plain fp32": (3.3, 3.0), "x Swin compiled": (1.1, 1.1), "of peak": (0.33, 0.4)}
    assert found == {what: (pytest.approx(value), aim) for what, (value, aim) in wanted.items()}
    rows[0]["images_per_second"] = 0.0  # memory ran out
    assert math.isnan(gpu_speed.aims(rows)[0]["found"])


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_samples_the_bias_as_the_present_way_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import gpu_ways

    monkeypatch.setattr(gpu_ways, "DEVICE", torch.device("cpu"))
    monkeypatch.setattr(gpu_ways, "TINY", True)
    torch.manual_seed(0)
    inputs = [x.detach() for x in gpu_ways.attention_inputs(2)]
    inputs[-1] *= 1.5  # some beyond the table
    torch.testing.assert_close(gpu_ways.bias_within(*inputs), gpu_ways.fused_kernel(*inputs))


class Answers:
    """The end of a model's process that answers each turn, in order, with a speed of its own."""

    def __init__(self, name: str) -> None:
        self.name, self.tasks = name, []

    def send(self, task: tuple[str, str, str, int]) -> None:
        self.tasks.append(task)

    def recv(self) -> tuple[float, int]:
        _, kind, precision, batch = self.tasks.pop(0)
        slow = {"plain": 8, "eat": 4, "swin": 5}[re.split("[ _]", self.name)[0]]
        slow *= {"train": 3, "forward": 1}[kind] * {"fp32": 4, "bf16": 1, "fp16": 2}[precision]
        each = slow / (2 if self.name.endswith("compiled") else 1) / 1000
        return math.inf if batch > 128 else each * (batch + 8), 2**30  # 256 do not fit


def test_compiled_models_are_measured_after_eager_ones_and_rows_are_kept_on_the_way(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import gpu_speed
    from benchmark_model import Bench

    class Pretended(Bench):
        def __init__(self, args: Any) -> None:
            names = [*(f"plain {name}" for name in args.models), *args.models, gpu_speed.PEER]
            names += [f"{name} compiled" for name in (*args.models, gpu_speed.PEER)]
            self.pipes = {name: Answers(name) for name in names}  # type: ignore[misc]
            self.macs = dict.fromkeys(names, 10**9)

    sizes = {"fp32": [64, 128], "bf16": [128, 256], "fp16": [128, 256]}
    given: dict[str, Any] = {
        "NAMES": ["eat_base", "eat_base_released"],
        "KINDS": ["train", "forward"],
    }
    given |= {"BATCHES": sizes, "BATCH": 128, "COMPILED_IN": ["bf16", "fp16", "fp32"], "ROUNDS": 3}
    for name, value in (given | {"Bench": Pretended, "PATIENCE": 100}).items():
        monkeypatch.setattr(gpu_speed, name, value)
    monkeypatch.setattr(gpu_speed, "matrix_peak", lambda *args: 1e12)
    kept: list[list[dict[str, Any]]] = []
    monkeypatch.setattr(gpu_speed, "write", kept.append)
    rows = gpu_speed.models()
    assert rows == kept[-1] and [len(part) for part in kept] == [26, 44, 50, 56]
    found = {
        (row["kind"], row["model"], row["precision"]): row for row in rows if "precision" in row
    }
    assert found["train", "eat_base", "fp32"]["batch"] == 128
    for kind, times in (("train", 3), ("forward", 1)):
        for precision, slow in (("fp32", 4), ("bf16", 1), ("fp16", 2)):
            rate = found[kind, "eat_base compiled", precision]["images_per_second"]
            assert rate == pytest.approx(128 * 1000 / (2 * times * slow * 136))
    monkeypatch.setattr(gpu_speed, "PATIENCE", -1)
    gpu_speed.models()
    assert [len(part) for part in kept[4:]] == [26, 44]  # no more than bf16


def test_a_file_in_the_place_of_the_results_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("mine")
    monkeypatch.setattr("sys.argv", ["gpu.py", "check", str(tmp_path / "out"), "--device", "cpu"])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "out: no folder for the results: File exists" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"
