"""Evaluating a checkpoint: numbers, files, mistakes."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import small_run
from safetensors.torch import save_file

from eat.checkpoint import CheckpointInfo, load_checkpoint, read_info, save_checkpoint
from eat.cli import main
from eat.config.commands import EvaluateOptions
from eat.data.labels.identity import count_seen, fingerprint, hash_images
from eat.data.labels.table import LabelError
from eat.data.registry import DATASETS
from eat.data.scales import rescale
from eat.data.splits import read_splits
from eat.evaluation.evaluate import evaluate_checkpoint
from eat.evaluation.measure import intervals, measure
from eat.evaluation.metrics import bootstrap_interval, srcc
from eat.evaluation.report import Evaluation, seen_note
from eat.models import AestheticModel, WeightsError
from eat.training.trainer import train


def evaluate(checkpoint: Path, **options: object) -> Evaluation:
    """An evaluation in this process, with few resamples."""
    return evaluate_checkpoint(
        checkpoint, EvaluateOptions(**({"workers": 0, "samples": 20} | options))
    )


def in_run_folder(folder: Path, model: AestheticModel, info: CheckpointInfo) -> Path:
    """A checkpoint where the run in ``folder`` would have written it."""
    config = info.config | {"run": info.config["run"] | {"folder": str(folder)}}
    path = folder / "checkpoints" / "best.safetensors"
    path.parent.mkdir()
    save_checkpoint(path, model, replace(info, config=config))
    return path


def test_evaluation_repeats_the_runs_own_result(run: Path, checkpoint: Path) -> None:
    evaluation = evaluate(checkpoint)
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
    assert f"srcc      {metrics['srcc']:9.4f}" in shown
    assert (
        f"| {metrics['srcc']:.3f} | {metrics['plcc']:.3f} |"
        in (tmp_path / "metrics.md").read_text()
    )
    assert pd.read_csv(tmp_path / "metrics.csv")["srcc"][0] == pytest.approx(metrics["srcc"])
    predictions = pd.read_csv(tmp_path / "predictions.csv")
    shares = predictions[[f"p{k}" for k in range(1, 11)]]
    np.testing.assert_allclose(shares @ np.arange(1, 11), predictions["predicted"], rtol=1e-6)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)


def test_batch_size_changes_no_metric_in_the_paper_profile(checkpoint: Path) -> None:
    one = evaluate(checkpoint, batch_size=1)
    many = evaluate(checkpoint, batch_size=16)
    np.testing.assert_allclose(
        one.predictions["predicted"], many.predictions["predicted"], rtol=1e-5
    )


def test_the_training_split_can_be_evaluated(checkpoint: Path) -> None:
    assert len(evaluate(checkpoint, split="train").predictions) == 48


def test_paths_of_a_checkpoint_are_opened_only_where_its_run_wrote_it(
    run: Path,
    sample: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = evaluate(run / "checkpoints" / "best.safetensors").metrics
    (tmp_path / "quickstart").symlink_to(run)
    linked = tmp_path / "quickstart" / "checkpoints" / "best.safetensors"
    assert evaluate(linked).metrics == expected
    copy = tmp_path / "best.safetensors"
    shutil.copy(linked, copy)
    message = f"{copy}: does not lie where its run wrote it, '{run}'"
    given = ["--labels", str(sample), "--images", str(sample / "images")]
    for some in ([], given[:2], given[2:]):
        assert main(["evaluate", str(copy), "--out", str(tmp_path / "out"), *some]) == 2
        error = capsys.readouterr().err
        assert message in error and "give --labels and --images" in error
    assert evaluate(copy, labels=given[1], images=given[3]).metrics == expected
    # Relative paths are followed from where the run was started, and from nowhere else.
    model, info = load_checkpoint(copy)
    (tmp_path / "a" / "run").mkdir(parents=True)
    path = in_run_folder(tmp_path / "a" / "run", model, info)
    options = info.config["run"] | {"folder": "run"}
    save_checkpoint(path, model, replace(info, config=info.config | {"run": options}))
    with pytest.raises(LabelError, match="does not lie where its run wrote it, 'run' seen from"):
        evaluate(path)
    monkeypatch.chdir(tmp_path / "a")
    assert evaluate(path).metrics == expected


@pytest.mark.parametrize(
    ("group", "value", "reason"),
    [
        ("data", {"labels": 5}, "config.data.labels is 5: expected str or null"),
        ("run", {"seed": "x"}, "config.run.seed is 'x': expected int"),
        ("run", {"seed": -1}, "run.seed is -1: expected 0"),
        ("data", {"val_fraction": float("inf")}, "data.val_fraction is inf: expected 0 to 0.999"),
        ("data", {"labls": "x"}, "config.data.'labls' is unknown"),
    ],
)
def test_options_that_no_run_writes_are_one_error(
    checkpoint: Path, tmp_path: Path, group: str, value: dict[str, object], reason: str
) -> None:
    model, info = load_checkpoint(checkpoint)
    info.config["run"]["folder"] = str(tmp_path)
    info.config[group] |= value
    (tmp_path / "checkpoints").mkdir()
    save_checkpoint(tmp_path / "checkpoints" / "x.safetensors", model, info)
    with pytest.raises(ValueError, match=re.escape(reason)):
        evaluate(tmp_path / "checkpoints" / "x.safetensors")


def test_other_labels_take_the_place_of_the_runs(
    checkpoint: Path, sample: Path, tmp_path: Path
) -> None:
    table = tmp_path / "own.csv"
    images = sorted(p.name for p in (sample / "images").iterdir())[:5]
    table.write_text("image,score\n" + "".join(f"{n},{i + 2}\n" for i, n in enumerate(images)))
    evaluation = evaluate(
        checkpoint, name="table", labels=str(table), images=str(sample / "images")
    )
    assert evaluation.predictions["image"].tolist() == images
    assert evaluation.split == "whole" and "emd" not in evaluation.metrics


def test_scores_are_rescaled_bounds_to_bounds() -> None:
    scores = rescale(np.array([1.0, 5.5, 10.0]), DATASETS["ava"].scale, DATASETS["aadb"].scale)
    np.testing.assert_allclose(scores, [0, 0.5, 1])


def test_constant_predictions_give_a_warning_and_null(run: Path, tmp_path: Path) -> None:
    model, info = load_checkpoint(run / "checkpoints" / "best.safetensors")
    torch.nn.init.zeros_(model.head.weight)
    flat = in_run_folder(tmp_path, model, info)
    with pytest.warns(match="SRCC is undefined: all 16 predictions equal"):
        evaluation = evaluate(flat)
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


def test_intervals_hold_the_metric_and_narrow_with_more_images() -> None:
    draw = np.random.default_rng(0)

    def width(count: int) -> float:
        target = draw.normal(size=count)
        predicted = target + draw.normal(size=count)
        low, high = bootstrap_interval(srcc, predicted, target, samples=200)
        assert low < srcc(predicted, target) < high
        return high - low

    assert width(1000) < width(100) / 2


def test_columns_to_slice_by_are_checked_before_an_image_is_read(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eat.evaluation.evaluate.predict", lambda *_: pytest.fail("too late"))
    with pytest.raises(LabelError, match="no column 'colour' to slice by"):
        evaluate(checkpoint, slice_by=["colour"])


def test_more_examples_than_a_picture_holds_are_refused(checkpoint: Path) -> None:
    for count in (-1, 100_000):
        with pytest.raises(ValueError, match=f"examples is {count}: expected 0 to 400"):
            evaluate(checkpoint, examples=count)


def test_slices_of_an_evaluation_have_their_own_metrics(checkpoint: Path) -> None:
    evaluation = evaluate(checkpoint, slice_by=["challenge"], samples=20)
    rows = evaluation.slices.set_index("slice")
    assert rows["images"].sum() <= 16 and {"srcc", "srcc_low", "plcc"} <= set(rows)
    for value in rows.index:
        assert f"challenge {value}" in evaluation.table()


def test_an_evaluation_tells_how_many_test_images_were_trained_on(
    checkpoint: Path, sample: Path
) -> None:
    clean = evaluate(checkpoint, samples=0)
    assert "0 of 16 test images were among the 48 trained on" in clean.table()
    every = sample / "AVA.txt"  # the same photographs, with no test list
    leaked = evaluate(checkpoint, labels=str(every), images=str(sample / "images"), samples=0)
    assert "WARNING: 48 of 64 test images were among the 48 trained on: these" in leaked.table()
    named = evaluate(checkpoint, trained_on=str(every), samples=0)
    same = "WARNING: 16 of 16 test images have the same file name as one of the 64 trained on; if"
    assert same in named.table()


def test_equal_names_of_other_photographs_are_no_leak(sample: Path, tmp_path: Path) -> None:
    train, test = (read_splits("sample", sample, sample / "images").tables()[n]
                   for n in ("train", "test"))  # fmt: skip
    known = hash_images(train, sample / "images")
    assert len(known.names) == len(known.contents) == 48
    twins = train.head(3)
    for new, old in zip(twins["image"], test["image"], strict=False):
        shutil.copy(sample / "images" / old, tmp_path / new)
    remark = seen_note(twins, tmp_path, known, "test images")
    assert remark == (
        "3 of 3 test images have the same file name as one of the 48 trained on, and other content"
    )
    shutil.copy(sample / "images" / twins["image"][0], tmp_path / "renamed.jpg")
    renamed = pd.DataFrame({"image": ["renamed.jpg", twins["image"][1], "absent.jpg"]})
    assert count_seen(renamed, tmp_path, known) == (1, 1)
    assert count_seen(renamed, tmp_path, known._replace(contents=known.contents[:0])) == (0, 1)


def test_images_are_the_same_in_another_folder_and_format(checkpoint: Path) -> None:
    def table(*images: str) -> pd.DataFrame:
        return pd.DataFrame({"image": images})

    assert fingerprint(table("a/1.jpg", "2.png")) == fingerprint(table("2.JPG", "x/y/1.jpeg"))
    assert fingerprint(table("1.jpg")) != fingerprint(table("2.jpg"))
    names = hash_images(table("1.jpg", "2.jpg"))
    assert count_seen(table("z/1.png", "3.jpg"), "nowhere", names) == (0, 1)


def test_a_run_records_the_fingerprints_of_its_splits(checkpoint: Path, sample: Path) -> None:
    splits = read_splits("sample", sample, sample / "images")
    recorded = read_info(checkpoint).splits
    assert recorded["train"] == {"images": 48, "fingerprint": fingerprint(splits.train)}
    assert recorded["test"]["fingerprint"] == fingerprint(splits.test)


def test_another_scale_is_mapped_and_the_mapping_stated(
    checkpoint: Path, sample: Path, tmp_path: Path
) -> None:
    images = sorted(p.name for p in (sample / "images").iterdir())[:6]
    lines = "".join(f"{name} {i / 10}\n" for i, name in enumerate(images))
    (tmp_path / "imgListTestNewRegression_score.txt").write_text(lines)
    evaluation = evaluate(
        checkpoint,
        name="aadb",
        labels=str(tmp_path / "imgListTestNewRegression_score.txt"),
        images=str(sample / "images"),
    )
    assert "mapped from sample data (1..10) to AADB (0..1)" in evaluation.table()
    assert evaluation.predictions["predicted"].between(0, 1).all()
    assert "6 images; the official test split of AADB has 1000" in evaluation.table()


def test_predictions_are_written_as_parquet_too(checkpoint: Path, tmp_path: Path) -> None:
    evaluation = evaluate(checkpoint)
    evaluation.write(tmp_path, "parquet")
    written = pd.read_parquet(tmp_path / "predictions.parquet")
    np.testing.assert_array_equal(written["predicted"], evaluation.predictions["predicted"])


def test_parquet_without_pyarrow_says_what_to_install(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*args: object, **kwargs: object) -> bytes:
        raise ImportError("no pyarrow")

    evaluation = evaluate(checkpoint)
    monkeypatch.setattr(pd.DataFrame, "to_parquet", absent)
    with pytest.raises(ValueError, match="Parquet needs pyarrow: pip install"):
        evaluation.write(tmp_path, "parquet")
    assert not list(tmp_path.iterdir())


def test_a_table_on_another_scale_is_trained_and_evaluated_on_it(
    sample: Path, tmp_path: Path
) -> None:
    images = sorted(p.name for p in (sample / "images").iterdir())[:24]
    rows = [f"{n},{4 * i + 2},{'test' if i % 3 == 0 else 'train'}" for i, n in enumerate(images)]
    (tmp_path / "labels.csv").write_text("\n".join(["image,score,split", *rows]) + "\n")
    config = small_run(sample, tmp_path / "run")
    config.data.name, config.data.labels = "table", str(tmp_path / "labels.csv")
    config.data.low, config.data.high, config.optim.epochs = 0, 100, 1
    folder, metrics = train(config)
    evaluation = evaluate(folder / "checkpoints" / "best.safetensors")
    assert evaluation.metrics == pytest.approx(metrics, abs=1e-5)
    predicted, rated = evaluation.predictions["predicted"], evaluation.predictions["score"]
    assert rated.tolist() == [12 * i + 2 for i in range(8)]
    assert evaluation.metrics["mse"] == pytest.approx(((predicted - rated) ** 2).mean() / 100**2)
    assert evaluation.metrics["accuracy"] == ((predicted > 50) == (rated > 50)).mean()
    assert "mapped" not in evaluation.table()
    again = evaluate(
        folder / "checkpoints" / "best.safetensors", labels=str(tmp_path / "labels.csv")
    )
    assert again.metrics == evaluation.metrics and again.notes == evaluation.notes


def test_a_table_on_another_scale_takes_its_bounds_from_the_options(
    checkpoint: Path, sample: Path, tmp_path: Path
) -> None:
    images = sorted(p.name for p in (sample / "images").iterdir())[:5]
    (tmp_path / "own.csv").write_text(
        "image,score\n" + "".join(f"{n},{20 * i}\n" for i, n in enumerate(images))
    )
    given = {"name": "table", "labels": str(tmp_path / "own.csv")}
    evaluation = evaluate(checkpoint, low=0.0, high=100.0, **given)
    assert "mapped from sample data (1..10) to your own labels (0..100)" in evaluation.table()
    own = evaluate(checkpoint, split="train").predictions.set_index("image")["predicted"]
    expected = [(own[name] - 1) / 9 * 100 for name in images]
    np.testing.assert_allclose(evaluation.predictions["predicted"], expected, rtol=1e-5)
    with pytest.raises(LabelError, match="expected 1 to 10"):
        evaluate(checkpoint, **given)


def test_a_model_of_an_unregistered_data_set_says_to_register_it(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, info = load_checkpoint(checkpoint)
    path = in_run_folder(tmp_path, model, replace(info, dataset="mine", title="My photographs"))
    message = f"{path}: was trained on the data set 'mine', .* not registered .* --name"
    with pytest.raises(LabelError, match=message):
        evaluate(path)
    expected = evaluate(checkpoint)
    named = evaluate(path, name="sample")
    assert named.trained_on == "My photographs" and named.metrics == expected.metrics
    monkeypatch.setitem(DATASETS, "mine", replace(DATASETS["sample"], name="mine"))
    assert evaluate(path).metrics == expected.metrics


@pytest.mark.parametrize(
    ("option", "value"), [("batch_size", -1), ("workers", -1), ("samples", -5)]
)
def test_a_number_out_of_range_is_named(checkpoint: Path, option: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{option} is {value}: expected "):
        evaluate_checkpoint(checkpoint, EvaluateOptions(**{option: value}))


def test_a_folder_that_cannot_be_made_is_refused_before_the_evaluation(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for out in ("file", "file/below"):
        assert main(["evaluate", str(checkpoint), "--out", str(tmp_path / out)]) == 2
        told = capsys.readouterr()
        assert f"{tmp_path / 'file'} is there, and no folder" in told.err
        assert not told.out


def test_exactly_one_checkpoint_is_given_and_released_ones_are_the_authors(
    checkpoint: Path,
) -> None:
    for own, released in ((None, None), (checkpoint, str(checkpoint))):
        with pytest.raises(ValueError, match="give a run's checkpoint, or --released FILE"):
            evaluate_checkpoint(own, EvaluateOptions(released=released))
    with pytest.raises(WeightsError, match="not one of the released checkpoints"):
        evaluate_checkpoint(None, EvaluateOptions(released=str(checkpoint)))


def test_a_split_that_is_not_there_is_an_error(
    checkpoint: Path, sample: Path, tmp_path: Path
) -> None:
    with pytest.raises(LabelError, match="no image of the val split, only of train, test"):
        evaluate(checkpoint, split="val")
    images = sorted(p.name for p in (sample / "images").iterdir())[:4]
    (tmp_path / "own.csv").write_text(
        "image,score,split\n" + "".join(f"{n},{i + 2},train\n" for i, n in enumerate(images))
    )
    with pytest.raises(LabelError, match="no image of the test split, only of train; give --test"):
        evaluate(checkpoint, name="table", labels=str(tmp_path / "own.csv"))


def test_every_nan_of_an_evaluation_is_null_in_json(tmp_path: Path) -> None:
    nan = float("nan")
    evaluation = Evaluation(
        "c", "eat_nano", "A", "B", "test", "", {"srcc": nan, "mse": 0.25}, {"srcc": (nan, nan)},
        pd.DataFrame({"image": ["1.jpg"]}),
        slices=pd.DataFrame([{"column": "tag", "slice": "Sky", "images": 2, "srcc": nan}]),
    )  # fmt: skip
    evaluation.write(tmp_path)
    found = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert found["metrics"] == {"srcc": None, "mse": 0.25}
    assert found["intervals"] == {"srcc": [None, None]}
    assert found["slices"] == [{"column": "tag", "slice": "Sky", "images": 2, "srcc": None}]


def test_intervals_are_those_of_whole_rows() -> None:
    """Against the metrics of resampled tables, which is the slow and obvious way."""
    draw = np.random.default_rng(0)
    outputs = draw.dirichlet(np.ones(10), 30)
    votes = {f"votes_{k}": draw.integers(1, 9, 30).astype(float) for k in range(1, 11)}
    table = pd.DataFrame({"image": "", "score": draw.uniform(1, 10, 30), **votes})
    scale = DATASETS["ava"].scales()
    low, high = bootstrap_interval(
        lambda rows: list(measure(outputs[rows], table.iloc[rows], scale).values()),
        np.arange(30),
        samples=50,
    )
    found = intervals(outputs, table, scale, samples=50)
    assert list(found) == ["srcc", "plcc", "accuracy", "ratio", "mse", "emd"]
    # A matrix product may round a repeated row in two ways, which then is no tie.
    np.testing.assert_allclose(list(found.values()), np.stack([low, high], axis=1), atol=1e-4)
