"""Evaluating a checkpoint on what people chose, from its options to its files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eat.cli import main
from eat.config.commands import EvaluateOptions
from eat.data.labels.table import LabelError
from eat.evaluation.choices import evaluate_choices
from eat.evaluation.report import Evaluation
from eat.scoring import Scorer


@pytest.fixture(scope="module")
def scores(sample: Path, checkpoint: Path) -> pd.Series:
    """The model's scores of twelve images by their names, the best first."""
    files = sorted((sample / "images").iterdir())[:12]
    found = {Path(one.image).name: one.score for one in Scorer(checkpoint)(files)}
    return pd.Series(found).sort_values(ascending=False)


def evaluate(checkpoint: Path, pairs: Path, images: Path, **options: object) -> Evaluation:
    given = {"workers": 0, "samples": 50, "pairs": str(pairs), "images": str(images)}
    return evaluate_choices(checkpoint, EvaluateOptions(**(given | options)))


def test_pairs_are_right_where_the_models_scores_agree(
    checkpoint: Path, sample: Path, scores: pd.Series, tmp_path: Path
) -> None:
    names = [*scores.index]
    chosen = [
        (names[0], names[5]),
        (names[3], names[1]),
        (names[2], names[7]),
        (names[0], names[5]),
    ]
    pairs = pd.DataFrame(chosen, columns=["winner", "loser"])
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    found = evaluate(checkpoint, tmp_path / "pairs.csv", sample / "images")
    assert found.metrics == {"pair_accuracy": 0.75}
    assert found.counts == {"pairs": 4, "images": 6} and found.slices.empty
    margins = [scores[winner] - scores[loser] for winner, loser in chosen]
    np.testing.assert_allclose(found.predictions["margin"], margins, atol=1e-4)
    low, high = found.intervals["pair_accuracy"]
    assert low < 0.75 <= high
    # By a set, its pairs are drawn together and measured by themselves.
    pairs.assign(set=list("xyyx")).to_csv(tmp_path / "pairs.csv", index=False)
    found = evaluate(checkpoint, tmp_path / "pairs.csv", sample / "images")
    assert found.counts["sets"] == 2 and found.metrics == {"pair_accuracy": 0.75}
    assert found.slices[["slice", "pairs", "pair_accuracy"]].to_numpy().tolist() == [
        ["x", 2, 1.0], ["y", 2, 0.5],
    ]  # fmt: skip


def test_best_and_worst_of_sets_and_the_files_that_say_so(
    checkpoint: Path,
    sample: Path,
    scores: pd.Series,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = np.array(scores.index).reshape(3, 4)
    ranks = [[1, 2, 3, 4], [1, 2, 4, 3], [4, 2, 3, 1]]
    rows = [(f"s{k}", names[k, i], ranks[k][i]) for i in range(4) for k in range(3)]
    sets = pd.DataFrame(rows, columns=["set", "image", "rank"])
    sets.to_csv(tmp_path / "sets.csv", index=False)
    argv = ["evaluate", str(checkpoint), "--pairs", str(tmp_path / "sets.csv"), "--workers", "0"]
    argv += ["--images", str(sample / "images"), "--out", str(tmp_path / "out"), "--samples", "50"]
    assert main(argv) == 0
    shown = capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    expected = {"pair_accuracy": 12 / 18, "best": 2 / 3, "worst": 1 / 3, "best_and_worst": 1 / 3}
    assert found["metrics"] == pytest.approx(expected)
    assert (found["pairs"], found["images"], found["sets"]) == (18, 12, 3)
    assert shown.startswith("sets.csv, 18 pairs, 12 images, 3 sets\n")
    lot = "by lot: pair_accuracy 0.5000, best 0.2500, worst 0.2500, best_and_worst 0.0833"
    assert lot in shown and "SRCC" not in shown and "ratio" not in shown
    table = pd.read_csv(tmp_path / "out" / "metrics.csv")
    assert table["slice"].tolist()[1:] == ["s0", "s1", "s2"]
    assert table["best_and_worst"].tolist()[1:] == [1, 0, 0]
    predictions = pd.read_csv(tmp_path / "out" / "predictions.csv")
    np.testing.assert_allclose(
        predictions["predicted"], scores[predictions["image"]].to_numpy(), atol=1e-4
    )
    assert "| best and worst |" in (tmp_path / "out" / "metrics.md").read_text()


def test_one_photograph_under_two_names_is_half_right(
    checkpoint: Path, sample: Path, scores: pd.Series, tmp_path: Path
) -> None:
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(sample / "images" / scores.index[0], tmp_path / name)
    (tmp_path / "pairs.csv").write_text("winner,loser\na.jpg,b.jpg\n")
    found = evaluate(checkpoint, tmp_path / "pairs.csv", tmp_path, batch_size=1)
    assert found.metrics == {"pair_accuracy": 0.5} and found.intervals == {}
    assert "1 of 1 pairs have equal scores, and count half" in found.notes


def test_choices_without_a_file_follow_missing(
    checkpoint: Path, sample: Path, scores: pd.Series, tmp_path: Path
) -> None:
    a, b, c, d = scores.index[:4]
    path = tmp_path / "x.csv"
    path.write_text(f"set,image,rank\n1,{a},1\n1,{b},2\n2,{c},1\n2,{d},2\n2,gone.jpg,3\n")
    with pytest.raises(LabelError, match="1 of 5 labelled images are not there, such as gone.jpg"):
        evaluate(checkpoint, path, sample / "images")
    found = evaluate(checkpoint, path, sample / "images", missing="leave_out")
    assert found.counts == {"pairs": 1, "images": 2, "sets": 1} and found.left_out == ["gone.jpg"]
    path.write_text(f"winner,loser\n{a},{b}\n{a},gone.jpg\n")
    found = evaluate(checkpoint, path, sample / "images", missing="leave_out")
    assert found.counts == {"pairs": 1, "images": 2}
    path.write_text(f"winner,loser\ngone.jpg,{b}\n")
    with pytest.raises(LabelError, match="no choice is left whose images are all in"):
        evaluate(checkpoint, path, sample / "images", missing="leave_out")


@pytest.mark.parametrize("option", [("labels", "x.csv"), ("split", "val"), ("slice_by", "[tag]")])
def test_options_of_labels_are_refused(
    checkpoint: Path, sample: Path, option: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["evaluate", str(checkpoint), "--pairs", "pairs.csv", "--images", str(sample / "images")]
    assert main([*argv, f"--{option[0]}", option[1]]) == 2
    assert f"--{option[0]} is for labels: leave it out" in capsys.readouterr().err


def test_the_runs_own_images_are_opened_only_where_it_wrote_its_checkpoint(
    checkpoint: Path, scores: pd.Series, tmp_path: Path
) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(f"winner,loser\n{scores.index[0]},{scores.index[1]}\n")
    own = {"workers": 0, "samples": 0, "pairs": str(path)}
    assert evaluate_choices(checkpoint, EvaluateOptions(**own)).metrics == {"pair_accuracy": 1.0}
    shutil.copy(checkpoint, tmp_path / "moved.safetensors")
    with pytest.raises(LabelError, match="does not lie where its run wrote it.*give --images"):
        evaluate_choices(tmp_path / "moved.safetensors", EvaluateOptions(**own))
