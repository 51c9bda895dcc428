"""Label files, held against the images on disk, to splits."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eat.config.commands import PrepareOptions
from eat.data.labels.table import LabelError
from eat.data.prepare import prepare
from eat.data.scales import ScoreScale
from eat.data.splits import read_splits


def test_the_sample_splits_as_its_test_list_says(sample: Path) -> None:
    splits = read_splits("sample", sample, sample / "images")
    assert (len(splits.train), splits.val, len(splits.test)) == (48, None, 16)
    assert not set(splits.train["image"]) & set(splits.test["image"])


def test_a_validation_share_is_drawn_from_the_training_images_by_seed(sample: Path) -> None:
    def held_out(seed: int) -> list[str]:
        splits = read_splits("sample", sample, sample / "images", val_fraction=0.25, seed=seed)
        assert (len(splits.train), len(splits.val), len(splits.test)) == (36, 12, 16)
        assert not set(splits.train["image"]) & set(splits.val["image"])
        return splits.val["image"].tolist()

    assert held_out(0) == held_out(0) != held_out(1)


def test_labels_without_an_image_stop_or_are_left_out_by_choice(
    sample: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    names = sorted(p.name for p in (sample / "images").iterdir())
    for name in names[2:]:
        (images / name).symlink_to(sample / "images" / name)
    with pytest.raises(LabelError, match=f"2 of 64 labelled images are not there.*{names[0]}"):
        read_splits("sample", sample, images)
    splits = read_splits("sample", sample, images, missing="leave_out")
    assert splits.left_out == names[:2] and len(splits.train) == 46
    with pytest.raises(LabelError, match="holds none of the 64 labelled images"):
        (tmp_path / "none").mkdir()
        read_splits("sample", sample, tmp_path / "none", missing="leave_out")


def test_a_table_on_a_scale_of_its_own_is_prepared_and_split(sample: Path, tmp_path: Path) -> None:
    images = sorted(path.name for path in (sample / "images").iterdir())
    scores = np.linspace(0, 100, len(images))
    labels = tmp_path / "labels.csv"
    split = ["train", "test"] * (len(images) // 2)
    pd.DataFrame({"image": images, "score": scores, "split": split}).to_csv(labels, index=False)
    with pytest.raises(LabelError, match="expected 1 to 10 .*--data.low and --data.high"):
        read_splits("table", labels, sample / "images")
    splits = read_splits("table", labels, sample / "images", low=0, high=100)
    assert splits.dataset.scale == ScoreScale(0, 100, target_scale=100, positive_above=50)
    assert splits.train["score"].tolist() == scores[::2].tolist()
    options = PrepareOptions(
        str(labels), str(sample / "images"), str(tmp_path / "out"), low=0, high=100, workers=1
    )
    prepare("table", options)
    again = read_splits("table", tmp_path / "out", sample / "images", low=0, high=100)
    pd.testing.assert_frame_equal(again.train, splits.train)
    with pytest.raises(LabelError, match="from 0 to 100, expected 1 to 10; give --data.low 0"):
        read_splits("table", tmp_path / "out", sample / "images")
    with pytest.raises(ValueError, match="low and high are for the data set 'table'"):
        prepare("ava", replace(options, out=str(tmp_path / "ava")))
