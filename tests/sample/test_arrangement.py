"""Scenes whose background is judged by its arrangement: the sample of the task ``background``."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from eat.sample.arrangement import ARRANGEMENT, Arranged, draw_arranged, paint_arranged
from eat.sample.make import TASKS, background_masks, make_sample, task_of
from eat.sample.scenes import FOREGROUND, draw_layers

DRAWS = [draw_arranged(np.random.default_rng([3, i])) for i in range(1000)]


@pytest.fixture(scope="module")
def arranged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arranged") / "sample"
    return make_sample(folder, train=4, test=4, size=64, task="background")


def with_terms(foreground: float, background: float, scene: str = "Cityscape") -> Arranged:
    values = dict.fromkeys(FOREGROUND, foreground) | dict.fromkeys(ARRANGEMENT, background)
    technical = {"exposure": 0.9, "cleanness": 0.9}
    return Arranged(scene, "person", "Blue_Morning", values | technical)


def test_the_terms_are_uniform_and_independent_and_weigh_the_same() -> None:
    terms = pd.DataFrame({name: [getattr(f, name) for f in DRAWS] for name in
                          ("foreground", "background")})  # fmt: skip
    for name in terms:
        shares = np.histogram(terms[name], bins=5, range=(0, 1))[0] / len(terms)
        assert ((shares > 0.14) & (shares < 0.26)).all()
    assert abs(terms.corr().iloc[0, 1]) < 0.08
    scores = [TASKS["background"].score(f) for f in DRAWS]
    assert scores == pytest.approx(2.5 + 6 * terms.mean(axis=1))


@pytest.mark.parametrize("name", ARRANGEMENT)
def test_each_factor_of_the_arrangement_is_seen_and_counts(name: str) -> None:
    good = with_terms(0.5, 0.5)
    better, worse = (
        dataclasses.replace(good, values=good.values | {name: value}) for value in (0.9, 0.1)
    )
    first, second = (
        paint_arranged(factors, np.random.default_rng(0), 64, 64) for factors in (better, worse)
    )
    assert np.abs(first - second).mean() > 0.01
    assert better.background > worse.background and better.foreground == worse.foreground


def test_the_arrangement_hardly_shows_in_brightness_and_contrast() -> None:
    """Images differ in these by far more than by what their arrangement adds."""

    def statistics(background: float, seed: int) -> list[float]:
        scene = ("Landscape", "Cityscape", "Seascapes")[seed % 3]
        rng = np.random.default_rng(seed)
        light = paint_arranged(with_terms(0.5, background, scene), rng, 48, 48).mean(axis=2)
        return [light.mean(), light.std()]

    poor, rich = (np.array([statistics(term, i) for i in range(40)]) for term in (0.0, 1.0))
    assert (np.abs((rich - poor).mean(axis=0)) < 0.35 * poor.std(axis=0)).all()


def test_the_mask_is_of_the_pixels_that_do_not_depend_on_the_subject() -> None:
    plain = with_terms(0.4, 0.5)
    vivid = dataclasses.replace(plain, values=plain.values | {"colour": 1.0})
    (plain_image, opacity), (vivid_image, _) = (
        draw_layers(factors, np.random.default_rng(1), 64, paint_arranged)
        for factors in (plain, vivid)
    )
    changed = np.abs(plain_image - vivid_image).max(axis=2) > 1e-6
    assert not changed[opacity == 0].any()
    assert changed[opacity == 1].mean() > 0.9


def test_masks_are_made_for_any_image_of_either_task(arranged: Path, tmp_path: Path) -> None:
    usual = make_sample(tmp_path / "usual", train=2, test=1, size=64)
    for folder, name in ((arranged, "500003.jpg"), (usual, "100001.jpg")):
        masks = background_masks(folder, [name, "100000.jpg"], 32)
        assert masks.shape == (2, 32, 32)
        assert masks.min() >= 0 and masks.max() <= 1 and 0.5 < masks.mean() < 0.98
    with pytest.raises(FileNotFoundError, match="is no sample"):
        background_masks(tmp_path, ["100000.jpg"], 32)


def test_a_mask_is_that_of_its_images_seed(arranged: Path) -> None:
    rng = np.random.default_rng([0, 1, 2])  # the sample's seed, the test split, the image
    _, opacity = draw_layers(draw_arranged(rng), rng, 64, paint_arranged)
    mask = background_masks(arranged, ["500002.jpg"], 64)
    with Image.open(arranged / "images" / "500002.jpg") as image:
        assert opacity.shape == image.size[::-1]
    assert mask.mean() == pytest.approx(1 - opacity.mean(), abs=0.01)


def test_the_task_is_part_of_a_sample_and_the_usual_one_goes_without_saying(
    arranged: Path, tmp_path: Path
) -> None:
    assert task_of(arranged) == "background" and task_of(tmp_path) is None
    usual = make_sample(tmp_path / "usual", train=1, test=1, size=32)
    assert task_of(usual) == "photos"
    assert "task" not in json.loads((usual / "sample.json").read_text())
    with pytest.raises(FileExistsError, match="other settings"):
        make_sample(arranged, train=4, test=4, size=64)
    with pytest.raises(ValueError, match="task is 'front': expected one of photos, background"):
        make_sample(tmp_path / "front", task="front")
