"""Enhanced transformers through the commands: train, evaluate, score, look, and go on."""

import csv
from pathlib import Path

import pytest
import torch

from eat.checkpoint import load_checkpoint
from eat.cli import main

SWIN = "{dims: [8, 8, 16, 16], heads: [1, 2, 4, 4], window_size: 2, drop_path_rate: 0.2}"
TIMM_SWIN = "{window_size: 2, depths: [1, 1, 2, 2], embed_dim: 8, num_heads: [1, 2, 2, 4]}"
VIT = "{depth: 4, embed_dim: 16, num_heads: 4, drop_path_rate: 0.2}"
MODELS = {
    "swin_tiny": (SWIN, ["--model.enhance.stages", "[2]", "--model.enhance.points", "3"]),
    "timm/swin_tiny_patch4_window7_224": (TIMM_SWIN, ["--model.enhance.gate", "true"]),
    "timm/vit_small_patch14_reg4_dinov2": (VIT, ["--model.enhance.blocks", "[0, 3]"]),
}


def predictions(folder: Path) -> list[str]:
    with (folder / "predictions.csv").open() as file:
        return [row["predicted"] for row in csv.DictReader(file)]


def run(sample: Path, folder: Path, *options: str) -> Path:
    """The checkpoint of a run of an epoch."""
    argv = ["--data.name", "sample", "--data.labels", str(sample), "--data.size", "64"]
    argv += ["--data.images", str(sample / "images"), "--data.workers", "0"]
    argv += ["--optim.epochs", "1", "--run.folder", str(folder), "--run.device", "cpu"]
    assert main(["train", *argv, *options]) == 0
    return folder / "checkpoints" / "best.safetensors"


@pytest.mark.parametrize("name", MODELS)
def test_an_enhanced_model_is_trained_evaluated_scores_and_is_looked_into(
    name: str, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, chosen = MODELS[name]
    model = ["--model.name", name, "--model.settings", settings]
    plain = run(sample, tmp_path / "plain", *model)
    more = ["--model.weights", str(plain), *chosen, "--run.grad_checkpointing", "true"]
    checkpoint = run(sample, tmp_path / "run", *model, *more, "--optim.ema", "0.5")
    assert (
        main(["evaluate", str(checkpoint), "--out", str(tmp_path / "out"), "--workers", "0"]) == 0
    )
    assert predictions(tmp_path / "out") == predictions(tmp_path / "run")

    enhanced, info = load_checkpoint(checkpoint)
    blocks = enhanced.enhanced_blocks()
    assert blocks and info.model.enhance is not None
    health = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert all(block in health for block in blocks)
    photo = str(sorted((sample / "images").rglob("*.jpg"))[0])
    capsys.readouterr()
    assert main(["score", photo, "--checkpoint", str(checkpoint)]) == 0
    assert Path(photo).name in capsys.readouterr().out
    argv = [photo, "--checkpoint", str(checkpoint), "--out"]
    assert main(["points", *argv, str(tmp_path / "points.png")]) == 0
    assert blocks[0] in capsys.readouterr().out
    assert main(["saliency", *argv, str(tmp_path / "seen.png"), "--method", "gradient"]) == 0
    if not name.startswith("timm/"):
        assert main(["saliency", *argv, str(tmp_path / "rollout.png")]) == 0
    # Weights of an enhanced model start one that is enhanced alike.
    more = ["--model.weights", str(checkpoint), "--optim.lr", "0"]
    again, _ = load_checkpoint(run(sample, tmp_path / "again", *more))
    assert again.state_dict().keys() == enhanced.state_dict().keys()
    assert all(torch.equal(v, enhanced.state_dict()[n]) for n, v in again.state_dict().items())
