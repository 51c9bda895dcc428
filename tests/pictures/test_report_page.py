"""``eat report``: the page of a run, or of several side by side."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from pictures.pages import data

from eat.cli import main


@pytest.fixture
def other(run: Path, tmp_path: Path) -> Path:
    """A copy of the run with another option, faults and an evaluation."""
    folder = tmp_path / "other <b>"
    shutil.copytree(run, folder)
    options = yaml.safe_load((folder / "config.yaml").read_text())
    options["optim"]["lr"] = 0.5
    (folder / "config.yaml").write_text(yaml.safe_dump(options))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line |= {"skipped_steps": 2, "srcc": None}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "left_out.txt").write_text("a.jpg\nb.jpg\n")
    evaluation = {"dataset": "sample data", "split": "test", "images": 16, "notes": ["0 of 16"]}
    evaluation |= {"metrics": {"srcc": 0.5}, "intervals": {"srcc": [0.25, 0.75]}}
    evaluation |= {"slices": [{"column": "tag", "slice": "sky", "srcc": 0.1, "images": 9}]}
    (folder / "eval").mkdir()
    (folder / "eval" / "metrics.json").write_text(json.dumps(evaluation))
    return folder


def test_a_page_has_what_the_run_wrote(run: Path, other: Path, tmp_path: Path) -> None:
    assert main(["report", str(run), str(other), "--out", str(tmp_path / "page")]) == 0
    first, second = data(tmp_path / "page")["page"]["runs"]
    result = json.loads((run / "result.json").read_text())
    assert first["tables"]["Metrics"]["srcc"] == f"{result['srcc']:.4f}"
    assert first["tables"]["Faults"]["starts"] == "1"
    assert first["tables"]["Options"]["optim.lr"] == "0.001"
    assert first["tables"]["Options"]["data.test"] == "null"  # as in YAML
    assert first["tables"]["Environment"]["packages.torch"]
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    curves = {chart["title"]: chart for chart in first["charts"]}
    assert curves["training loss"]["series"]["loss"] == [e["train_loss"] for e in epochs]
    assert curves["test split"]["series"]["srcc"] == [e["srcc"] for e in epochs]
    health = curves["interest points: deviation in an image"]["series"]
    assert health == {name: [e["points"][name]["points"] for e in epochs]
                      for name in epochs[0]["points"]}  # fmt: skip
    assert len(first["predictions"]) == 16

    assert second["name"] == str(other) and second["notes"][0] == "0 of 16"
    assert any("chooses the best epoch" in note for note in first["notes"])
    assert not any("epoch 1: loss" in note for note in first["notes"])
    assert second["tables"]["Metrics"]["srcc"] == "0.5000 (0.2500 to 0.7500)"
    assert second["tables"]["Slices"] == {"tag: sky": "SRCC 0.1000 of 9 images"}
    assert second["tables"]["Options"]["optim.lr"] == "0.5"
    assert second["tables"]["Faults"]["skipped_steps"] == "4"
    assert second["tables"]["Faults"]["labelled images without a file"] == "2"
    assert {c["title"]: c for c in second["charts"]}["test split"]["series"]["srcc"] == [None, None]


def test_a_run_that_has_just_begun_has_a_page(run: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    shutil.copy(run / "config.yaml", tmp_path / "new")
    assert main(["report", str(tmp_path / "new"), "--out", str(tmp_path / "page")]) == 0
    (found,) = data(tmp_path / "page")["page"]["runs"]
    assert found["charts"] == found["predictions"] == [] and found["tables"]["Metrics"] == {}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("metrics.jsonl", '{"epoch": 1}\n{"ep', "metrics.jsonl, line 2: damaged"),
        ("metrics.jsonl", '{"epoch": 1e999}\n', "metrics.jsonl, line 1: damaged"),
        ("metrics.jsonl", '{"points": 3}\n', "metrics.jsonl, line 1: damaged"),
        ("result.json", "[]", "result.json: damaged"),
        ("eval/metrics.json", '{"metrics": {"srcc": "high"}}', "metrics.json: damaged"),
        ("eval/metrics.json", '{"slices": [{}]}', "metrics.json: damaged"),
        ("predictions.csv", "image,predicted\na,1\n", "predictions.csv: damaged"),
        ("predictions.csv", "image,score,predicted\na,b,c\n", "predictions.csv: damaged"),
        ("config.yaml", "data: [", "config.yaml"),
    ],
)
def test_a_damaged_file_is_named_and_nothing_is_left(
    file: str, content: str, message: str, other: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (other / file).write_text(content)
    assert main(["report", str(other), "--out", str(tmp_path / "page")]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("page*"))


def test_a_run_of_several_targets_has_the_curves_of_each(other: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (other / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line |= {"color.srcc": 0.25, "color.mse": 2.0}
    (other / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["report", str(other), "--out", str(tmp_path / "page")]) == 0
    (found,) = data(tmp_path / "page")["page"]["runs"]
    (chart,) = [chart for chart in found["charts"] if chart["title"] == "test split"]
    assert list(chart["series"]) == ["srcc", "plcc", "accuracy", "color.srcc"]
    assert chart["series"]["color.srcc"] == [0.25] * len(lines)


def test_of_a_long_log_the_end_is_shown(other: Path, tmp_path: Path) -> None:
    text = "".join(f"05:40:24 {i} replaced <b>\x1b\udcff\n" for i in range(20_000))
    (other / "train.log").write_text(text, errors="surrogateescape")
    assert main(["report", str(other), "--out", str(tmp_path / "page")]) == 0
    (found,) = data(tmp_path / "page")["page"]["runs"]
    assert found["notes"][1] == "19500 earlier lines are in train.log alone"
    assert len(found["notes"]) == 502 and "19999 replaced" in found["notes"][-1]


@pytest.mark.parametrize("name", ["run", "whole"])
def test_a_run_of_version_1_has_a_page(name: str, tmp_path: Path) -> None:
    legacy = Path(__file__).parents[1] / "fixtures" / "legacy" / name
    assert main(["report", str(legacy), "--out", str(tmp_path / "page")]) == 0
    (found,) = data(tmp_path / "page")["page"]["runs"]
    assert found["charts"][0]["series"]["loss"][0] > 0 and found["tables"]["Options"]


def test_what_is_no_run_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = ["--out", str(tmp_path / "page")]
    assert main(["report", str(tmp_path), *page]) == 2
    assert f"{tmp_path}: no run: expected a folder with config.yaml" in capsys.readouterr().err
    assert main(["report", *[str(run)] * 5, *page]) == 2
    assert "found 5 runs: expected at most 4" in capsys.readouterr().err
    assert main(["report", str(run), "--out", str(run)]) == 2
    assert "is there and not of this command's making" in capsys.readouterr().err
