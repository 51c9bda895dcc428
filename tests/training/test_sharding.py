"""Sharded training: the results of ordinary training, with a half of its memory in each process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sharded_runs
import torch
from sharded_runs import STEPS, eat_run, go_on, halved

from eat.checkpoint import load_checkpoint
from eat.config import TrainConfig
from eat.config.run import EnhanceConfig
from eat.models import create_model
from eat.models.enhance import enhance
from eat.training.state import load_state
from eat.training.trainer import train

pytestmark = pytest.mark.long(together=True)


@pytest.fixture(scope="module")
def runs(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs of ``sharded_runs``, by two processes."""
    folder = tmp_path_factory.mktemp("runs")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    argv = ["--nproc-per-node=2", sharded_runs.__file__, str(sample), str(folder)]
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environ = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run(
        [*torchrun, *argv], env=environ, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "checkpoints" / "last.safetensors")[0].state_dict()


def line(folder: Path) -> dict:
    (text,) = (folder / "metrics.jsonl").read_text().splitlines()
    kept = ("train_loss", "skipped_steps", "points", "srcc", "emd")
    return {name: json.loads(text)[name] for name in kept}


def assert_alike(one: Path, other: Path, *, weight: float, loss: float) -> None:
    """The same weights, losses, metrics and points, to these tolerances."""
    mine, theirs = line(one), line(other)
    assert mine.pop("points").keys() == theirs["points"].keys() != set()
    assert theirs.pop("points") and mine == pytest.approx(theirs, rel=0, abs=loss)
    others = weights(other)
    for name, value in weights(one).items():
        torch.testing.assert_close(value, others[name], rtol=0, atol=weight)


@pytest.mark.parametrize("name", ["eat", "vit"])
def test_sharded_training_is_ordinary_training_of_as_many_processes(runs: Path, name: str) -> None:
    assert_alike(runs / f"{name}-whole", runs / f"{name}-sharded", weight=1e-6, loss=1e-6)


def test_sharded_training_is_that_of_one_process(sample: Path, runs: Path, tmp_path: Path) -> None:
    one, _ = train(eat_run(sample, tmp_path / "one"))
    assert line(one)["skipped_steps"] == 2
    # Weights differ more, as Adam divides small gradients by small ones.
    assert_alike(one, runs / "eat-sharded", weight=2e-5, loss=1e-6)


def test_each_of_two_processes_keeps_a_half(runs: Path) -> None:
    for name in ("eat", "vit"):
        whole, sharded = (
            json.loads((runs / f"{name}-{kind}" / "sizes.json").read_text())
            for kind in ("whole", "sharded")
        )
        for kind, size in whole.items():  # a shard of an odd number of rows has one more
            assert sharded[kind] == pytest.approx(size / 2, rel=0.03), (name, kind)
        assert whole["weights"] and whole["gradients"] and whole["optimizer"]
    assert json.loads((runs / "eat-sharded" / "sizes.json").read_text())["average"]


def test_a_run_that_continues_is_the_same_bit_for_bit_and_as_small(runs: Path) -> None:
    one, other = runs / "eat-sharded", runs / "eat-continued"
    assert line(one) == line(other)
    states = [load_state(folder / "checkpoints") for folder in (one, other)]
    (progress, mine), (present, theirs) = (state for state in states if state is not None)
    assert progress == present and progress.step == STEPS
    for part in ("model", "average", "optimizer"):
        torch.testing.assert_close(mine[part], theirs[part], rtol=0, atol=0)
    for file in ("predictions.csv", "sizes.json"):
        assert (one / file).read_bytes() == (other / file).read_bytes(), file


def test_one_process_continues_a_sharded_run(sample: Path, runs: Path, tmp_path: Path) -> None:
    copy = halved(runs / "eat-sharded", tmp_path / "copy")
    train(go_on(eat_run(sample, copy), copy))
    assert "continuing after epoch 0, batch 3" in (copy / "train.log").read_text()
    assert_alike(copy, runs / "eat-sharded", weight=2e-5, loss=1e-6)


def test_weights_used_outside_of_their_block_are_refused(runs: Path) -> None:
    found = (runs / "refused.txt").read_text()
    assert found.startswith("run.sharded: UserModel cannot be sharded, as where it uses a block's")


@pytest.mark.parametrize(
    "option, value", [("compile", True), ("precision", "fp16"), ("draw_every", 1)]
)
def test_options_that_do_not_go_with_it_are_refused(
    config: TrainConfig, option: str, value: object
) -> None:
    config.run.sharded = True
    config.check()
    setattr(config.run, option, value)
    with pytest.raises(ValueError, match=f"run.{option} is {value}, which does not go with"):
        config.check()


@pytest.mark.parametrize(
    "name, count, enhanced",
    [
        ("eat_nano", 8, None),
        ("psvit_b", 14, None),
        ("timm/swin_tiny_patch4_window7_224", 12, EnhanceConfig(gate=True)),
        ("timm/vit_so400m_patch14_siglip_378", 27, EnhanceConfig()),
        ("timm/resnet18", 0, None),
    ],
)
def test_blocks_of_all_families_are_units(
    name: str, count: int, enhanced: EnhanceConfig | None
) -> None:
    with torch.device("meta"):
        model = create_model(name, 10, None)
        if enhanced:
            enhance(model, gate=enhanced.gate)
    blocks = model.repeated_blocks()
    assert len(blocks) == len({*blocks}) == count
    if count:
        inside = {p for name in blocks for p in model.get_submodule(name).parameters()}
        outside = {*model.parameters()} - inside
        assert sum(p.numel() for p in outside) < 0.2 * sum(p.numel() for p in inside)
