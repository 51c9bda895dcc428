"""Figures that show photographs, drawn from the runs of an experiment."""

import csv
import shutil
from pathlib import Path
from typing import Literal

import pytest
from conftest import rows_on
from PIL import Image

from eat.cli import main
from eat.experiments.runner import reproduce
from eat.experiments.table import Experiment, Row


def experiment(plot: Literal["saliency", "examples"]) -> Experiment:
    rows = (Row("full"), Row("grid", {"model.settings.interest": False}))
    return Experiment(plot, "Photographs", "Figure 0", "ava", 25, rows, plot=plot)


def draw(plot: Literal["saliency", "examples"], sample: Path, out: Path) -> bool:
    runs = out / "runs"
    made = rows_on(sample)
    return reproduce(experiment(plot), made, seeds=1, out=out, runs=runs, command="", say=str)


def test_photographs_are_drawn_from_shared_runs_and_a_lost_run_is_named(
    sample: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pytorch_grad_cam")
    assert draw("examples", sample, tmp_path) and draw("saliency", sample, tmp_path)
    for plot in ("examples", "saliency"):
        width, height = Image.open(tmp_path / f"{plot}.png").size
        assert width > 400 and height > 400
        with (tmp_path / f"{plot}.csv").open() as file:
            assert [line["row"] for line in csv.DictReader(file)] == ["full", "grid"]
    assert len([*(tmp_path / "runs").iterdir()]) == 2
    shutil.rmtree(tmp_path / "runs")
    with pytest.raises(
        ValueError, match=r"the run of 'full' is gone, .*remove its line from .*csv"
    ):
        draw("examples", sample, tmp_path)


def test_without_grad_cam_figure3_is_refused_before_training(
    sample: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pytorch_grad_cam", None)
    argv = ["reproduce", "figure3", "--data.name", "sample", "--data.labels", str(sample)]
    assert main(argv) == 2
    assert "pip install 'eat-iaa[saliency]'" in capsys.readouterr().err
