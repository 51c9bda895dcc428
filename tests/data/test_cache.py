"""The pixel cache: bit for bit the images themselves, and refused where it would not be."""

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from eat.cli import main
from eat.config import TrainConfig
from eat.data import cache as module
from eat.data.cache import CachedPixels, CacheError, cache_path, read_contents
from eat.data.dataset import AestheticsDataset, TrainBatches, make_loader
from eat.data.prepare import prepare
from eat.data.transforms import ImageError, Preprocessing

COUNT = 12


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of twelve images in three formats, one grey, one turned, and their labels."""
    (tmp_path / "images" / "part").mkdir(parents=True)
    draw = np.random.default_rng(0)
    names = []
    for i in range(COUNT):
        suffix = ("jpg", "png", "webp")[i % 3]
        image = Image.fromarray(draw.integers(0, 256, (70 + i, 90, 3), dtype=np.uint8))
        tags = image.getexif()
        if i == 3:
            tags[0x0112] = 6
        image = image.convert("L") if i == 6 else image
        names.append(f"part/{i}.{suffix}")
        image.save(tmp_path / "images" / names[-1], exif=tags)
    split = ["train"] * 8 + ["test"] * 4
    table = pd.DataFrame({"image": names, "score": np.linspace(2, 9, COUNT), "split": split})
    table.to_csv(tmp_path / "labels.csv", index=False)
    return tmp_path


def make(folder: Path, sides: int | list[int] = 64, **options):
    """The report of a preparation that caches."""
    return prepare(
        "table",
        str(folder / "labels.csv"),
        str(folder / "images"),
        str(folder / "out"),
        workers=2,
        cache=sides,
        **options,
    )


def names(folder: Path) -> list[str]:
    return pd.read_csv(folder / "labels.csv")["image"].tolist()


def opened(folder: Path, how: Preprocessing, *, training: bool = False) -> CachedPixels:
    """The cache of the fixture, for all its images."""
    return CachedPixels(folder / "out", how, folder / "images", names(folder), training=training)


@pytest.mark.parametrize("decode", ["exact", "fast"])
@pytest.mark.parametrize("crop", [None, 72])
def test_pixels_equal_those_of_the_files_bit_for_bit(
    photos: Path, decode: str, crop: int | None
) -> None:
    make(photos, [64, 72], decode=decode)
    how = Preprocessing(64, crop, decode=decode)
    evaluation, training = opened(photos, how), opened(photos, how, training=True)
    for seed, name in enumerate(names(photos)):
        path = photos / "images" / name
        assert torch.equal(evaluation.evaluation(path), how.evaluation(path))
        assert torch.equal(training.training(path, seed), how.training(path, seed))


def test_a_cache_is_a_numpy_file_with_a_description(photos: Path) -> None:
    report = make(photos)
    path = cache_path(photos / "out", 64)
    assert np.load(path, mmap_mode="r").shape == (COUNT, 3, 64, 64)
    contents = read_contents(path)
    assert contents.images == names(photos) and contents.side == 64
    assert f"cache {path}: 12 images, 0.00 GB: train with --data.cache" in report.summary()
    assert not list((photos / "out").glob(".*"))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_loading_processes_read_it_however_they_start(photos: Path, start: str) -> None:
    make(photos)
    how = Preprocessing(64, decode="fast")
    table = pd.read_csv(photos / "labels.csv")
    target = torch.zeros(COUNT, 1)
    batches = {}
    for kind, pixels in (("files", how), ("cache", opened(photos, how, training=True))):
        data = AestheticsDataset(table, photos / "images", target, pixels)
        data[0]  # the mapping is open before the processes start
        workers = 0 if kind == "files" else 1
        loader = make_loader(data, TrainBatches(COUNT, 5, seed=1), workers)
        if workers:
            loader.multiprocessing_context = multiprocessing.get_context(start)
        batches[kind] = list(loader)
    for one, other in zip(batches["files"], batches["cache"], strict=True):
        assert torch.equal(one["pixels"], other["pixels"])
        assert torch.equal(one["row"], other["row"])


def test_what_is_sent_to_another_process_is_no_copy_of_the_pixels(photos: Path) -> None:
    make(photos)
    pixels = opened(photos, Preprocessing(64, decode="fast"))
    pixels.evaluation(photos / "images" / "part/0.jpg")
    assert len(pickle.dumps(pixels)) < 5000 < pixels.pixels.numel()


def test_results_can_be_written_to_without_touching_the_cache(photos: Path) -> None:
    make(photos)
    path = photos / "images" / "part/0.jpg"
    for training in (False, True):
        pixels = opened(photos, Preprocessing(64, decode="fast", flip=False), training=training)
        first = pixels.training(path, 0) if training else pixels.evaluation(path)
        kept = first.clone()
        first.zero_()
        again = pixels.training(path, 0) if training else pixels.evaluation(path)
        assert torch.equal(again, kept) and again.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"interpolation": "bilinear"}, "data.interpolation bicubic, not bilinear"),
        ({"upright": False}, "data.upright True, not False"),
        ({"decode": "exact"}, "data.decode fast, not exact"),
        (
            {"size": 96},
            "cache-96.npy: no such cache; found cache-64.npy; make .*--cache 96",
        ),
    ],
)
def test_another_preprocessing_is_refused_by_what_differs(
    photos: Path, change: dict, message: str
) -> None:
    make(photos)
    with pytest.raises(CacheError, match=message):
        opened(photos, replace(Preprocessing(64, decode="fast"), **change))


def test_a_crop_wants_the_cache_of_its_side_in_training_alone(photos: Path) -> None:
    make(photos)
    how = Preprocessing(64, 72, decode="fast")
    opened(photos, how)
    with pytest.raises(CacheError, match="cache-72.npy: no such cache"):
        opened(photos, how, training=True)


def test_images_that_are_not_in_it_or_not_its_own_are_refused(photos: Path) -> None:
    make(photos)
    how, images = Preprocessing(64, decode="fast"), photos / "images"
    with pytest.raises(CacheError, match="lacks 1 of 2 images, such as new.jpg; make the cache"):
        CachedPixels(photos / "out", how, images, ["part/0.jpg", "new.jpg"], training=False)
    shutil.copy(images / "part/1.png", images / "part/0.jpg")
    with pytest.raises(CacheError, match=r"made from other images: .*0.jpg had \d+ bytes, and now"):
        opened(photos, how)


def test_broken_images_are_not_in_it_and_named_when_asked_for(photos: Path) -> None:
    images = photos / "images" / "part"
    (images / "0.jpg").write_bytes(b"")
    (images / "9.jpg").unlink()
    report = make(photos)
    assert report.problems["empty"] == ["part/0.jpg"] and "2 broken ones" in report.summary()
    path = cache_path(photos / "out", 64)
    assert np.load(path, mmap_mode="r").shape[0] == COUNT - 2
    pixels = opened(photos, Preprocessing(64, decode="fast"))
    with pytest.raises(ImageError, match="part/0.jpg: not in .*cache-64.npy, where it was: empty"):
        pixels.evaluation(images / "0.jpg")
    with pytest.raises(ImageError, match="9.jpg: not in .*: missing"):
        pixels.training(images / "9.jpg", 3)


def test_a_second_call_writes_only_what_changed(photos: Path) -> None:
    make(photos)
    path = cache_path(photos / "out", 64)
    before = path.stat().st_ino
    make(photos)
    assert path.stat().st_ino == before
    make(photos, decode="exact")
    assert read_contents(path).decode == "exact"
    Image.new("RGB", (80, 80), "red").save(photos / "images" / "part/0.jpg")
    make(photos, decode="exact")
    pixels = opened(photos, Preprocessing(64)).evaluation(photos / "images" / "part/0.jpg")
    assert (pixels[0] > 250).all() and (pixels[1:] < 5).all()


def test_a_file_that_is_cut_short_is_refused_and_made_again(photos: Path) -> None:
    make(photos)
    path = cache_path(photos / "out", 64)
    whole = path.read_bytes()
    for cut in (whole[:-1], whole[:100], b""):
        path.write_bytes(cut)
        with pytest.raises(CacheError, match="cut short"):
            read_contents(path)
    make(photos)
    assert path.read_bytes() == whole


def test_a_full_disk_is_found_before_anything_is_written(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(photos)._replace(free=1000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(CacheError, match="12 images of 64 pixels take 0.0 GB, and 0.0 GB are free"):
        make(photos)
    assert not list((photos / "out").glob("*cache*"))


def test_a_killed_call_leaves_no_cache_and_the_next_one_makes_it(photos: Path) -> None:
    code = (
        "import time; from eat.data import cache; from eat.data.transforms import Preprocessing\n"
        "whole = Preprocessing.evaluation\n"
        "def slow(self, path): time.sleep(0.3); return whole(self, path)\n"
        "Preprocessing.evaluation, cache.CHUNK = slow, 1\n"
        "from eat.data.prepare import prepare\n"
        "prepare('table', 'labels.csv', 'images', 'out', workers=1, cache=64)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=photos, start_new_session=True)
    partial = photos / "out" / ".cache-64.npy.partial"
    deadline = time.monotonic() + 30
    while not partial.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert partial.exists() and not cache_path(photos / "out", 64).exists()
    make(photos)
    assert not partial.exists() and read_contents(cache_path(photos / "out", 64)).images


def test_a_run_from_the_cache_is_the_run_from_the_files(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from eat.checkpoint import load_checkpoint
    from eat.training.trainer import train

    argv = ["prepare", "sample", "--labels", config.data.labels, "--images", config.data.images]
    assert main([*argv, "--out", str(tmp_path / "out"), "--cache", "[64,72]"]) == 0
    config.data.train_resize, config.optim.epochs = 72, 1
    weights, metrics = [], []
    for cache in (None, str(tmp_path / "out")):
        config.data.cache, config.run.folder = cache, str(tmp_path / f"run-{bool(cache)}")
        folder, _ = train(config)
        best = folder / "checkpoints" / "best.safetensors"
        weights.append(load_checkpoint(best)[0].state_dict())
        for argv in ([], ["--cache", str(tmp_path / "out")]):
            assert main(["evaluate", str(best), "--samples", "0", *argv]) == 0
            metrics.append(json.loads((folder / "eval" / "metrics.json").read_text())["metrics"])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert all(found == metrics[0] for found in metrics)


def test_too_small_a_side_is_refused(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["prepare", "table", "--labels", str(photos / "labels.csv"), "--out", str(photos / "o")]
    assert main([*argv, "--images", str(photos / "images"), "--cache", "16"]) == 2
    assert "cache is 16: expected sides of at least 64 pixels" in capsys.readouterr().err
