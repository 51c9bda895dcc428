"""The study of the background: its measures of a run, and what differences it could see."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import rows_on
from scipy import stats

from eat.cli import main
from eat.evaluation.metrics import partial_srcc
from eat.experiments.report import markdown, summarise
from eat.experiments.results import COLUMNS, Record
from eat.experiments.runner import reproduce
from eat.experiments.study import detectable, pooled_deviation
from eat.experiments.table import Experiment, Row
from eat.sample.make import background_masks, make_sample

STUDY = Experiment("study", "Study", "Study", "sample", 1, (Row("full"),), task="background")


@pytest.fixture(scope="module")
def arranged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arranged") / "sample"
    return make_sample(folder, train=24, test=12, size=64, task="background")


def test_a_difference_of_the_size_told_is_found_as_often_as_told() -> None:
    """Against 20,000 drawn studies of five seeds."""
    true = detectable(0.02, 5, power=0.8)
    drawn = np.random.default_rng(0).normal(true, 0.02, (20_000, 5))
    assert (stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(
        0.8, abs=0.01
    )


def test_with_many_seeds_the_difference_is_that_of_the_normal_distribution() -> None:
    assert detectable(1.0, 10_000) == pytest.approx((1.959964 + 0.841621) / 100, rel=1e-3)
    assert detectable(0.3, 5) == pytest.approx(0.3 * detectable(1.0, 5))
    assert detectable(1.0, 3) > detectable(1.0, 5) > detectable(1.0, 5, power=0.5)


def test_deviations_are_pooled_by_their_degrees_of_freedom() -> None:
    assert pooled_deviation([3.0, 4.0], [3, 5]) == pytest.approx(math.sqrt((2 * 9 + 4 * 16) / 6))


def test_a_run_is_measured_by_the_terms_and_the_masks_of_its_test_images(
    arranged: Path, tmp_path: Path
) -> None:
    assert reproduce(
        STUDY, rows_on(arranged), seeds=1, out=tmp_path, runs=tmp_path / "runs", command="", say=str
    )
    record = next(csv.DictReader((tmp_path / "study.csv").open()))
    predictions = pd.read_csv(next((tmp_path / "runs").glob("*/predictions.csv")))
    terms = pd.read_csv(arranged / "factors.csv").set_index("image").loc[predictions["image"]]
    expected = partial_srcc(predictions["predicted"], terms["background"], terms["foreground"])
    assert float(record["background_srcc"]) == pytest.approx(expected)
    area = background_masks(arranged, predictions["image"].tolist(), 64).mean()
    assert float(record["background_area"]) == pytest.approx(area)
    shares = json.loads(record["background_attention"])
    assert list(shares) == ["stages.2.blocks.1", "stages.3.blocks.0"]
    assert all(0.4 < share <= 1 for share in shares.values())
    assert (tmp_path / "study.png").exists()


def record(row: str, seed: int, background: float, share: float) -> Record:
    measured = {"srcc": 0.8 + background / 10, "background_srcc": background}
    attention = {
        "background_attention": json.dumps({"a": share, "b": 0.9}),
        "background_area": 0.75,
    }
    return dict.fromkeys(COLUMNS) | {"row": row, "seed": seed} | measured | attention


def test_the_report_compares_the_terms_and_tells_what_it_could_see() -> None:
    records = [record("full", seed, 0.5 + seed / 100, 0.7) for seed in range(3)]
    records += [record("grid", seed, 0.6 + seed / 50, 0.8) for seed in range(3)]
    grid = summarise(records)[1]
    assert grid.on_background("background_attention") == pytest.approx([0.1] * 3)
    text = markdown(STUDY, records, "eat reproduce study")
    assert "| background | background minus full | attention on background |" in text
    assert "| +0.110 [+0.085, +0.135] | +0.100 ± 0.000 |" in text  # 4.3027 * 0.01 / sqrt(3)
    least = detectable(0.01, 3)
    assert "Power: with 3 seeds, a two-sided paired t test at 5%" in text
    assert f"background {least:.3f} (deviation 0.010)." in text


def test_a_sample_of_another_task_is_refused(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for labels, found in ((sample, "no sample of the task background"), ("no", "no such folder")):
        argv = ["reproduce", "background", "--data.labels", str(labels), "--out", str(tmp_path)]
        assert main(argv) == 2
        error = capsys.readouterr().err
        assert f"{labels}: {found}" in error and "eat sample FOLDER --task background" in error
