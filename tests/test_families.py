"""Every family of models beside EAT through the commands: train, evaluate, score and look."""

import csv
from pathlib import Path

import pytest
import torch

from eat.checkpoint import load_checkpoint
from eat.cli import main, parse_train
from eat.models import create_model

FAMILIES = {
    "psvit_nano": "{points: 4, dim: 16, heads: 4, depths: [2, 1], stem_dims: [8, 8]}",
    "psvit_nano_eam": "{points: 4, dim: 16, heads: 4, depths: [2, 1], stem_dims: [8, 8]}",
    "det_spaq": "{dims: [8, 16, 16, 32], heads: [1, 1, 2, 4], stages: [L, S, LE, E], "
    "gate_points: true}",
}


def predictions(folder: Path) -> list[str]:
    with (folder / "predictions.csv").open() as file:
        return [row["predicted"] for row in csv.DictReader(file)]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_of_any_family_is_trained_evaluated_and_scores(
    name: str, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    photo = str(sorted((sample / "images").rglob("*.jpg"))[0])
    argv = ["--data.name", "sample", "--data.labels", str(sample), "--data.size", "64"]
    argv += ["--data.images", str(sample / "images"), "--data.workers", "0", "--model.name", name]
    argv += ["--model.settings", FAMILIES[name], "--optim.epochs", "1", "--run.folder", str(run)]
    assert main(["train", *argv, "--run.device", "cpu", "--optim.ema", "0.5"]) == 0
    checkpoint = str(run / "checkpoints" / "best.safetensors")
    assert main(["evaluate", checkpoint, "--out", str(out), "--workers", "0"]) == 0
    assert predictions(out) == predictions(run)
    capsys.readouterr()
    assert main(["score", photo, "--checkpoint", checkpoint]) == 0
    assert Path(photo).name in capsys.readouterr().out

    argv = [photo, "--checkpoint", checkpoint, "--out"]
    assert main(["points", *argv, str(tmp_path / "points.png")]) == 0
    assert main(["saliency", *argv, str(tmp_path / "gradient.png"), "--method", "gradient"]) == 0
    rollout = main(["saliency", *argv, str(tmp_path / "rollout.png")])
    if name == "det_spaq":  # has stages, as EAT
        assert rollout == 0
        return
    assert rollout == 2
    assert f"{name} has none: take --method gradient" in capsys.readouterr().err
    # Settings are those of the family that the weights are of.
    config = parse_train(["--model.weights", checkpoint, "--model.settings.gamma", "0.5"])
    assert config.model.settings == {"gamma": 0.5}


def test_tanet_is_trained_evaluated_in_its_batches_and_scores_by_our_rule_alone(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, run, out = sorted((sample / "images").iterdir()), tmp_path / "run", tmp_path / "out"
    rows = [f"{p.name},{i % 9 + 1},{'test' if i > 7 else 'train'}\n" for i, p in enumerate(images)]
    (tmp_path / "labels.csv").write_text("image,score,split\n" + "".join(rows[:12]))
    argv = ["--data.name", "table", "--data.labels", str(tmp_path / "labels.csv")]
    argv += ["--data.images", str(sample / "images"), "--data.workers", "0"]
    argv += ["--model.name", "tanet_ava", "--optim.epochs", "1", "--run.device", "cpu"]
    argv += ["--optim.lr_factors", "{head: 0.1, theme.target: 0.3}", "--run.folder", str(run)]
    for batch, split in ((7, 8), (3, 4)):  # one image would be left of one of the two lists
        assert main(["train", *argv, "--optim.batch_size", str(batch)]) == 2
        message = f"batch_size is {batch}: of {split} images the last forward pass would have 1"
        assert message in capsys.readouterr().err
    assert main(["train", *argv, "--optim.batch_size", "4"]) == 0
    checkpoint = str(run / "checkpoints" / "best.safetensors")
    assert main(["evaluate", checkpoint, "--out", str(out), "--workers", "0"]) == 0
    assert predictions(out) == predictions(run)
    assert "in batches of 4 in the list's order" in capsys.readouterr().out
    model, _ = load_checkpoint(checkpoint)
    torch.manual_seed(0)
    fresh = create_model("tanet_ava", 1).state_dict()
    for name, value in model.state_dict().items():
        frozen = name.startswith("theme.scenes.") and name.endswith(("weight", "bias"))
        assert torch.equal(value, fresh[name]) == frozen or "act." in name, name

    photo = [str(images[0]), "--checkpoint", checkpoint]
    assert main(["score", *photo]) == 2
    assert "authors define no score of one image alone" in capsys.readouterr().err
    assert main(["score", *photo, "--own_rule", "true"]) == 0
    assert images[0].name in capsys.readouterr().out
    for command in (["points"], ["saliency", "--method", "gradient"]):
        assert main([*command, *photo, "--out", str(tmp_path / "a.png")]) == 2
        assert " no block" in capsys.readouterr().err
