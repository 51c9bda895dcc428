"""Scorers in half precision, in int8 and compiled, beside those in float32."""

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from eat.checkpoint import load_checkpoint
from eat.cli import main
from eat.models.inference import can_quantise
from eat.scoring import Scorer


def test_weights_made_ready_in_advance_score_as_autocast_does(
    folder: Path, checkpoint: Path
) -> None:
    photo = sorted(folder.glob("1*.jpg"))[0]
    model, info = load_checkpoint(checkpoint)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        pixels = info.preprocessing.evaluation(photo)[None]
        votes = model(info.preprocessing.normalise(pixels)).double()[0]
    scorer = Scorer(checkpoint, precision="bf16")
    assert scorer.model.patch_embed.conv.weight.dtype == torch.bfloat16
    assert next(scorer(photo)).votes == pytest.approx(votes.tolist(), abs=2e-3)


@pytest.mark.skipif(not can_quantise(), reason="needs a processor with VNNI")
def test_int8_scores_and_evaluates_near_float32(
    folder: Path, sample: Path, checkpoint: Path, tmp_path: Path
) -> None:
    photos = sorted(folder.glob("1*.jpg"))
    exact = [score.score for score in Scorer(checkpoint)(photos)]
    scorer = Scorer(checkpoint, precision="int8")
    scores = [score.score for score in scorer(photos)]
    assert scores == pytest.approx(exact, abs=0.05)
    assert scores != exact
    again = Scorer(checkpoint, precision="int8", batch_size=1)
    assert [score.score for score in again(photos)] == pytest.approx(scores, abs=0.02)
    assert scorer.settings()["precision"] == "int8"

    out = tmp_path / "eval"
    argv = ["evaluate", str(checkpoint), "--precision", "int8", "--samples", "0"]
    assert main([*argv, "--out", str(out)]) == 0
    with (out / "predictions.csv").open() as lines:
        found = {row["image"]: float(row["predicted"]) for row in csv.DictReader(lines)}
    images = [sample / "images" / name for name in found]
    assert [*found.values()] == pytest.approx([s.score for s in scorer(images)], abs=0.02)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"compile": True}, "is not compiled: leave out one of the two"),
        ({"device": "cuda"}, "runs on a CPU, and the device is cuda"),
        ({}, "needs a processor with AVX-512 VNNI"),
    ],
)
def test_int8_is_refused_where_it_cannot_be(
    options: dict[str, Any], message: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eat.checkpoint.precision.can_quantise", lambda: False)
    monkeypatch.setattr("eat.scoring.scorer.pick_device", torch.device)
    with pytest.raises(ValueError, match=message):
        Scorer(checkpoint, **{"device": "cpu", "precision": "int8"} | options)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs g++")
def test_a_compiled_model_scores_as_before(
    folder: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "g++")
    before = [score.score for score in Scorer(checkpoint, batch_size=3)(folder)]
    after = [score.score for score in Scorer(checkpoint, batch_size=3, compile=True)(folder)]
    assert after == pytest.approx(before, abs=1e-4, nan_ok=True)


def test_compiling_without_a_compiler_is_refused(
    folder: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CXX", "no-such-g++")
    argv = ["score", str(folder), "--checkpoint", str(checkpoint), "--compile", "true"]
    assert main(argv) == 2
    assert "C++ compiler: no-such-g++ was not found; install g++ or set CXX" in (
        capsys.readouterr().err
    )
