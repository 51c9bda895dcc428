"""Runs of version 0.1 (tests/fixtures/legacy): their options, their continuation, their weights."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from eat.checkpoint import load_checkpoint
from eat.cli import main, parse_train
from eat.config.legacy import translate

LEGACY = Path(__file__).parent / "fixtures" / "legacy"
PLACES = [f"--data.labels={LEGACY / 'data'}", f"--data.images={LEGACY / 'data' / 'images'}"]


def lines(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    others = ("seconds", "images_per_second", "split", "points")  # the last was not there
    return [{name: value for name, value in row.items() if name not in others} for row in rows]


def present_names(folder: Path) -> Path:
    """The options as a user of this version writes them, loss and decay left open."""
    options = yaml.safe_load((LEGACY / "run.yaml").read_text())
    options["run"] = {"device": "cpu", "accumulation_steps": 2, "save_steps": 1, "keep": 1}
    options["faults"] = {"images": 3}
    (folder / "present.yaml").write_text(yaml.safe_dump(options))
    return folder / "present.yaml"


@pytest.mark.parametrize("options", ["run/config.yaml", "run.yaml", None])
def test_an_old_run_continues_and_ends_as_it_would_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: str | None
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(LEGACY / "run", folder)
    file = LEGACY / options if options else present_names(tmp_path)
    argv = ["--config", str(file), f"--run.folder={folder}", "--run.resume=auto"]
    assert main(["train", *argv, *PLACES]) == 0
    told = capsys.readouterr().err
    assert told.count("options of version 0.1, translated") == (options is not None)
    assert "continuing after epoch 1, batch 1" in told
    for mine, theirs in zip(lines(folder), lines(LEGACY / "whole"), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)
    ended, expected = (
        load_checkpoint(run / "checkpoints" / "last.safetensors")[0].state_dict()
        for run in (folder, LEGACY / "whole")
    )
    for name, value in expected.items():
        torch.testing.assert_close(ended[name], value, rtol=0, atol=1e-6)


def test_an_old_run_with_another_loss_is_not_continued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(LEGACY / "run", folder)
    argv = ["--config", str(folder / "config.yaml"), "--run.resume=auto", f"--run.folder={folder}"]
    argv += ["--optim.loss=emd_per_image"]
    assert main(["train", *argv, *PLACES]) == 2
    told = capsys.readouterr().err
    assert "optim.loss (was 'released', now 'emd_per_image')" in told


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"run: text", b"run: {", b"\xff\xfe"])
def test_a_damaged_config_in_a_run_folder_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(LEGACY / "run", folder)
    (folder / "config.yaml").write_bytes(content)
    argv = ["--config", str(present_names(tmp_path)), f"--run.folder={folder}"]
    assert main(["train", *argv, "--run.resume=auto", *PLACES]) == 2
    assert f"{folder / 'config.yaml'}: damaged" in capsys.readouterr().err


def test_old_names_are_translated() -> None:
    old = yaml.safe_load((LEGACY / "run" / "config.yaml").read_text())
    new = translate(old)
    assert new["run"]["accumulation_steps"] == 2 and "passes" not in new["run"]
    assert new["faults"] == {"images": 3, "steps": 0, "max_norm": None, "workers": 0}
    assert (new["optim"]["loss"], new["optim"]["decay"]) == ("released", "all")
    assert new["model"] == old["model"] and new["data"] == old["data"]
    assert "passes" in old["run"]  # the argument is left as it was
    assert translate(new) == new


@pytest.mark.parametrize(
    ("old", "budget"),
    [
        ({"images": "replace"}, 10),
        ({"images": "replace", "max_images": 4}, 4),
        ({"images": "fail", "max_images": 4}, 0),
        ({"max_images": 4}, 0),
    ],
)
def test_old_ways_with_faults_become_budgets(old: dict, budget: int) -> None:
    assert translate({"faults": old})["faults"]["images"] == budget


def test_present_options_are_left_alone(tmp_path: Path) -> None:
    options = {"optim": {"lr": 1.0}, "faults": {"images": 3}, "run": {"accumulation_steps": 2}}
    assert translate(options) is options
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(options))
    config = parse_train(["--config", str(file)])
    assert config.optim.loss is None and config.optim.decay == "matrices"


def test_the_options_in_an_old_run_folder_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    config = parse_train(["--config", str(LEGACY / "whole" / "config.yaml"), "--optim.lr", "0.5"])
    assert (config.run.accumulation_steps, config.faults.images) == (2, 3)
    assert (config.optim.loss, config.optim.decay, config.optim.lr) == ("released", "all", 0.5)
    assert "options of version 0.1, translated" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["best", "last"])
def test_an_old_checkpoint_loads(name: str) -> None:
    model, info = load_checkpoint(LEGACY / "whole" / "checkpoints" / f"{name}.safetensors")
    assert (info.model.name, model.num_outputs, info.preprocessing.size) == ("eat_nano", 10, 64)
    assert info.score_quantiles == ()
