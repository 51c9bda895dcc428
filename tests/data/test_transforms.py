"""Preprocessing against the recipes of the release, carried out with PIL and torchvision."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data.drawn import noise, scene
from PIL import Image
from torchvision import transforms as tv

from eat.cli import parse_train
from eat.data import decoding
from eat.data.decoding import read_jpeg
from eat.data.transforms import Preprocessing
from eat.training.setup import resolve_model

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return noise(tmp_path / "photo.jpg")


@pytest.mark.parametrize(
    ("interpolation", "mode"),
    [("bicubic", tv.InterpolationMode.BICUBIC), ("bilinear", tv.InterpolationMode.BILINEAR)],
)
def test_evaluation_equals_the_released_recipe(
    photo: Path, interpolation: str, mode: tv.InterpolationMode
) -> None:
    recipe = tv.Compose([tv.Resize((224, 224), mode), tv.ToTensor(), tv.Normalize(MEAN, STD)])
    expected = recipe(Image.open(photo).convert("RGB"))
    prepare = Preprocessing(interpolation=interpolation, upright=False)
    ours = prepare.evaluation(photo)
    assert ours.dtype == torch.uint8
    torch.testing.assert_close(prepare.normalise(ours[None])[0], expected, rtol=0, atol=1e-6)


def test_pixels_are_normalised_as_the_model_takes_them() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    prepare = Preprocessing(mean=(0.5, 0.4, 0.0), std=(0.5, 0.1, 2.0))
    assert prepare.normalise(pixels).flatten().tolist() == pytest.approx([-1, -2, 0.5])


def test_training_crops_and_flips_the_resized_image(photo: Path) -> None:
    prepare = Preprocessing(train_resize=256, interpolation="bilinear")
    whole = Preprocessing(size=256, interpolation="bilinear").evaluation(photo)
    windows = whole.unfold(1, 224, 1).unfold(2, 224, 1)
    flips = set()
    for seed in range(8):
        crop = prepare.training(photo, seed)
        assert crop.shape == (3, 224, 224)
        for flipped, image in ((False, crop), (True, crop.flip(2))):
            if (windows[:, :, :, :4, :4] == image[:, None, None, :4, :4]).all((0, 3, 4)).any():
                flips.add(flipped)
                break
        else:
            pytest.fail(f"the crop of seed {seed} is no part of the resized image")
    assert flips == {False, True}


def test_augmentation_is_a_function_of_the_seed(photo: Path) -> None:
    prepare = Preprocessing(train_resize=256)
    assert torch.equal(prepare.training(photo, 3), prepare.training(photo, 3))
    assert not torch.equal(prepare.training(photo, 3), prepare.training(photo, 4))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_the_fast_path_is_within_two_levels_of_the_exact_one(
    tmp_path: Path, interpolation: str
) -> None:
    scene().save(tmp_path / "x.jpg", quality=85)
    exact = Preprocessing(96, train_resize=110, interpolation=interpolation)
    fast = replace(exact, decode="fast")
    assert read_jpeg(tmp_path / "x.jpg", upright=True) is not None
    for one, other in (
        (exact.evaluation(tmp_path / "x.jpg"), fast.evaluation(tmp_path / "x.jpg")),
        (exact.training(tmp_path / "x.jpg", 5), fast.training(tmp_path / "x.jpg", 5)),
    ):
        difference = (one.float() - other.float()).abs()
        assert difference.max() <= 2 and difference.mean() < 0.1


@pytest.mark.parametrize("large", [0, decoding.LARGE])
def test_pixels_stay_when_the_next_file_is_read(
    tmp_path: Path, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "LARGE", large)
    first, second = scene().resize((96, 96)), scene().resize((96, 96)).rotate(180)
    first.save(tmp_path / "1.jpg")
    second.save(tmp_path / "2.jpg")
    fast = Preprocessing(96, decode="fast", flip=False)  # of the files' own size: nothing to resize
    for way in (fast.evaluation, lambda path: fast.training(path, 0)):
        pixels = way(tmp_path / "1.jpg")
        assert pixels.is_contiguous()
        before = pixels.clone()
        assert not torch.equal(way(tmp_path / "2.jpg"), before)
        assert torch.equal(pixels, before)


def test_photographs_differ_little_between_exact_and_fast(photos: Path) -> None:
    for path in sorted((photos / "images").iterdir())[:20]:
        exact, fast = (Preprocessing(decode=d).evaluation(path) for d in ("exact", "fast"))
        difference = (exact.float() - fast.float()).abs()
        assert difference.max() <= 2 and difference.mean() < 0.1


@pytest.mark.parametrize(
    ("config", "resize", "interpolation"),
    [
        ("ava_released", 224, Image.Resampling.BICUBIC),
        ("tad66k_released", 256, Image.Resampling.BILINEAR),
    ],
)
def test_released_configs_prepare_photographs_byte_for_byte(
    photos: Path, config: str, resize: int, interpolation: Image.Resampling
) -> None:
    options = parse_train(["--config", str(Path(__file__).parents[2] / f"configs/{config}.yaml")])
    data = options.data
    prepare = Preprocessing(
        224,
        train_resize=data.train_resize,
        interpolation=resolve_model(options).data.interpolation,
        flip=data.flip,
        upright=data.upright,
        decode=data.decode,
        colours=data.colours,
    )
    for path in sorted((photos / "images").iterdir())[:40]:
        image = Image.open(path).convert("RGB")
        reference = np.asarray(image.resize((224, 224), interpolation))
        assert (prepare.evaluation(path).permute(1, 2, 0).numpy() == reference).all(), path
        resized = np.asarray(image.resize((resize, resize), interpolation))
        draw = np.random.default_rng(7)
        if draw.random() < 0.5:
            resized = resized[:, ::-1]
        top, left = draw.integers(0, resize - 224, size=2, endpoint=True)
        reference = resized[top : top + 224, left : left + 224]
        assert (prepare.training(path, 7).permute(1, 2, 0).numpy() == reference).all(), path
