"""Several columns of the labels as targets of one model, through the commands."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SMALL

from eat.checkpoint import load_checkpoint, read_info
from eat.cli import main
from eat.data.scales import ScoreScale
from eat.evaluation.metrics import srcc
from eat.personal.adaptation import mean_scores
from eat.scoring import PartialScores, Score, Scorer

TARGETS = ["score", "color"]
SETTINGS = json.dumps(SMALL)


def colour_labels(sample: Path, folder: Path) -> Path:
    """Labels of sample images in ICAA17K's layout, the colour score of each not its MOS."""
    names = sorted(path.name for path in (sample / "images").iterdir())
    color, mos = np.random.default_rng(0).uniform(1, 9, (2, len(names))).round(3)
    table = pd.DataFrame({"ID": names, "color": color, "MOS": mos})
    table["probability"] = np.arange(len(names)) % 2
    folder.mkdir()
    table[:16].to_csv(folder / "1test.csv", index=False)
    table[16:48].to_csv(folder / "1train.csv", index=False)
    return folder


def training(sample: Path, labels: Path, run: Path, *more: str) -> int:
    argv = ["--data.name", "icaa17k", "--data.labels", str(labels), "--data.size", "64"]
    argv += ["--data.images", str(sample / "images"), "--data.workers", "0", "--run.device", "cpu"]
    argv += ["--model.name", "eat_nano", "--model.settings", SETTINGS, "--optim.epochs", "3"]
    return main(["train", *argv, "--optim.lr", "1e-3", "--run.folder", str(run), *more])


@pytest.fixture(scope="module")
def labels(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_labels(sample, tmp_path_factory.mktemp("labels") / "icaa")


@pytest.fixture(scope="module")
def run(sample: Path, labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on both scores, whose best epoch is that of the colour's."""
    folder = tmp_path_factory.mktemp("targets") / "run"
    argv = ["--data.targets", json.dumps(TARGETS), "--run.metric", "color.srcc"]
    assert training(sample, labels, folder, *argv) == 0
    return folder


@pytest.fixture(scope="module")
def checkpoint(run: Path) -> str:
    return str(run / "checkpoints" / "best.safetensors")


def test_metrics_are_told_for_each_target(run: Path) -> None:
    predictions = pd.read_csv(run / "predictions.csv")
    assert [*predictions] == ["image", "score", "predicted", "color", "color.predicted"]
    result = json.loads((run / "result.json").read_text())
    for prefix, name in (("", "score"), ("color.", "color")):
        found = srcc(predictions[f"{prefix}predicted"], predictions[name])
        assert result[f"{prefix}srcc"] == pytest.approx(found)
        errors = (predictions[f"{prefix}predicted"] - predictions[name]) / 10
        assert result[f"{prefix}mse"] == pytest.approx(np.mean(errors**2))
    assert result["srcc"] != result["color.srcc"]
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert result["best_epoch"] == 1 + int(np.argmax([epoch["color.srcc"] for epoch in epochs]))
    assert {path.name for path in run.glob("*.png")} == {"curves.png", "predictions.png"}


def test_a_checkpoint_knows_its_targets_and_that_they_are_no_distribution(checkpoint: str) -> None:
    info = read_info(checkpoint)
    scale = ScoreScale(0, 10, 10, 5)
    assert [*info.targets.items()] == [("score", scale), ("color", scale)]
    assert (info.model.num_outputs, info.num_votes) == (2, 0)
    sums = load_checkpoint(checkpoint)[0](torch.zeros(1, 3, 64, 64)).sum(dim=1)
    assert abs(sums.item() - 1) > 1e-3


@pytest.mark.parametrize("name", ["", "image", "error", "note", "percentile", "a\nb", "x" * 500])
def test_a_target_that_would_take_the_place_of_another_column_is_refused(
    name: str, checkpoint: str
) -> None:
    info = read_info(checkpoint)
    info.targets = {"score": info.scale, name: info.scale}
    with pytest.raises(ValueError, match="targets has .*expected a name of up to 200") as error:
        info.check()
    assert len(str(error.value)) < 300


def test_an_evaluation_has_a_block_for_each_target(
    run: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--out", str(tmp_path), "--workers", "0", "--samples", "20"]
    argv += ["--slice_by", '["probability"]']
    assert main(["evaluate", checkpoint, *argv, "--examples", "1"]) == 0
    text = capsys.readouterr().out
    files = run / "result.json", tmp_path / "metrics.json"
    result, found = (json.loads(file.read_text()) for file in files)
    assert found["targets"] == TARGETS
    lines = [line.split() for line in text.splitlines()]
    heads = [i for i, line in enumerate(lines) if line[1:2] == ["measured"]]
    assert [lines[i][0] for i in heads] == TARGETS
    for i, prefix in zip(heads, ("", "color."), strict=True):
        assert lines[i + 1][:2] == ["srcc", f"{result[f'{prefix}srcc']:.4f}"]
        assert found["metrics"][f"{prefix}srcc"] == pytest.approx(result[f"{prefix}srcc"])
        low, high = found["intervals"][f"{prefix}mse"]
        assert low <= result[f"{prefix}mse"] <= high
    assert {"srcc_low", "color.srcc_low"} <= found["slices"][0].keys()
    assert "color SRCC" in (tmp_path / "metrics.md").read_text()
    assert (tmp_path / "predictions.csv").read_text() == (run / "predictions.csv").read_text()


def scored(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["score", *argv]) == 0
    return capsys.readouterr().out


def test_a_photo_has_a_score_for_each_target(
    run: Path, sample: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = str(sorted((sample / "images").iterdir())[3])
    argv = [photo, "--checkpoint", checkpoint]
    own = next(csv.DictReader(io.StringIO(scored([*argv, "--scale", "own"], capsys))))
    row = pd.read_csv(run / "predictions.csv").set_index("image").loc[Path(photo).name]
    assert [*own] == ["image", *TARGETS]
    assert float(own["score"]) == pytest.approx(row["predicted"], abs=1e-4)
    assert float(own["color"]) == pytest.approx(row["color.predicted"], abs=1e-4)
    ten = json.loads(scored([*argv, "--format", "jsonl"], capsys))
    assert [*ten] == ["image", *TARGETS]
    assert ten["color"] == pytest.approx(1 + 0.9 * float(own["color"]), abs=1e-4)
    in_python = next(iter(Scorer(checkpoint)(photo)))
    assert in_python.targets == pytest.approx({name: ten[name] for name in TARGETS}, abs=1e-6)
    assert in_python.score == in_python.targets["score"]
    for _ in range(2):  # a file of its own making may be written anew
        scored([*argv, "--scale", "own", "--out", str(tmp_path / "scores.csv")], capsys)
    assert next(csv.DictReader((tmp_path / "scores.csv").open())) == own


def test_scores_of_a_call_that_was_interrupted_keep_their_targets(tmp_path: Path) -> None:
    out, found = tmp_path / "scores.csv", [Score("a.jpg", 5.0, targets={"score": 5.0, "color": 2})]
    PartialScores(out, {"scale": "own"}).extend(found)
    assert [*PartialScores(out, {"scale": "own"}, resume=True)] == found


def test_pictures_and_raters_take_the_first_target(checkpoint: str) -> None:
    info = read_info(checkpoint)
    found = mean_scores(torch.tensor([[0.25, 0.75]]), info, info.scale)
    assert found.tolist() == [2.5]


def test_another_column_in_the_place_of_the_score(
    sample: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    argv = ["--data.targets", '["color"]', "--optim.epochs", "1"]
    assert training(sample, labels, run, *argv) == 0
    assert [*pd.read_csv(run / "predictions.csv")] == ["image", "color", "predicted"]
    checkpoint = str(run / "checkpoints" / "best.safetensors")
    photo = str(sorted((sample / "images").iterdir())[0])
    assert scored([photo, "--checkpoint", checkpoint], capsys).startswith("image,color\n")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--data.targets", "[colour]"], "no column 'colour' .* found score, color, probability"),
        (["--data.targets", "[image]"], "no column 'image' .* found score, color"),
        (["--data.targets", "[]"], r"data.targets is \[\]: expected columns, each once"),
        (["--data.targets", "[color, color]"], "expected columns, each once"),
        (["--data.targets", "[score, color]", "--optim.loss", "emd"], "emd, of vote distributions"),
        (["--data.targets", "[score, color]", "--model.num_outputs", "10"], "is 10: expected null"),
        (["--data.targets", "[score, color]", "--model.settings.softmax", "true"], "nano, whose"),
        (["--data.targets", "[score, color]", "--run.metric", "c.srcc"], ", color.srcc"),
        (["--run.metric", "color.srcc"], "metric is 'color.srcc': expected srcc, plcc, accuracy"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_error(
    argv: list[str], message: str, sample: Path, labels: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert training(sample, labels, tmp_path / "run", *argv) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()
