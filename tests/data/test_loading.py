"""The order of the images, whoever loads them."""

from pathlib import Path

import torch

from eat.data.dataset import targets
from eat.data.loading import TrainBatches, make_loader
from eat.data.splits import read_splits
from eat.data.transforms import Preprocessing


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
    target = targets(splits.train, splits.dataset.scales(), 10)
    how, order = Preprocessing(64, train_resize=72), TrainBatches(len(target), 10, seed=1)

    def batches(workers: int) -> list[dict]:
        loader = make_loader(splits.train, sample / "images", target, how, order, workers)
        return list(loader)

    for one, other in zip(batches(0), batches(2), strict=True):
        assert torch.equal(one["pixels"], other["pixels"])
        assert torch.equal(one["row"], other["row"])
        assert torch.equal(one["target"], target[one["row"]])
    assert len(batches(0)[-1]["row"]) == 8
