"""Scores through pyiqa are those of eat score."""

from pathlib import Path

import pytest
import torch

import eat

pyiqa = pytest.importorskip("pyiqa", reason="an optional package with many of its own")


def test_pyiqa_lists_the_scores_and_gives_the_same(checkpoint: Path, sample: Path) -> None:
    names = {"eat", "eat-ava", "eat-tad66k", "tanet-ava", "tanet-tad66k", "det-icaa17k", "det-spaq"}
    assert names <= set(pyiqa.list_models("NR"))
    metric = pyiqa.create_metric("eat", checkpoint=str(checkpoint), device="cpu")
    photos = sorted((sample / "images").glob("*.jpg"))[:2]
    expected = [score.score for score in eat.Scorer(checkpoint)(photos)]
    found = [metric(str(photo)).item() for photo in photos]
    assert found == pytest.approx(expected, abs=1e-4)
    assert metric(torch.rand(2, 3, 80, 70)).shape == (2, 1) and not metric.lower_better


@pytest.mark.parametrize("name", ["eat", "eat-ava"])
def test_pyiqa_is_told_what_is_missing(name: str, checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="give the file of the weights"):
        pyiqa.create_metric(name)
    if name == "eat-ava":
        with pytest.raises(ValueError, match="best.safetensors is eat-sample: expected eat-ava"):
            pyiqa.create_metric(name, checkpoint=str(checkpoint))
