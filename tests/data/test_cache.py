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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from eat.cli import main
from eat.config import TrainConfig
from eat.config.commands import PrepareOptions
from eat.data import cache as module
from eat.data.cache import OLD_MARK, CachedPixels, CacheError, cache_path, read_contents
from eat.data.decoding import ImageError
from eat.data.loading import TrainBatches, loaded, make_loader
from eat.data.prepare import Report, prepare
from eat.data.transforms import Preprocessing

COUNT = 12
shown = partial(Preprocessing, colours="as_shown")  # as ``prepare`` has it


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


def make(folder: Path, sides: int | list[int] = 64, **options: Any) -> Report:
    """The report of a preparation that caches."""
    places = (str(folder / name) for name in ("labels.csv", "images", "out"))
    return prepare("table", PrepareOptions(*places, **{"workers": 1, "cache": sides} | options))


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
    make(photos, [64, 72], decode=decode, workers=2)
    how = shown(64, train_resize=crop, decode=decode)
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
    assert json.loads(path.with_suffix(".json").read_text())["images"] == names(photos)
    assert f"cache {path}: 12 images, 0.00 GB: train with --data.cache" in report.summary()
    assert not list((photos / "out").glob(".*"))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_loading_processes_read_it_however_they_start(photos: Path, start: str) -> None:
    make(photos)
    how = shown(64, decode="fast")
    table = pd.read_csv(photos / "labels.csv")
    target = torch.zeros(COUNT, 1)
    given = table, photos / "images", target, how, TrainBatches(COUNT, 5, seed=1)
    files = make_loader(*given, 0)
    cached = make_loader(*given, 1, cache=photos / "out", training=True)
    cached.dataset[0]  # the file is open before the processes start
    cached.multiprocessing_context = multiprocessing.get_context(start)
    for one, other in zip(files, cached, strict=True):
        assert torch.equal(one["pixels"], other["pixels"])
        assert torch.equal(one["row"], other["row"])


def test_what_is_sent_to_another_process_is_no_copy_of_the_pixels(photos: Path) -> None:
    make(photos)
    pixels = opened(photos, shown(64, decode="fast"))
    pixels.evaluation(photos / "images" / "part/0.jpg")
    copy = pickle.loads(pickle.dumps(pixels))
    assert len(pickle.dumps(pixels)) < 5000 < pixels.path.stat().st_size
    path = photos / "images" / "part/1.png"
    assert torch.equal(copy.evaluation(path), pixels.evaluation(path))


def test_results_can_be_written_to_without_touching_the_cache(photos: Path) -> None:
    make(photos)
    path = photos / "images" / "part/0.jpg"
    for training in (False, True):
        pixels = opened(photos, shown(64, decode="fast", flip=False), training=training)
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
        ({"colours": "as_stored"}, "data.colours as_shown, not as_stored"),
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
        opened(photos, replace(shown(64, decode="fast"), **change))


def test_a_crop_wants_the_cache_of_its_side_in_training_alone(photos: Path) -> None:
    make(photos)
    how = shown(64, train_resize=72, decode="fast")
    opened(photos, how)
    with pytest.raises(CacheError, match="cache-72.npy: no such cache"):
        opened(photos, how, training=True)


def test_a_cache_under_the_name_of_another_side_is_refused(photos: Path) -> None:
    make(photos, 72)
    for path in (photos / "out").glob("cache-72.*"):
        path.rename(path.with_name(path.name.replace("72", "64")))
    with pytest.raises(CacheError, match="cache-64.npy: holds images of 72 pixels; make the cache"):
        opened(photos, shown(64, decode="fast"))


def test_images_that_are_not_in_it_or_not_its_own_are_refused(photos: Path) -> None:
    make(photos)
    how, images = shown(64, decode="fast"), photos / "images"
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
    pixels = opened(photos, shown(64, decode="fast"))
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
    pixels = opened(photos, shown(64)).evaluation(photos / "images" / "part/0.jpg")
    assert (pixels[0] > 250).all() and (pixels[1:] < 5).all()


def test_a_file_that_is_cut_short_is_refused_and_made_again(photos: Path) -> None:
    make(photos)
    path = cache_path(photos / "out", 64)
    whole = path.read_bytes()
    for cut in (whole[:-1], whole[:100], b""):
        path.write_bytes(cut)
        with pytest.raises(CacheError, match="cache-64.npy: cut short"):
            read_contents(path)
    make(photos)
    assert path.read_bytes() == whole


def test_a_file_that_is_cut_short_under_a_run_is_an_error(photos: Path) -> None:
    make(photos)
    table = pd.read_csv(photos / "labels.csv")
    how, batches = shown(64, decode="fast"), [[i] for i in range(COUNT)]
    path = cache_path(photos / "out", 64)
    whole = path.read_bytes()
    for workers in (0, 1):
        path.write_bytes(whole)
        loader = make_loader(table, photos / "images", torch.zeros(COUNT, 1), how, batches, workers,
                             cache=photos / "out")  # fmt: skip
        loader.dataset[0]  # opens the file
        os.truncate(path, len(whole) // 2)
        with pytest.raises(CacheError, match="^[^\n]*cache-64.npy: was cut short .* again [^\n]*$"):
            list(loaded(loader))


def test_a_cache_that_is_made_anew_under_a_run_is_an_error(photos: Path) -> None:
    make(photos)
    pixels = opened(photos, shown(64, decode="fast"))
    make(photos, decode="exact")
    with pytest.raises(CacheError, match="cache-64.npy: was changed after this run began"):
        pixels.evaluation(photos / "images" / "part/0.jpg")


def test_a_cache_of_an_older_version_or_without_its_description_is_refused(photos: Path) -> None:
    make(photos)
    path = cache_path(photos / "out", 64)
    path.with_suffix(".json").unlink()
    with pytest.raises(CacheError, match="incomplete, without cache-64.json; make it again"):
        read_contents(path)
    with path.open("ab") as file:
        file.write(b"{}" + (2).to_bytes(8, "little") + OLD_MARK)
    with pytest.raises(CacheError, match="made by an older version; make it again with eat prep"):
        read_contents(path)
    make(photos)
    assert read_contents(path).images == names(photos)


@pytest.mark.parametrize("columns", [["images"], ["images", "digests"], ["digests"]])
def test_a_list_of_images_that_is_not_that_of_the_pixels_is_refused(
    photos: Path, columns: list[str]
) -> None:
    make(photos)
    path = cache_path(photos / "out", 64)
    note = path.with_suffix(".json")
    content = json.loads(note.read_text())
    note.write_text(json.dumps(content | {name: content[name][::-1] for name in columns}))
    with pytest.raises(CacheError, match="cache-64.json: its list of images is not the one that"):
        read_contents(path)


def test_damaged_or_swapped_pixels_are_an_error_and_made_again(photos: Path) -> None:
    make(photos, 65)  # of 3 x 65 x 65 bytes, which are no whole words
    path = cache_path(photos / "out", 65)
    whole = path.read_bytes()
    start = len(whole) - COUNT * 3 * 65**2
    row = 3 * 65**2
    one, last = bytearray(whole), bytearray(whole)
    one[start + row // 2] ^= 1
    last[start + row - 1] ^= 1
    swapped = whole[:start] + whole[start + row : start + 2 * row] + whole[start:][:row]
    for content in (one, last, swapped + whole[len(swapped) :], whole[:start].ljust(len(whole))):
        path.write_bytes(content)
        pixels = opened(photos, shown(65, decode="fast"))
        with pytest.raises(CacheError, match="cache-65.npy: other or damaged .*0.jpg; make the"):
            pixels.evaluation(photos / "images" / "part/0.jpg")
    make(photos, 65)
    assert path.read_bytes() == whole


def test_a_cache_of_a_version_without_colours_holds_them_as_stored(photos: Path) -> None:
    make(photos, colours="as_stored")
    path = photos / "out" / "cache-64.json"
    contents = json.loads(path.read_text())
    assert contents.pop("colours") == "as_stored"
    path.write_text(json.dumps(contents))
    assert read_contents(path.with_suffix(".npy")).colours == "as_stored"


JUNK = [
    b"", b"\xff\x00", b"[]", b"null", b"{}", b"[" * 10**5,
    {"side": "64"}, {"side": True}, {"side": -1}, {"upright": 1}, {"decode": None}, {"broken": []},
    {"colours": "red"},
    {"broken": {"a": 1}}, {"images": "abc"}, {"images": [1]}, {"bytes": [1.5] * COUNT},
    {"digests": []}, {"fingerprint": 3}, {"more": 1}, {"side": 10**9}, {"interpolation": "x" * 999},
    {"sums": [-1] * COUNT}, {"sums": [2**64] * COUNT}, {"sums": []}, b"9" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: str(junk)[:30])
def test_a_description_of_another_shape_is_refused(photos: Path, junk: bytes | dict) -> None:
    path = photos / "cache-64.npy"
    path.write_bytes(b"x")
    sound = {
        "side": 64, "interpolation": "bicubic", "upright": True, "decode": "fast", "broken": {},
        "images": ["a"] * COUNT, "bytes": [1] * COUNT, "digests": ["d"] * COUNT, "fingerprint": "",
        "sums": [0] * COUNT,
    }  # fmt: skip
    content = junk if isinstance(junk, bytes) else json.dumps(sound | junk).encode()
    path.with_suffix(".json").write_bytes(content)
    with pytest.raises(CacheError, match="cache-64.json: (not the desc|its list of)") as raised:
        read_contents(path)
    assert len(str(raised.value)) < 500


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
        "from eat.config.commands import PrepareOptions; from eat.data.prepare import prepare\n"
        "prepare('table', PrepareOptions('labels.csv', 'images', 'out', workers=1, cache=64))"
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


def test_names_that_no_file_can_have_are_a_damaged_description(photos: Path) -> None:
    make(photos)
    note = cache_path(photos / "out", 64).with_suffix(".json")
    note.write_text(note.read_text().replace("part/0.jpg", "\\ud800"))
    with pytest.raises(CacheError, match="cache-64.json: not the description of a cache .'utf-8'"):
        read_contents(note.with_suffix(".npy"))


def test_too_small_a_side_is_refused(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["prepare", "table", "--labels", str(photos / "labels.csv"), "--out", str(photos / "o")]
    assert main([*argv, "--images", str(photos / "images"), "--cache", "16"]) == 2
    assert "cache is 16: expected 64 to 16384" in capsys.readouterr().err
