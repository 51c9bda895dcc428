"""Colours as a viewer shows them: profiles and transparency, against their definitions."""

import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data.drawn import scene
from data.profiles import (
    SPACES,
    encoded,
    grey_profile,
    ink_profile,
    profile_of,
    shown_in_srgb,
)
from PIL import Image, ImageCms

from eat.data.colours import in_srgb
from eat.data.decoding import InMemory, decode, read_image, read_jpeg
from eat.data.transforms import Preprocessing, to_tensor

GREYS = np.arange(256, dtype=np.uint8).reshape(16, 16)
SHOWN = Preprocessing(64, colours="as_shown")
STORED = Preprocessing(64)  # of checkpoints that do not say


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def both(path: Path, colours: str = "as_shown") -> tuple[np.ndarray, list[str]]:
    """Pixels as PIL and as the fast path give them, which are the same; and what is noted."""
    notes: list[str] = []
    image = np.asarray(read_image(path, upright=True, colours=colours, note=notes.append))
    again: list[str] = []
    fast = decode(path, upright=True, colours=colours, fast=True, note=again.append)
    assert (np.asarray(in_srgb(fast.image(), fast.transform)) == image).all()
    assert again == notes
    return image.astype(float), notes


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
def test_a_wide_gamut_is_converted_to_srgb(name: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{suffix}"
    scene().save(
        path, icc_profile=profile_of(name), **({"lossless": True} if suffix == "webp" else {})
    )
    stored = np.asarray(Image.open(path).convert("RGB"))
    shown, notes = both(path)
    assert np.abs(shown - shown_in_srgb(stored, name)).max() < 2 and notes == []
    assert np.abs(shown - stored).max() > 10
    pixels, notes = both(path, "as_stored")
    assert (pixels == stored).all() and "colour profile is not applied" in notes[0]
    released = torch.tensor(np.asarray(Image.fromarray(stored).resize((64, 64), 3)))
    assert torch.equal(STORED.evaluation(path).permute(1, 2, 0), released)


@pytest.mark.parametrize("profile", [srgb(), b""])
def test_a_jpeg_of_srgb_by_whatever_name_is_left_as_it_is(profile: bytes, tmp_path: Path) -> None:
    scene().save(tmp_path / "x.jpg", icc_profile=profile)
    assert read_jpeg(tmp_path / "x.jpg", upright=True) is not None
    pixels, notes = both(tmp_path / "x.jpg")
    assert (pixels == np.asarray(Image.open(tmp_path / "x.jpg"))).all() and notes == []


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_is_converted_from_its_curve(mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(GREYS)
    image = (
        Image.fromarray(GREYS.astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    )
    image.save(tmp_path / "x.png", icc_profile=grey_profile(1.8))
    shown, _ = both(tmp_path / "x.png")
    assert np.abs(shown - encoded((GREYS / 255) ** 1.8)[..., None]).max() < 2


@pytest.mark.parametrize("suffix", ["tif", "jpg"])
def test_inks_are_converted_by_their_profile_and_without_one_as_pil_does(
    suffix: str, tmp_path: Path
) -> None:
    inks = Image.fromarray(np.full((16, 16, 4), (255, 0, 0, 0), np.uint8), "CMYK")
    inks.save(tmp_path / f"x.{suffix}", icc_profile=ink_profile())
    shown, _ = both(tmp_path / f"x.{suffix}")
    assert np.abs(shown - 184.5).max() < 3  # three quarters of the lightness, of no hue
    inks.save(tmp_path / f"x.{suffix}")
    shown, notes = both(tmp_path / f"x.{suffix}")
    assert np.abs(shown - (0, 255, 255)).max() < 3 and notes == []


@pytest.mark.parametrize("profile", [b"junk", profile_of("Display P3")[:300], grey_profile(1.8)])
def test_a_profile_that_cannot_be_used_is_told(profile: bytes, tmp_path: Path) -> None:
    scene().save(tmp_path / "x.jpg", icc_profile=profile)
    pixels, notes = both(tmp_path / "x.jpg")
    assert (pixels == np.asarray(Image.open(tmp_path / "x.jpg"))).all()
    assert notes == [
        "its colour profile is damaged, or not one of its pixels: they are taken as sRGB"
    ]


def see_through(mode: str) -> Image.Image:
    """A picture whose left half is transparent, of a colour that nobody sees."""
    pixels = np.full((16, 16, 4), (200, 0, 0, 255), np.uint8)
    pixels[:, :8] = (0, 0, 200, 0)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize(
    ("name", "mode"), [("x.png", "RGBA"), ("x.png", "LA"), ("x.webp", "RGBA"), ("x.tif", "RGBA"),
                       ("x.gif", "RGBA"), ("x.png", "PA")],
)  # fmt: skip
def test_what_is_transparent_lies_on_white(name: str, mode: str, tmp_path: Path) -> None:
    image = see_through("LA" if mode == "LA" else "RGBA")
    if mode == "PA":
        image = image.quantize(4)
    image.save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    shown, notes = both(tmp_path / name)
    assert (shown[:, :8] == 255).all() and notes == []
    assert (shown[:, 8:] == np.asarray(Image.open(tmp_path / name).convert("RGB"))[:, 8:]).all()
    stored, notes = both(tmp_path / name, "as_stored")
    assert (stored == np.asarray(Image.open(tmp_path / name).convert("RGB"))).all()
    assert notes == ["its transparency is left out, as it was in the model's training"]


def test_a_transparent_colour_is_compared_in_all_its_bits(tmp_path: Path) -> None:
    values = np.arange(0x1200, 0x1200 + 256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "grey.png", transparency=0x1203)
    shown, _ = both(tmp_path / "grey.png")
    assert shown[0, 3].tolist() == [255] * 3 and (shown[0, 4:] == 0x12).all()
    palette = scene().quantize(8)
    palette.save(tmp_path / "palette.png", transparency=bytes([0, 128]))
    shown, _ = both(tmp_path / "palette.png")
    assert (shown[np.asarray(palette) == 0] == 255).all()


def png(header: bytes, **chunks: bytes) -> bytes:
    parts = {"IHDR": header} | chunks | {"IEND": b""}
    found = b"\x89PNG\r\n\x1a\n"
    for kind, data in parts.items():
        body = kind.encode() + data
        found += struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
    return found


def test_a_transparent_colour_of_sixteen_bits_lies_on_white(tmp_path: Path) -> None:
    red, other = (0xFF12, 0, 0), (0x1234, 0x5678, 0x9ABC)
    row = zlib.compress(b"\0" + struct.pack(">6H", *red, *other))
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    (tmp_path / "x.png").write_bytes(png(header, tRNS=struct.pack(">3H", *red), IDAT=row))
    shown, _ = both(tmp_path / "x.png")
    assert shown.tolist() == [[[255, 255, 255], [0x12, 0x56, 0x9A]]]


def test_an_opaque_alpha_changes_nothing(tmp_path: Path) -> None:
    scene().convert("RGBA").save(tmp_path / "x.png")
    for colours in ("as_shown", "as_stored"):
        pixels, notes = both(tmp_path / "x.png", colours)
        assert (pixels == np.asarray(scene())).all() and notes == []


def test_large_pictures_are_converted_by_stripes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eat.data.decoding.STRIPE", 7)
    image = scene().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save(tmp_path / "x.png", icc_profile=profile_of("ProPhoto RGB"))
    both(tmp_path / "x.png")


def test_an_image_of_the_user_stays_as_it_was(tmp_path: Path) -> None:
    scene().save(tmp_path / "x.png", icc_profile=profile_of("Display P3"))
    image = Image.open(tmp_path / "x.png")
    given, file = InMemory("image", image), tmp_path / "x.png"
    before = np.asarray(image).copy()
    shown = to_tensor(read_image(given, upright=True))
    assert (np.asarray(image) == before).all() and image.info["icc_profile"]
    assert torch.equal(shown, to_tensor(read_image(file, upright=True)))
    for way in ("exact", "fast"):
        how = replace(SHOWN, decode=way)
        assert torch.equal(how.evaluation(given), how.evaluation(file))


def test_colours_are_the_same_before_and_after_the_resize(tmp_path: Path) -> None:
    scene().save(tmp_path / "x.jpg", icc_profile=profile_of("Display P3"))
    first = read_image(tmp_path / "x.jpg", upright=True).resize((64, 64), 3)
    for way in ("exact", "fast"):
        pixels = replace(SHOWN, decode=way).evaluation(tmp_path / "x.jpg").permute(1, 2, 0)
        assert np.abs(pixels.numpy().astype(int) - np.asarray(first)).mean() < 1
