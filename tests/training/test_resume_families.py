"""Killed runs of models and options of every kind end as if they had not been killed."""

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from eat.checkpoint import read_info
from eat.cli import parse_train
from eat.training.state import state_files
from eat.training.trainer import Trainer, train

DET = "{dims: [8, 16, 16, 32], heads: [1, 1, 2, 4], stages: [L, S, LE, E]}"
VIT = "{depth: 4, embed_dim: 16, num_heads: 2, drop_path_rate: 0.4, drop_rate: 0.2}"
SWIN = "{window_size: 2, depths: [1, 1, 2, 2], embed_dim: 8, num_heads: [1, 2, 2, 4]}"
PSVIT = "{points: 4, dim: 16, heads: 4, depths: [2, 1], stem_dims: [8, 8]}"
TARGETS = ["--data.targets", "[score, color]"]
RATES = ["--optim.lr_factors", "{head: 10, stages.3: 0.1}", "--optim.frozen", "[patch_embed]"]
GATE, EMA = ["--model.enhance.gate", "true"], ["--optim.ema", "0.5"]
FAMILIES: dict[str, tuple[str, str, list[str]]] = {  # a model, its settings, more options
    "enhanced ViT": ("timm/vit_tiny_patch16_224", VIT, [*GATE, *EMA]),
    "enhanced Swin": ("timm/swin_tiny_patch4_window7_224", SWIN, ["--model.enhance", "{}"]),
    "targets and rates": ("det_icaa17k", DET, [*TARGETS, *RATES]),
    "PS-ViT": ("psvit_nano_eam", PSVIT, []),
    "own": ("mine.py:net", "{}", ["--optim.loss", "mine.py:absolute"]),
}
OWN = """
import random
import numpy as np
from torch import nn

class Net(nn.Module):
    def __init__(self, num_outputs):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 8, 8), nn.BatchNorm2d(8)
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
        self.a.weight = self.b.weight
        self.head = nn.Linear(8, num_outputs)

    def forward(self, images):
        features = self.norm(self.stem(images)).relu().mean((2, 3))
        if self.training:
            features = nn.functional.dropout(features) * (random.random() + np.random.rand())
        return self.head(self.b(self.a(features)))

def net(num_outputs, img_size):
    return Net(num_outputs)

def absolute(predicted, target):
    return (predicted - target).abs().mean(dim=1)
"""


class KilledError(Exception):
    """Ends a run at once, with nothing saved."""


def kill(argv: Sequence[str], step: int) -> None:
    """Start a run, and end it within a step."""
    with closing(Trainer(parse_train([*argv]))) as trainer:
        gradients = trainer.step.gradients

        def kill_there(*args: Any) -> Any:
            if trainer.progress.step == step:
                raise KilledError
            return gradients(*args)

        trainer.step.gradients = kill_there  # type: ignore[method-assign]
        with pytest.raises(KilledError):
            trainer.fit()
    AcceleratorState._reset_state(reset_partial_state=True)


def outcome(folder: Path) -> dict[str, Any]:
    """What a run left: its epochs without their times, results, and checkpoints' descriptions."""
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for epoch in epochs:
        del epoch["seconds"], epoch["images_per_second"]
    checkpoints = folder / "checkpoints"
    return {
        "epochs": json.dumps(epochs),
        "best": read_info(checkpoints / "best.safetensors"),
        "last": read_info(checkpoints / "last.safetensors"),
        **{name: (folder / name).read_text() for name in ("predictions.csv", "result.json")},
    }


def numbers(folder: Path) -> list[dict[str, Any]]:
    """The weights that a run left, and the state of model and optimizer."""
    checkpoints = folder / "checkpoints"
    state = torch.load(state_files(checkpoints)[0], weights_only=True)
    files = [load_file(checkpoints / f"{name}.safetensors") for name in ("best", "last")]
    return [*files, state["model"], state["optimizer"]]


@pytest.fixture(scope="module")
def labels(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images to train on and four to test on, with two scores each."""
    names = sorted(path.name for path in (sample / "images").iterdir())[:16]
    scores = np.random.default_rng(0).uniform(1, 9, (16, 2)).round(2)
    table = pd.DataFrame(scores, columns=["score", "color"])
    table.insert(0, "image", names)
    table["split"] = ["train"] * 12 + ["test"] * 4
    table.to_csv(path := tmp_path_factory.mktemp("labels") / "labels.csv", index=False)
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_a_killed_run_ends_as_if_it_were_not(
    family: str, labels: Path, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, settings, options = FAMILIES[family]
    argv = ["--data.name", "table", "--data.labels", str(labels), "--data.size", "64"]
    argv += ["--data.images", str(sample / "images"), "--data.workers", "0", "--run.device", "cpu"]
    argv += ["--optim.batch_size", "4", "--optim.epochs", "2", "--optim.schedule", "cosine"]
    argv += ["--optim.lr", "1e-3", "--run.folder", "run", "--run.save_steps", "1"]
    argv += ["--run.resume", "auto", "--model.name", name, "--model.settings", settings, *options]
    folders = [tmp_path / "whole", tmp_path / "killed"]
    for folder, steps in zip(folders, ([], [4, 5]), strict=True):  # of six, three an epoch
        folder.mkdir()
        (folder / "mine.py").write_text(OWN)
        monkeypatch.chdir(folder)
        for step in steps:
            kill(argv, step)
        train(parse_train(argv))
    whole, killed = (outcome(folder / "run") for folder in folders)
    assert [name for name in whole if repr(whole[name]) != repr(killed[name])] == []
    torch.testing.assert_close(*(numbers(folder / "run") for folder in folders), rtol=0, atol=0)
