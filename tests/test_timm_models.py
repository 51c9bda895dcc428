"""Models of timm through the commands: train, evaluate, score and look, without a network."""

import csv
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from test_families import predictions

from eat.checkpoint import load_checkpoint
from eat.cli import main
from eat.models import timm_backbone

MODELS = {
    "timm/convnext_atto.d2_in1k": "{depths: [1, 1, 1, 1], dims: [8, 8, 16, 16]}",
    "timm/test_vit.r160_in1k": "{drop_path_rate: 0.1}",
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is not on this machine cannot be had."""
    monkeypatch.setattr(timm_backbone, "answers", lambda address: False)


def options(sample: Path, run: Path, name: str, *more: str) -> list[str]:
    argv = ["train", "--data.name", "sample", "--data.labels", str(sample), "--data.size", "64"]
    argv += ["--data.images", str(sample / "images"), "--data.workers", "0", "--model.name", name]
    argv += ["--optim.epochs", "1", "--run.device", "cpu", "--run.folder", str(run)]
    return [*argv, *more]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_timm_is_trained_evaluated_and_scores(
    name: str, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    assert main(options(sample, run, name, "--model.settings", MODELS[name])) == 0
    path = run / "checkpoints" / "best.safetensors"
    assert main(["evaluate", str(path), "--out", str(out), "--workers", "0"]) == 0
    assert predictions(out) == predictions(run)

    model, info = load_checkpoint(path)
    config = timm.get_pretrained_cfg(name.removeprefix("timm/"))
    assert (info.preprocessing.mean, info.preprocessing.std) == (config.mean, config.std)
    with (run / "predictions.csv").open() as file:
        row = next(csv.DictReader(file))
    photo = sample / "images" / row["image"]
    pixels = info.preprocessing.evaluation(photo)[None].float() / 255
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (config.mean, config.std))
    with torch.no_grad():
        votes = model((pixels - mean) / std)[0]
    expected = votes @ torch.arange(1.0, 11.0)
    assert float(row["predicted"]) == pytest.approx(expected.item(), abs=1e-4)
    capsys.readouterr()
    assert main(["score", str(photo), "--checkpoint", str(path)]) == 0
    (scored,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert float(scored["score"]) == pytest.approx(expected.item(), abs=1e-4)

    argv = [str(photo), "--checkpoint", str(path), "--out"]
    assert main(["saliency", *argv, str(tmp_path / "gradient.png"), "--method", "gradient"]) == 0
    assert main(["saliency", *argv, str(tmp_path / "rollout.png")]) == 2
    assert main(["points", *argv, str(tmp_path / "points.png")]) == 2
    told = capsys.readouterr().err
    assert f"{name} has none: take --method gradient" in told
    assert "no block that samples positions" in told


def test_a_run_starts_from_weights_by_timms_names_which_win_over_published_ones(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, run = tmp_path / "mine.safetensors", tmp_path / "run"
    save_file(timm.create_model("test_vit").state_dict(), weights)
    more = ["--model.weights", str(weights), "--model.pretrained", "true"]
    assert main(options(sample, run, "timm/test_vit.r160_in1k", *more)) == 0
    told = capsys.readouterr().err
    assert "model.weights is taken, and model.pretrained left out" in told
    assert f"weights: {weights} (timm): loaded" in told and "(net.pos_embed)" in told


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/test_vit.r160_in1k", "hf download timm/test_vit.r160_in1k"),
        ("timm/coatnet_0_224", "timm publishes no weights of timm/coatnet_0_224"),
        ("eat_nano", "no weights are published under the name 'eat_nano'"),
        ("timm/convnext_ato", "did you mean 'timm/convnext_atto'?"),
    ],
)
def test_weights_that_cannot_be_had_are_one_error(
    name: str,
    message: str,
    sample: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    argv = options(sample, tmp_path / "run", name, "--model.pretrained", "true")
    assert main(argv) == 2
    told = capsys.readouterr().err
    assert message in told and "Traceback" not in told
    assert not (tmp_path / "run").exists()
