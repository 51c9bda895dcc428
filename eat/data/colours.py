"""An image's colours to RGB: as its file stores them, or as a viewer shows them."""

import io
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from eat.config.pixels import Colours

Note = Callable[[str], None]  # takes what a user should know of how a photograph was read
ToRGB = Callable[[Image.Image], Image.Image]
Transform = ImageCms.ImageCmsTransform
LEVELS = 2  # of 255, by which a profile may differ from sRGB and still be taken for it
# Codes of ISO/IEC 23091-2 for primaries and transfer curves that are not sRGB's or near it.
PRIMARIES = {9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}
CURVES = {16: "PQ", 18: "HLG"}
PREMULTIPLIED = {"RGBa": "RGBA", "La": "LA"}


class UnsuitableError(ValueError):
    """An image that is sound, and of a kind that is not scored."""


def rgb_of(
    image: Image.Image, colours: Colours, note: Note | None = None
) -> tuple[ToRGB, Transform | None]:
    """What makes RGB of an image of 8 bits a channel, or of stripes of it.

    Args:
        colours: "as_stored" converts as PIL does, without regard to colour profiles, and leaves
            out transparency; "as_shown" converts from the embedded profile to sRGB (relative
            colorimetric, with black point compensation) and lays what is transparent on white.
        note: takes what a viewer would show in another way, and that a profile is damaged.

    Returns:
        Also what is left to do by ``in_srgb``, which may follow a resize: to convert RGB.
    """
    if colours == "as_stored" and note is None:
        return _as_stored, None
    if note is not None and (names := coded_colours(image)):
        note(f"its colours are {names} by code, without a profile: they are taken as sRGB")
    base = "L" if image.mode in ("1", "L", "LA", "La") else image.mode
    base = base if base in ("L", "CMYK") else "RGB"
    transform = transform_of(image.info.get("icc_profile"), base, colours, note)
    clear = image.has_transparency_data and _alpha(image).getextrema()[0] != 255
    if clear and colours == "as_stored" and note is not None:
        note("its transparency is left out, as it was in the model's training")
    if colours == "as_stored" or (not clear and (transform is None or base == "RGB")):
        return _as_stored, transform

    def as_shown(part: Image.Image) -> Image.Image:
        opaque = (_plain(part).convert("RGBA") if clear else part).convert(base)
        rgb = (opaque if base == "RGB" else in_srgb(opaque, transform)).convert("RGB")
        white = Image.new("RGB", rgb.size, "white")
        return Image.composite(rgb, white, _alpha(part)) if clear else rgb

    return as_shown, transform if base == "RGB" else None


def coded_colours(image: Image.Image) -> str:
    """The colours of a HEIF file that says by codes alone that they are not sRGB; else ""."""
    codes = {} if "icc_profile" in image.info else image.info.get("nclx_profile") or {}
    primaries = PRIMARIES.get(codes.get("color_primaries", 0))
    curve = CURVES.get(codes.get("transfer_characteristics", 0))
    return " ".join(filter(None, (primaries, curve)))


def transform_of(
    profile: bytes | None, mode: str, colours: Colours, note: Note | None = None
) -> Transform | None:
    """The transform from the profile of an image to sRGB; None if there is nothing to convert."""
    transform, problem = to_srgb(profile, mode) if profile else (None, "")
    if transform is not None and colours == "as_stored":
        problem = "its colour profile is not applied, nor was it in the model's training"
        transform = None
    if problem and note is not None:
        note(problem)
    return transform


def in_srgb(image: Image.Image, transform: Transform | None) -> Image.Image:
    """An image by the transform of its profile, as a copy."""
    return image if transform is None else ImageCms.applyTransform(image, transform) or image


def _as_stored(part: Image.Image) -> Image.Image:
    return _plain(part).convert("RGB")


def _plain(image: Image.Image) -> Image.Image:
    """An image whose colours are not multiplied by its transparency."""
    return image.convert(PREMULTIPLIED[image.mode]) if image.mode in PREMULTIPLIED else image


def _alpha(image: Image.Image) -> Image.Image:
    return _plain(image).convert("RGBA").getchannel("A")


@lru_cache(maxsize=16)
def to_srgb(profile: bytes, mode: str) -> tuple[Transform | None, str]:
    """The transform from a colour profile to sRGB, and what is wrong with the profile.

    Args:
        profile: as embedded in an image of ``mode``: RGB, L or CMYK.

    Returns:
        None for the transform, if the profile is sRGB, by whatever name, or cannot be used.
    """
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        fault = "its colour profile is damaged, or not one of its pixels: they are taken as sRGB"
        return None, fault
    if mode == "CMYK":
        return transform, ""
    steps = np.linspace(0, 255, 9 if mode == "RGB" else 256).astype(np.uint8)
    colours = np.stack(np.meshgrid(*[steps] * len(mode)), axis=-1).reshape(-1, 1, len(mode))
    probe = Image.fromarray(colours if mode == "RGB" else colours[..., 0])
    shown = np.asarray(in_srgb(probe, transform))
    moved = np.abs(shown.astype(int) - np.asarray(probe.convert("RGB")))
    return (None if moved.max() <= LEVELS else transform), ""
