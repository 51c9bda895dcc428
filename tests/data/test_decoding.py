"""Decoding: what is read, to which pixels, and what is refused by name."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from data.drawn import noise, scene
from PIL import EpsImagePlugin, Image

from eat.data import decoding
from eat.data.colours import rgb_of
from eat.data.decoding import ImageError, read_image
from eat.data.transforms import Preprocessing, to_tensor


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return noise(tmp_path / "photo.jpg")


def test_upright_turns_by_exif_orientation(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), "red")
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg", upright=True).size == (20, 40)
    assert read_image(tmp_path / "turned.jpg", upright=False).size == (40, 20)


def test_broken_files_are_named_with_what_is_wrong(photo: Path, tmp_path: Path) -> None:
    broken = {
        "cut.jpg": (photo.read_bytes()[:2000], "damaged or truncated"),
        "empty.jpg": (b"", "an empty file"),
        "text.jpg": (b"no picture", "not an image"),
    }
    for name, (content, reason) in broken.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=f"{name}: {reason}"):
            read_image(tmp_path / name, upright=True)
    with pytest.raises(ImageError, match="absent.jpg: no such file"):
        read_image(tmp_path / "absent.jpg", upright=True)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_every_colour_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    suffix = "tif" if mode == "CMYK" else "png"
    Image.new("RGB", (8, 8), "white").convert(mode).save(tmp_path / f"x.{suffix}")
    image = read_image(tmp_path / f"x.{suffix}", upright=True)
    assert image.mode == "RGB" and image.getpixel((4, 4)) == (255, 255, 255)


GREY = np.arange(0, 2**16, 5957).reshape(3, 4)  # of 16 bits


@pytest.mark.parametrize(
    ("name", "kind"), [("x.png", "<u2"), ("x.tif", "<u2"), ("x.tif", ">u2"), ("x.pgm", "<u2")]
)
def test_sixteen_bits_of_grey_are_scaled_to_eight(name: str, kind: str, tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(kind)).save(tmp_path / name)
    assert (np.array(read_image(tmp_path / name, upright=True)) == GREY[..., None] >> 8).all()
    fast = Preprocessing(decode="fast").read(tmp_path / name).pixels
    assert (fast.numpy() == GREY >> 8).all()


def tiff(path: Path, bits: int, *, black: int = 1, sample: int = 1) -> None:
    """A grey TIFF of 8 x 2 zeros, with tags that PIL does not write."""
    size = 16 * bits // 8
    tags = {256: 8, 257: 2, 258: bits, 262: black, 273: 200, 278: 2, 279: size, 339: sample}
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries
    path.write_bytes(head.ljust(200, b"\0") + bytes(size))


def test_pixels_without_a_defined_range_are_refused(tmp_path: Path) -> None:
    for kind in (np.float32, np.int32):
        Image.fromarray(GREY.astype(kind)).save(tmp_path / f"{kind.__name__}.tif")
    tiff(tmp_path / "twelve.tif", 12)
    tiff(tmp_path / "signed.tif", 16, sample=2)
    tiff(tmp_path / "inverted.tif", 16, black=0)
    for path in sorted(tmp_path.iterdir()):
        for decode in ("exact", "fast"):
            with pytest.raises(ImageError, match=f"{path.name}: grey of mode .* a defined range"):
                Preprocessing(decode=decode).evaluation(path)
    tiff(tmp_path / "sound.tif", 16)
    assert not np.array(read_image(tmp_path / "sound.tif", upright=True)).any()


@pytest.mark.parametrize("kind", ["u1", "u2"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_raw_grey_is_turned_as_colours_are(suffix: str, kind: str, tmp_path: Path) -> None:
    pixels = GREY.astype(kind)
    image, high = Image.fromarray(pixels), pixels >> (8 if kind == "u2" else 0)
    tags = image.getexif()
    tags[0x0112] = 6  # turned by 90 degrees
    image.save(tmp_path / f"x.{suffix}", exif=tags)
    turned = np.array(read_image(tmp_path / f"x.{suffix}", upright=True))
    assert (turned == np.rot90(high, -1)[..., None]).all()


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "endless.jpg").symlink_to("/dev/zero")
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(decoding.MOST_BYTES + 1)
    reasons = {"pipe": "a pipe", "endless": "a pipe", "circle": "", "huge": "1,000.0 MB: exp"}
    for name, reason in reasons.items():
        for decode in ("exact", "fast"):
            with pytest.raises(ImageError, match=f"{name}.jpg.*{reason}"):
                Preprocessing(decode=decode).evaluation(tmp_path / f"{name}.jpg")


ODD = {
    "turned.jpg": {"exif": {0x0112: 6}},
    "mirrored.jpg": {"exif": {0x0112: 5}},
    "tagged.jpg": {"exif": {0x0112: 1}},
    "cmyk.jpg": {"mode": "CMYK"},
    "grey.jpg": {"mode": "L"},
    "progressive.jpg": {"progressive": True},
    "rgb.jpg": {"keep_rgb": True},
    "palette.png": {"mode": "P"},
    "alpha.webp": {"mode": "RGBA"},
}


@pytest.mark.parametrize("upright", [True, False])
@pytest.mark.parametrize("name", ODD)
def test_the_fast_path_reads_odd_files_as_pil_does(
    name: str, upright: bool, tmp_path: Path
) -> None:
    options = dict(ODD[name])
    image = scene().convert(options.pop("mode", "RGB"))
    if "exif" in options:
        tags = image.getexif()
        tags.update(options["exif"])
        options["exif"] = tags
    image.save(tmp_path / name, **options)
    photo = Preprocessing(decode="fast", upright=upright).read(tmp_path / name).pixels
    expected = to_tensor(read_image(tmp_path / name, upright=upright))
    assert torch.equal(photo, expected)


def test_the_fast_path_takes_and_refuses_the_files_that_pil_does(
    photo: Path, tmp_path: Path
) -> None:
    fast = Preprocessing(decode="fast")
    content = photo.read_bytes()
    (tmp_path / "trailing.jpg").write_bytes(content + b"more")
    (tmp_path / "inner.jpg").write_bytes(content[:-600] + b"\0" * 40 + content[-560:])
    for name in ("trailing.jpg", "inner.jpg"):
        expected = to_tensor(read_image(tmp_path / name, upright=True))
        assert torch.equal(fast.read(tmp_path / name).pixels, expected)
    for name, bad in {"cut.jpg": content[:2000], "empty.jpg": b"", "head.jpg": b"\xff\xd8"}.items():
        (tmp_path / name).write_bytes(bad)
        with pytest.raises(ImageError, match=name):
            fast.evaluation(tmp_path / name)
    with pytest.raises(ImageError, match="absent.jpg: no such file"):
        fast.evaluation(tmp_path / "absent.jpg")


def test_a_huge_jpeg_is_left_to_the_limit_of_pil(
    photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match="photo.jpg: .*exceeds limit"):
        Preprocessing(decode="fast").evaluation(photo)


def test_a_huge_picture_of_a_format_that_takes_more_memory_is_refused(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.open(photo).save(tmp_path / "a.webp")
    width, height = Image.open(photo).size
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", width * height - 1)  # PIL: twice as many
    with pytest.raises(ImageError, match=f"a.webp: {width} x {height} pixels in format WEBP"):
        Preprocessing().evaluation(tmp_path / "a.webp")


def test_a_format_that_runs_a_program_is_refused_whatever_its_suffix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", pytest.fail)
    scene().save(tmp_path / "a.jpg", "EPS")
    with pytest.raises(ImageError, match="a.jpg: of format EPS: expected AVIF, BMP.*; convert it"):
        read_image(tmp_path / "a.jpg", upright=True)


def test_stripes_of_an_image_are_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "STRIPE", 7)
    assert (decoding.to_array(scene(), rgb_of(scene(), "as_shown")[0]) == np.asarray(scene())).all()


def test_floats_of_any_format_and_what_decoders_do_not_know_are_told(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "x.pfm")
    with pytest.raises(ImageError, match="x.pfm: grey of mode F without a defined range"):
        read_image(tmp_path / "x.pfm", upright=True)
    head = struct.pack("<4sII4s", b"DDS ", 124, 0x1007, bytes(4)) + bytes(112)
    (tmp_path / "x.jpg").write_bytes(head.ljust(128, b"\7"))
    with pytest.raises(ImageError, match="x.jpg: (damaged|not an image)"):
        read_image(tmp_path / "x.jpg", upright=True)
    Image.new("LAB", (4, 4)).save(tmp_path / "x.tif")
    with pytest.raises(ImageError, match="x.tif: colours of mode LAB: expected RGB"):
        read_image(tmp_path / "x.tif", upright=True)
