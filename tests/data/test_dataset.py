"""Splits, targets and order: from label files to batches."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from eat.data.dataset import (
    AestheticsDataset,
    TrainBatches,
    make_loader,
    read_splits,
    targets,
)
from eat.data.labels.table import LabelError
from eat.data.registry import DATASETS
from eat.data.scales import to_scores
from eat.data.transforms import Preprocessing


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


def test_targets_are_vote_shares_or_scaled_scores() -> None:
    votes = {f"votes_{k}": [float(k == 3), 1.0] for k in range(1, 11)}
    table = pd.DataFrame({"image": ["a", "b"], "score": [3.0, 5.5], **votes})
    shares = targets(table, DATASETS["ava"], 10)
    assert shares[0].tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    assert torch.allclose(shares[1], torch.full((10,), 0.1))
    scores = targets(table, DATASETS["tad66k"], 1)
    assert torch.allclose(scores, torch.tensor([[0.3], [0.55]]))
    with pytest.raises(LabelError, match="model has 5 outputs"):
        targets(table, DATASETS["ava"], 5)


def test_scores_undo_targets() -> None:
    votes = {f"votes_{k}": [float(k), 11.0 - k] for k in range(1, 11)}
    score = [7.0, 4.0]  # sum of k * k / 55, and its mirror image
    table = pd.DataFrame({"image": ["a", "b"], "score": score, **votes})
    shares = targets(table, DATASETS["ava"], 10).numpy()
    np.testing.assert_allclose(to_scores(shares, DATASETS["ava"]), score, rtol=1e-6)
    single = targets(table, DATASETS["tad66k"], 1).numpy()
    np.testing.assert_allclose(to_scores(single, DATASETS["tad66k"]), score, rtol=1e-6)


def test_released_outputs_are_scored_as_they_are() -> None:
    outputs = np.zeros((1, 10))
    outputs[0, 9] = 0.5  # does not sum to 1
    assert to_scores(outputs, DATASETS["ava"]).tolist() == [5.0]


def test_an_epoch_is_a_permutation_that_seed_and_epoch_fix() -> None:
    def rows(seed: int, epoch: int) -> list[tuple[int, int]]:
        batches = TrainBatches(50, 8, seed)
        batches.begin(epoch)
        return [key for batch in batches for key in batch]

    assert sorted(row for row, _ in rows(0, 0)) == list(range(50))
    assert rows(0, 1) == rows(0, 1)
    assert rows(0, 0) != rows(0, 1) != rows(1, 1)


def test_batches_are_the_same_whatever_the_number_of_workers(sample: Path) -> None:
    splits = read_splits("sample", sample, sample / "images")
    target = targets(splits.train, splits.dataset, 10)
    data = AestheticsDataset(splits.train, sample / "images", target, Preprocessing(64, 72))

    def batches(workers: int) -> list[dict]:
        return list(make_loader(data, TrainBatches(len(data), 10, seed=1), workers))

    for one, other in zip(batches(0), batches(2), strict=True):
        assert torch.equal(one["pixels"], other["pixels"])
        assert torch.equal(one["row"], other["row"])
        assert torch.equal(one["target"], target[one["row"]])
    assert len(batches(0)[-1]["row"]) == 8
