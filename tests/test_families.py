"""Every family of models beside EAT through the commands: train, evaluate, score and look."""

import csv
from pathlib import Path

import pytest

from eat.cli import main, parse_train

FAMILIES = {
    "psvit_nano": "{points: 4, dim: 16, heads: 4, depths: [2, 1], stem_dims: [8, 8]}",
    "psvit_nano_eam": "{points: 4, dim: 16, heads: 4, depths: [2, 1], stem_dims: [8, 8]}",
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
    assert main(["saliency", *argv, str(tmp_path / "rollout.png")]) == 2
    assert f"{name} has none: take --method gradient" in capsys.readouterr().err
    # Settings are those of the family that the weights are of.
    config = parse_train(["--model.weights", checkpoint, "--model.settings.gamma", "0.5"])
    assert config.model.settings == {"gamma": 0.5}
