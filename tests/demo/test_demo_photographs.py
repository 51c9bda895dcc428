"""Uploaded photographs: their scores, crops, and pictures of what a model sees in them."""

from pathlib import Path

import pytest

from eat.config.demo import DemoOptions
from eat.demo.photographs import Studio
from eat.demo.server import load


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_pictures_are_drawn_once_in_any_precision(
    precision: str, sample: Path, checkpoint: Path, tmp_path: Path
) -> None:
    options = DemoOptions(checkpoint=str(checkpoint), precision=precision, workers=1)
    studio = Studio(load(options), tmp_path, options)
    photos, errors = studio.score(sorted((sample / "images").iterdir())[:1])
    assert errors == []
    for draw in (studio.points, studio.saliency):
        picture = draw(photos[0])
        made = picture.stat().st_mtime_ns
        assert draw(photos[0]) == picture and picture.stat().st_mtime_ns == made


def test_photographs_that_are_known_are_not_scored_anew(
    sample: Path, checkpoint: Path, tmp_path: Path
) -> None:
    options = DemoOptions(checkpoint=str(checkpoint), workers=1)
    studio = Studio(load(options), tmp_path, options)
    images = sorted((sample / "images").iterdir())[:3]
    seen: list[tuple[int, int]] = []
    first, _ = studio.score(images[:2], (), lambda *count: seen.append(count))
    again, _ = studio.score(images[1:], first, lambda *count: seen.append(count))
    assert seen == [(1, 2), (2, 2), (1, 1)]
    assert {one.file for one in again} == {*images[1:]}
    (kept,) = {*first} & {*again}
    assert kept.file == images[1]
    assert [one.score.score for one in again] == sorted(p.score.score for p in again)[::-1]
