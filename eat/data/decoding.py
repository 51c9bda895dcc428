"""Photographs decoded: files, encoded bytes, PIL images, arrays and tensors, to RGB of 8 bits."""

import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from eat.config.pixels import Colours
from eat.data.camera import is_heif, is_raw, open_heif, open_raw
from eat.data.colours import (
    Note,
    ToRGB,
    Transform,
    UnsuitableError,
    in_srgb,
    rgb_of,
    transform_of,
)
from eat.system.files import GB, regular
from eat.system.words import brief

MOST_BYTES = 1 * GB  # of a file; PIL itself refuses more than 179 megapixels
# PIL hands others, such as EPS, to programs outside.
FORMATS = {"JPEG", "MPO", "PNG", "WEBP", "TIFF", "GIF", "BMP", "DIB", "PPM", "JPEG2000", "AVIF",
           "HEIF"}  # fmt: skip
HEAVY = {"WEBP", "AVIF", "HEIF"}  # decoding them takes four times the memory of the pixels
LARGE = 32 * 2**20  # bytes of pixels, of a photograph of 11 megapixels
STRIPE = 1024  # rows of an image that are converted at a time
_thread = threading.local()
_loading = threading.Lock()  # of PIL images that a user may have given to several threads


@dataclass(frozen=True, eq=False)
class InMemory:
    """A photograph that is no file.

    Attributes:
        name: in messages and results.
        content: an encoded file as bytes, a PIL image, or RGB pixels as uint8: an array (H, W, 3)
            or a tensor (3, H, W). What is none of these is refused when it is read.
    """

    name: str
    content: Any

    def __str__(self) -> str:
        return self.name


class ImageError(OSError):
    """An image file that cannot be read; the message names the file and what is wrong with it."""

    def __init__(self, message: str) -> None:
        super().__init__(without_traceback(message, type(self)))


def without_traceback(message: str, kind: type[Exception]) -> str:
    """The message that an error had in a loading process.

    PyTorch raises such an error anew with its traceback as its message.
    """
    return message.strip().rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2]


@dataclass(frozen=True)
class Decoded:
    """A decoded photograph.

    Attributes:
        pixels: as an RGB image, or as uint8 (3, H, W).
        transform: makes sRGB of them by ``in_srgb``. It may follow a resize, which makes it quick.
    """

    pixels: Image.Image | Tensor
    transform: Transform | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        if isinstance(self.pixels, Image.Image):
            return self.pixels.size
        return self.pixels.shape[2], self.pixels.shape[1]

    def image(self) -> Image.Image:
        """The pixels as an image, in the colours that they have."""
        if isinstance(self.pixels, Image.Image):
            return self.pixels
        return Image.fromarray(self.pixels.permute(1, 2, 0).numpy())


def read_image(
    photo: str | Path | InMemory,
    *,
    upright: bool,
    colours: Colours = "as_shown",
    note: Note | None = None,
) -> Image.Image:
    """Decode a photograph, as a file one of FORMATS or raw, as RGB.

    Args:
        upright: turn it by its EXIF orientation.
        colours: as ``rgb_of`` takes them.
        note: takes what a user should know of how it was read, such as that it has more frames.

    Raises:
        ImageError: the file is missing, empty, truncated, no image, or of another format or an
            undefined range.
    """
    decoded = decode(photo, upright=upright, colours=colours, note=note)
    return in_srgb(decoded.image(), decoded.transform)


def decode(
    photo: str | Path | InMemory,
    *,
    upright: bool,
    colours: Colours,
    fast: bool = False,
    note: Note | None = None,
) -> Decoded:
    """Decode a photograph with PIL; the arguments and errors of ``read_image``.

    Args:
        fast: decode as ``read_jpeg`` where it can, and return a tensor, which may lie in memory
            that this thread's next call uses again.
    """
    if fast and (found := read_jpeg(photo, upright=upright)) is not None:
        pixels, profile = found
        transform = transform_of(profile, "RGB", colours, note)
        return Decoded(torch.from_numpy(pixels).permute(2, 0, 1), transform)
    with _decoded(photo, upright, note) as image:
        to_rgb, transform = rgb_of(image, colours, note)
        if not fast:
            return Decoded(to_rgb(image), transform)
        return Decoded(torch.from_numpy(to_array(image, to_rgb)).permute(2, 0, 1), transform)


@contextmanager
def _decoded(
    photo: str | Path | InMemory, upright: bool, note: Note | None
) -> Iterator[Image.Image]:
    """A decoded photograph of 8 bits a channel, of any mode; the errors of ``read_image``."""
    try:
        photo = photo if isinstance(photo, InMemory) else regular(photo, MOST_BYTES)
    except FileNotFoundError as error:
        if is_url(photo):
            url = str(Path(str(photo))).replace(":/", "://", 1)
            raise ImageError(f"{url}: an address of the web: download it first") from error
        raise ImageError(f"{photo}: no such file") from error
    except OSError as error:
        raise ImageError(f"{photo}: {error.strerror}" if error.errno else str(error)) from error
    try:
        with _opened(photo) as file:
            is_own = file is getattr(photo, "content", None)  # of the user's, and stays as it is
            if note is not None and not is_own and _has_more(file):
                kind = "page" if file.format == "TIFF" else "picture"
                which = "main" if file.format == "HEIF" else "first"
                note(f"it has several {kind}s: the {which} one was taken")
            file.load()
            if upright and file.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                if is_own:
                    file = ImageOps.exif_transpose(file)
                else:
                    ImageOps.exif_transpose(file, in_place=True)
            yield _as_bytes(file)
    except UnidentifiedImageError as error:
        with _stream(photo) as stream:
            kind = "not an image that PIL can read" if stream.read(1) else "an empty file"
        raise ImageError(f"{photo}: {kind}") from error
    except (Image.DecompressionBombError, UnsuitableError) as error:
        raise ImageError(f"{photo}: {error}") from error
    except Exception as error:  # decoders raise a dozen kinds
        raise ImageError(f"{photo}: damaged or truncated ({brief(error)})") from error


def _stream(photo: Path | InMemory) -> BinaryIO:
    return io.BytesIO(photo.content) if isinstance(photo, InMemory) else photo.open("rb")


@contextmanager
def _opened(photo: Path | InMemory) -> Iterator[Image.Image]:
    """A photograph as PIL has it, the pixels of a file not yet decoded."""
    if isinstance(photo, InMemory) and not isinstance(photo.content, bytes):
        yield _as_image(photo.content)
        return
    # Not by its name: PIL would map raw pixels, misread them if turned, and die if cut short.
    with _stream(photo) as stream, _open(stream) as file:
        yield file


def _open(stream: BinaryIO) -> Image.Image:
    """An encoded file by its content, as PIL has it."""
    if is_raw(stream):
        return open_raw(stream)
    file = open_heif(stream) if is_heif(stream) else Image.open(stream)
    if file.format not in FORMATS:
        raise UnsuitableError(
            f"of format {file.format}: expected {', '.join(sorted(FORMATS))}; convert it"
        )
    if file.format in HEAVY and _is_huge(*file.size):
        raise UnsuitableError(
            f"{file.width} x {file.height} pixels in format {file.format}, which takes "
            "gigabytes: convert it to JPEG or PNG, or resize it"
        )
    return file


def _has_more(file: Image.Image) -> bool:
    """True for a file of several pages or frames; the others of an MPO belong to its first."""
    return file.format != "MPO" and getattr(file, "is_animated", False)


def _as_image(content: Any) -> Image.Image:
    """A user's PIL image, loaded, or one of the user's pixels."""
    if isinstance(content, Image.Image) and 0 not in content.size:
        with _loading:
            content.load()
        return content
    pixels = content
    if isinstance(content, Tensor) and content.ndim == 3:
        pixels = content.detach().permute(1, 2, 0).cpu().numpy()
    if not isinstance(pixels, np.ndarray) or (pixels.dtype, pixels.shape[2:]) != (np.uint8, (3,)):
        pixels = None
    if pixels is None or pixels.size == 0:
        shape = f" {tuple(content.shape)}" if hasattr(content, "shape") else ""
        kind = f"{type(content).__name__} {getattr(content, 'dtype', '')}".strip() + shape
        raise UnsuitableError(
            f"{kind}: expected a path, encoded bytes, a PIL image, or RGB pixels as uint8, which "
            "are an array (H, W, 3) or a tensor (3, H, W), and not empty"
        )
    return Image.fromarray(np.ascontiguousarray(pixels))


def is_url(path: object) -> bool:
    """True for an address of the web, also where Path made one slash of two."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)) is not None


def _as_bytes(image: Image.Image) -> Image.Image:
    """16-bit grey by its high bytes, as PIL reads 16-bit colours; PIL would clip it to white.

    Raises:
        UnsuitableError: pixels are floats or of 32 bits, or 16 bits that the file uses in
            another way; or their colours are none that PIL converts.
    """
    if image.mode == "LAB":
        raise UnsuitableError("colours of mode LAB: expected RGB, grey or CMYK; convert it")
    clear = image.info.get("transparency")
    if isinstance(clear, tuple) and max(clear) > 255:  # PIL leaves it at 16 bits
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    if not image.mode.startswith(("I", "F")):
        return image
    sixteen = image.mode.startswith("I;16")
    sixteen |= image.mode == "I" and image.format in ("PNG", "PPM")
    tags = getattr(image, "tag_v2", {})  # of a TIFF: bits, and whether 0 is black
    if not sixteen or tags.get(258, (16,)) != (16,) or tags.get(262, 1) != 1:
        raise UnsuitableError(
            f"grey of mode {image.mode} without a defined range: expected 8 or 16 bits with 0 for "
            "black; convert it"
        )
    values = np.asarray(image)
    high = np.empty(values.shape, np.uint8)
    np.right_shift(values, 8, out=high, casting="unsafe")
    grey = Image.fromarray(high)
    if isinstance(clear, int):  # a value of all 16 bits
        grey.putalpha(Image.fromarray((values != clear) * np.uint8(255)))
    if profile := image.info.get("icc_profile"):
        grey.info["icc_profile"] = profile
    return grey


def read_jpeg(
    photo: str | Path | InMemory, *, upright: bool
) -> tuple[NDArray[np.uint8], bytes] | None:
    """Decode a plain JPEG with libjpeg-turbo, to the same pixels as ``read_image`` as stored.

    Returns:
        uint8 (H, W, 3), in memory that this thread's next call may use again, and the colour
        profile; None for all that is left to PIL: other formats, other colours than RGB and grey,
        grey with a profile, a picture that may have to be turned, a huge one, and whatever libjpeg
        warns of.
    """
    try:
        if isinstance(photo, InMemory):
            content = photo.content if isinstance(photo.content, bytes) else b""
        else:
            content = regular(photo, MOST_BYTES).read_bytes()
        if content[:2] != b"\xff\xd8" or (profile := _profile(content, upright)) is None:
            return None
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        if _is_huge(width, height) or colours not in ("YCbCr", *([] if profile else ["Gray"])):
            return None
        room = _room(3 * height * width)
        return simplejpeg.decode_jpeg(content, "RGB", buffer=room), profile
    except (OSError, ValueError):
        return None


def _is_huge(width: int, height: int) -> bool:
    """True for what PIL warns of: more than 89 megapixels."""
    return Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS


def _room(size: int) -> NDArray[np.uint8]:
    """Memory for a picture of ``size`` bytes: this thread's own, unless it is large.

    New memory would cost a quarter of the decoding, in page faults.
    """
    if size > LARGE:
        return np.empty(size, np.uint8)
    if getattr(_thread, "room", None) is None:
        _thread.room = np.empty(LARGE, np.uint8)  # untouched pages take no memory
    return _thread.room


def _profile(content: bytes, upright: bool) -> bytes | None:
    """The colour profile of a JPEG, empty if it has none; None if it may have to be turned."""
    head = _head(content)
    if b"Exif\0\0" not in head and b"tiff:Orientation" not in head and b"ICC_PRO" not in head:
        return b""
    try:
        with Image.open(io.BytesIO(content)) as image:
            if upright and image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                return None
            return bytes(image.info.get("icc_profile") or b"")
    except Exception:  # whatever is wrong with it, PIL will say so when it decodes
        return None


def _head(content: bytes) -> bytes:
    """The segments of a JPEG before its pixels; all of one that is built in another way."""
    at = 2
    while content[at : at + 1] == b"\xff" and content[at + 1 : at + 2] not in (b"\xda", b"\xff"):
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return content[:at] if content[at : at + 2] == b"\xff\xda" else content


def to_array(image: Image.Image, to_rgb: ToRGB) -> NDArray[np.uint8]:
    """An image as RGB, uint8 (H, W, 3), by stripes: a large one would be held four times."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, STRIPE):
        stripe = image.crop((0, top, image.width, min(top + STRIPE, image.height)))
        pixels[top : top + STRIPE] = np.asarray(to_rgb(stripe))
    return pixels
