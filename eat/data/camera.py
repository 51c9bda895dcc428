"""Photographs as phones and cameras write them, which PIL does not read by itself: HEIF and raw."""

import io
import struct
from typing import Any, BinaryIO

from PIL import ExifTags, Image

from eat.data.colours import UnsuitableError

HEIF_SUFFIXES = {".heic", ".heif", ".hif"}
RAW_SUFFIXES = {".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".iiq", ".nef", ".nrw", ".orf",
                ".pef", ".raf", ".rw2", ".rwl", ".srw", ".x3f"}  # fmt: skip
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
# How raw files begin: those of Fuji, Olympus, Panasonic, Sigma; Canon's and Phase One's at byte 8.
RAW_STARTS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb")
RAW_TIFF_STARTS = (b"CR\2", b"IIII", b"MMMM")
SUBFILE_TYPE, PHOTOMETRIC, DNG_VERSION = 254, 262, 50706  # tags of TIFF
SHORT = 3  # the kind of a tag of two bytes
SENSOR = (32803, 34892)  # PHOTOMETRIC of a sensor's values
PREVIEW_SIDE = 512  # pixels of a preview's shorter side that make developing unnecessary
TURNS = {3: 3, 5: 8, 6: 6}  # LibRaw's to EXIF's


def is_heif(stream: BinaryIO) -> bool:
    """Whether a file is HEIF, and not AVIF; rewinds it."""
    head = stream.read(12)
    stream.seek(0)
    return head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS


def open_heif(stream: BinaryIO) -> Image.Image:
    """A HEIF file as PIL has it; it is decoded upright.

    Raises:
        UnsuitableError: pillow-heif is not installed.
    """
    try:
        import pillow_heif
    except ImportError as error:
        raise UnsuitableError(f"HEIF: {_advice('pillow-heif')}") from error
    opened: Image.Image = pillow_heif.HeifImageFile(stream)
    return opened


def is_raw(stream: BinaryIO) -> bool:
    """Whether a file holds a sensor's values, or is a TIFF that begins with a preview; rewinds it.

    PIL would take the preview, which may have 160 pixels, for the photograph.
    """
    head = stream.read(16)
    tags = _first_tags(stream, head) if head[:4] in (b"II*\0", b"MM\0*") else {}
    stream.seek(0)
    if head.startswith(RAW_STARTS) or head[4:12] == b"ftypcrx ":
        return True
    is_preview = tags.get(SUBFILE_TYPE, 0) & 1
    is_sensor = DNG_VERSION in tags or tags.get(PHOTOMETRIC) in SENSOR
    return bool(tags) and (bool(is_preview) or is_sensor or head[8:].startswith(RAW_TIFF_STARTS))


def _first_tags(stream: BinaryIO, head: bytes) -> dict[int, int]:
    """Tags of the first page of a TIFF that have a number as their value; of others a place."""
    order = "<" if head.startswith(b"II") else ">"
    stream.seek(struct.unpack(f"{order}I", head[4:8].ljust(4, b"\0"))[0])
    size = stream.read(2).rjust(2, b"\0")
    table = stream.read(12 * struct.unpack(f"{order}H", size)[0])
    tags = {}
    for at in range(0, len(table) - 11, 12):
        tag, kind = struct.unpack_from(f"{order}HH", table, at)
        (tags[tag],) = struct.unpack_from(order + ("H" if kind == SHORT else "I"), table, at + 8)
    return tags


def open_raw(stream: BinaryIO) -> Image.Image:
    """A raw photograph: the preview that the camera made, or else as LibRaw develops it.

    The preview counts if its shorter side has ``PREVIEW_SIDE`` pixels. It has the camera's colours
    and contrast, by which people know the photograph. LibRaw takes the camera's white balance.

    Raises:
        UnsuitableError: rawpy is not installed, or LibRaw does not read this.
    """
    try:
        import rawpy
    except ImportError as error:
        raise UnsuitableError(f"a raw photograph: {_advice('rawpy')}") from error
    try:
        with rawpy.imread(stream) as raw:
            image, turn = _preview(raw), TURNS.get(raw.sizes.flip, 1)
            if image is None:
                half = min(raw.sizes.width, raw.sizes.height) >= 2 * PREVIEW_SIDE
                pixels = raw.postprocess(use_camera_wb=True, user_flip=0, half_size=half)
                image = Image.fromarray(pixels)
            if ExifTags.Base.Orientation not in image.getexif():
                image.getexif()[ExifTags.Base.Orientation] = turn
            return image
    except (rawpy.LibRawError, rawpy.NotSupportedError) as error:
        raise UnsuitableError(
            f"a raw photograph that LibRaw does not read, or a TIFF that begins with a preview "
            f"({_text(error)}): convert it"
        ) from error


def _preview(raw: Any) -> Image.Image | None:
    """The largest picture that a raw file holds, if it is large enough."""
    import rawpy

    try:
        found = raw.extract_thumb()
    except rawpy.LibRawError:
        return None
    if found.format == rawpy.ThumbFormat.JPEG:
        image: Image.Image = Image.open(io.BytesIO(found.data), formats=["JPEG"])
    else:
        image = Image.fromarray(found.data)
    return image if min(image.size) >= PREVIEW_SIDE else None


def _text(error: Exception) -> str:
    """The text of an error of LibRaw, which gives it as bytes."""
    first = error.args[0] if error.args else error
    return first.decode(errors="replace") if isinstance(first, bytes) else str(first)


def _advice(package: str) -> str:
    return f"reading it needs {package}: pip install 'eat-iaa[photos]'"
