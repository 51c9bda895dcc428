"""``eat gallery --labels``: the error page of a model."""

from pathlib import Path

import pandas as pd
import pytest
from pictures.pages import cells, data

from eat.cli import main
from eat.config.commands import EvaluateOptions
from eat.data.labels.reading import read_labels
from eat.evaluation.evaluate import evaluate_checkpoint


def gallery(sample: Path, checkpoint: Path, out: Path, *more: str) -> int:
    given = ["--checkpoint", str(checkpoint), "--out", str(out), *more]
    return main(["gallery", str(sample / "images"), *given])


def test_metrics_and_predictions_are_those_of_an_evaluation(
    sample: Path, checkpoint: Path, tmp_path: Path
) -> None:
    assert gallery(sample, checkpoint, tmp_path / "page", "--labels", str(sample)) == 0
    options = EvaluateOptions(
        labels=str(sample), images=str(sample / "images"), samples=0, workers=0
    )
    evaluation = evaluate_checkpoint(checkpoint, options)
    about, shown = data(tmp_path / "page")["page"], cells(tmp_path / "page")
    found = about["rated"]["metrics"]
    assert found["images"] == 16 and about["rated"]["title"] == "sample data, test split"
    for name, value in evaluation.metrics.items():
        assert found[name] == pytest.approx(value, abs=1e-4)
    table = evaluation.predictions.set_index("image")
    for cell in shown:
        assert cell["rated"] == pytest.approx(table.loc[cell["name"], "score"], abs=1e-5)
        assert cell["score"] == pytest.approx(table.loc[cell["name"], "predicted"], abs=1e-5)
        assert sum(cell["rated_votes"]) == pytest.approx(1, abs=1e-3)
    errors = [abs(cell["score"] - cell["rated"]) for cell in shown]
    assert errors == sorted(errors, reverse=True)
    assert found["error"] == pytest.approx(sum(errors) / 16, abs=1e-4)


@pytest.fixture
def table(sample: Path, tmp_path: Path) -> Path:
    """The sample's labels as a table on 0..100, with a column to slice by and a missing image."""
    labels = read_labels("sample", sample)[["image", "score"]]
    labels["score"] = (labels["score"] - 1) / 9 * 100
    labels["camera"] = ["old" if i % 3 else "new" for i in range(len(labels))]
    labels.loc[len(labels)] = ["absent.jpg", 50.0, "new"]
    labels.to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


def test_slices_scales_and_images_without_a_file(
    sample: Path, checkpoint: Path, table: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    more = ["--labels", str(table), "--name", "table", "--low", "0", "--high", "100"]
    assert gallery(sample, checkpoint, tmp_path / "page", *more, "--slice_by", "[camera]") == 1
    assert "absent.jpg: no such file" in capsys.readouterr().err
    about, shown = data(tmp_path / "page")["page"], cells(tmp_path / "page")
    assert (about["low"], about["high"], len(shown)) == (0, 100, 64)
    labels = pd.read_csv(table).set_index("image")
    parts = about["rated"]["slices"]
    assert [(part["slice"], part["images"]) for part in parts] == [("old", 42), ("new", 22)]
    for cell in shown:
        assert [parts[i]["slice"] for i in cell["slices"]] == [labels.loc[cell["name"], "camera"]]
        assert cell["rated"] == pytest.approx(labels.loc[cell["name"], "score"], abs=1e-4)
    new = [c for c in shown if c["slices"] == [1]]
    bias = sum(c["score"] - c["rated"] for c in new) / len(new)
    assert parts[1]["bias"] == pytest.approx(bias, abs=1e-4)


def test_labels_that_do_not_fit_are_one_message(
    sample: Path, checkpoint: Path, table: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    page, named = tmp_path / "page", ["--labels", str(table), "--name", "table", "--low", "0"]
    named += ["--high", "100"]
    for more, message in (
        ([*named, "--slice_by", "[lens]"], "no column 'lens' to slice by"),
        ([*named, "--split", "val"], "no image of the val split"),
        (["--labels", str(table), "--name", "tabel"], "'tabel'"),
        (["--labels", str(tmp_path / "none.csv")], "none.csv"),
    ):
        assert gallery(sample, checkpoint, page, *more) == 2
        assert message in capsys.readouterr().err
    photo = str(next((sample / "images").iterdir()))
    argv = ["--checkpoint", str(checkpoint), "--out", str(page), "--labels", str(sample)]
    assert main(["gallery", photo, *argv]) == 2
    assert "expected the folder of the images that --labels names" in capsys.readouterr().err
    assert not page.exists()
