"""Evaluating a checkpoint: numbers, files, mistakes."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from eat.cli import main
from eat.data.registry import DATASETS
from eat.evaluate import evaluate_checkpoint, rescale


def test_evaluation_repeats_the_runs_own_result(run: Path, checkpoint: Path) -> None:
    evaluation = evaluate_checkpoint(checkpoint, workers=0)
    result = json.loads((run / "result.json").read_text())
    for name, value in evaluation.metrics.items():
        assert value == pytest.approx(result[name], abs=1e-5)
    assert evaluation.split == "test" and len(evaluation.predictions) == 16


def test_the_command_prints_a_table_and_writes_json_and_csv(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(checkpoint), "--out", str(tmp_path), "--workers", "0"]) == 0
    shown = capsys.readouterr().out
    metrics = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    assert f"srcc      {metrics['srcc']:8.4f}" in shown
    predictions = pd.read_csv(tmp_path / "predictions.csv")
    shares = predictions[[f"p{k}" for k in range(1, 11)]]
    np.testing.assert_allclose(shares @ np.arange(1, 11), predictions["predicted"], rtol=1e-6)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)


def test_batch_size_changes_no_metric_in_the_paper_profile(checkpoint: Path) -> None:
    one = evaluate_checkpoint(checkpoint, workers=0, batch_size=1)
    many = evaluate_checkpoint(checkpoint, workers=0, batch_size=16)
    np.testing.assert_allclose(
        one.predictions["predicted"], many.predictions["predicted"], rtol=1e-5
    )


def test_the_training_split_can_be_evaluated(checkpoint: Path) -> None:
    assert len(evaluate_checkpoint(checkpoint, split="train", workers=0).predictions) == 48


def test_other_labels_take_the_place_of_the_runs(
    checkpoint: Path, sample: Path, tmp_path: Path
) -> None:
    table = tmp_path / "own.csv"
    images = sorted(p.name for p in (sample / "images").iterdir())[:5]
    table.write_text("image,score\n" + "".join(f"{n},{i + 2}\n" for i, n in enumerate(images)))
    evaluation = evaluate_checkpoint(
        checkpoint, name="table", labels=str(table), images=str(sample / "images"), workers=0
    )
    assert evaluation.predictions["image"].tolist() == images
    assert evaluation.split == "whole" and "emd" not in evaluation.metrics


def test_scores_are_rescaled_bounds_to_bounds() -> None:
    scores = rescale(np.array([1.0, 5.5, 10.0]), DATASETS["ava"], DATASETS["aadb"])
    np.testing.assert_allclose(scores, [0, 0.5, 1])


def test_constant_predictions_give_a_warning_and_null(run: Path, tmp_path: Path) -> None:
    from eat.checkpoint import load_checkpoint, save_checkpoint

    model, info = load_checkpoint(run / "checkpoints" / "best.safetensors")
    torch.nn.init.zeros_(model.head.weight)
    save_checkpoint(tmp_path / "flat.safetensors", model, info)
    with pytest.warns(match="SRCC is undefined: all 16 predictions equal"):
        evaluation = evaluate_checkpoint(tmp_path / "flat.safetensors", workers=0)
    evaluation.write(tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["metrics"]["srcc"] is None


def test_a_file_that_is_no_checkpoint_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare, text = tmp_path / "bare.safetensors", tmp_path / "text.safetensors"
    save_file({"x": torch.zeros(1)}, bare)
    text.write_text("no weights")
    for path, reason in (
        (bare, "weights without the description"),
        (text, "truncated, or not a checkpoint"),
        (tmp_path / "absent.safetensors", "no such file"),
    ):
        assert main(["evaluate", str(path)]) == 2
        assert f"{path}: {reason}" in capsys.readouterr().err
