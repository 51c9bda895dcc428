"""HEIF and raw photographs: what is taken of them, and what is told without the plugins."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from data.drawn import scene
from data.negatives import raw_file
from PIL import Image

from eat.data.decoding import ImageError, InMemory, read_image
from eat.data.transforms import Preprocessing

SENSOR = np.full((96, 128), 8000, np.uint16)
SENSOR[:, :64] = 40000  # the left half is bright


def jpeg(width: int, height: int) -> bytes:
    file = io.BytesIO()
    scene(width, height).save(file, "JPEG")
    return file.getvalue()


def heif(**options) -> bytes:
    plugin = pytest.importorskip("pillow_heif", reason="HEIF needs pillow-heif")
    file = io.BytesIO()
    plugin.from_pillow(scene()).save(file, quality=90, **options)
    return file.getvalue()


@pytest.mark.parametrize("suffix", ["heic", "jpg"])
def test_heif_is_read_by_its_content(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"x.{suffix}").write_bytes(heif())
    notes: list[str] = []
    image = read_image(tmp_path / f"x.{suffix}", upright=True, note=notes.append)
    assert np.abs(np.asarray(image).astype(int) - np.asarray(scene())).mean() < 4 and notes == []
    content = InMemory("x", (tmp_path / f"x.{suffix}").read_bytes())
    for way in ("exact", "fast"):
        how = Preprocessing(64, decode=way, colours="as_shown")
        assert torch.equal(how.evaluation(content), how.evaluation(tmp_path / f"x.{suffix}"))


@pytest.mark.parametrize(
    ("codes", "notes"),
    [((1, 13), []), ((12, 13), ["Display P3"]), ((9, 16), ["BT.2020 PQ"]), ((1, 18), ["HLG"])],
)
def test_colours_that_heif_gives_by_codes_are_told(
    codes: tuple[int, int], notes: list[str]
) -> None:
    told: list[str] = []
    coded = dict(zip(("color_primaries", "transfer_characteristics"), codes, strict=True))
    options = coded | {"matrix_coefficients": 6, "full_range_flag": 1}
    read_image(InMemory("x", heif(**options)), upright=True, note=told.append)
    told = [note.partition(" by code, ")[0] for note in told]
    assert told == [f"its colours are {name}" for name in notes]


def test_damaged_heif_is_told() -> None:
    with pytest.raises(ImageError, match=r"x: damaged or truncated \("):
        read_image(InMemory("x", heif()[:-900]), upright=True)


def test_a_raw_photograph_is_the_preview_of_the_camera() -> None:
    pytest.importorskip("rawpy", reason="raw photographs need rawpy")
    preview = jpeg(900, 600)
    photo = InMemory("x", raw_file(SENSOR, preview))
    expected = np.asarray(Image.open(io.BytesIO(preview)))
    assert (np.asarray(read_image(photo, upright=True)) == expected).all()
    turned = InMemory("x", raw_file(SENSOR, preview, orientation=6))
    assert (np.asarray(read_image(turned, upright=True)) == np.rot90(expected, -1)).all()
    assert (np.asarray(read_image(turned, upright=False)) == expected).all()


@pytest.mark.parametrize("preview", [b"", jpeg(160, 120)])
def test_a_raw_photograph_with_no_more_than_a_small_preview_is_developed(preview: bytes) -> None:
    pytest.importorskip("rawpy", reason="raw photographs need rawpy")
    image = np.asarray(read_image(InMemory("x", raw_file(SENSOR, preview)), upright=True))
    assert image.shape == (96, 128, 3)
    assert image[:, :60].mean() > 240 and 60 < image[:, 68:].mean() < 160
    turned = read_image(InMemory("x", raw_file(SENSOR, preview, orientation=6)), upright=True)
    assert (np.asarray(turned) == np.rot90(image, -1)).all()


@pytest.mark.parametrize("size", [500, 20000])
def test_a_damaged_raw_photograph_is_told(size: int) -> None:
    pytest.importorskip("rawpy", reason="raw photographs need rawpy")
    with pytest.raises(ImageError, match="x: (a raw photograph that|damaged or truncated)"):
        read_image(InMemory("x", raw_file(SENSOR)[:size]), upright=True)


@pytest.mark.parametrize(
    ("content", "package", "told"),
    [
        (b"\0\0\0\x18ftypheic" + bytes(99), "pillow_heif", "HEIF: reading it needs pillow-heif"),
        (raw_file(SENSOR, jpeg(9, 9)), "rawpy", "a raw photograph: reading it needs rawpy"),
        (b"\0\0\0\x18ftypcrx " + bytes(99), "rawpy", "a raw photograph: reading it needs rawpy"),
        (b"FUJIFILMCCD-RAW 0201", "rawpy", "a raw photograph: reading it needs rawpy"),
    ],
)
def test_without_a_plugin_the_extra_is_named(
    content: bytes, package: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImageError) as raised:
        read_image(InMemory("x", content), upright=True)
    assert str(raised.value) == f"x: {told}: pip install 'eat-iaa[photos]'"


FRAMES = [scene(), scene().rotate(180)]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("x.gif", "it has several pictures: the first one was taken"),
        ("x.png", "it has several pictures: the first one was taken"),
        ("x.webp", "it has several pictures: the first one was taken"),
        ("x.tif", "it has several pages: the first one was taken"),
        ("x.mpo", ""),  # whose further pictures belong to the first
    ],
)
def test_of_several_frames_or_pages_the_first_is_taken(
    name: str, told: str, tmp_path: Path
) -> None:
    options = {"append_images": FRAMES[1:], "save_all": True, "lossless": True}
    FRAMES[0].save(tmp_path / name, **options)
    with Image.open(tmp_path / name) as file:
        first = np.asarray(file.convert("RGB"))
    notes: list[str] = []
    image = read_image(tmp_path / name, upright=True, note=notes.append)
    assert (np.asarray(image) == first).all() and notes == ([told] if told else [])
    fast = Preprocessing(64, decode="fast")
    fast.evaluation(tmp_path / name, note=notes.append)
    assert notes == ([told] * 2 if told else [])
    FRAMES[0].save(tmp_path / name)
    read_image(tmp_path / name, upright=True, note=pytest.fail)
