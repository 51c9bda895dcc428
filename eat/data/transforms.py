"""Photographs to pixels: decoding, resizing and augmentation, exactly as PIL does it or faster."""

import io
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, TypeVar

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from eat.config.pixels import IMAGENET_MEAN, IMAGENET_STD, Channels, Interpolation
from eat.data.crops import Crop
from eat.system.files import GB, regular

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
MOST_BYTES = 1 * GB  # of a file; PIL itself refuses more than 179 megapixels
# PIL hands others, such as EPS, to programs outside; HEIF is read where a plugin was registered.
FORMATS = {"JPEG", "MPO", "PNG", "WEBP", "TIFF", "GIF", "BMP", "DIB", "PPM", "JPEG2000", "AVIF",
           "HEIF"}  # fmt: skip
HEAVY = {"WEBP", "AVIF", "HEIF"}  # decoding them takes four times the memory of the pixels
LARGE = 32 * 2**20  # bytes of pixels, of a photograph of 11 megapixels
STRIPE = 1024  # rows of an image that are converted at a time
Decoded = Image.Image | Tensor  # a photograph as RGB, or as uint8 (3, H, W)
T = TypeVar("T")
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


Photo = Path | Crop | InMemory


class ImageError(OSError):
    """An image file that cannot be read; the message names the file and what is wrong with it."""

    def __init__(self, message: str) -> None:
        super().__init__(without_traceback(message, type(self)))


def without_traceback(message: str, kind: type[Exception]) -> str:
    """The message that an error had in a loading process.

    PyTorch raises such an error anew with its traceback as its message.
    """
    return message.strip().rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2]


def read_image(photo: str | Path | InMemory, *, upright: bool) -> Image.Image:
    """Decode a photograph, as a file one of FORMATS, as RGB, turned by EXIF if ``upright``.

    Raises:
        ImageError: the file is missing, empty, truncated, no image, or of another format or an
            undefined range.
    """
    return _decode(photo, upright, lambda image: image.convert("RGB"))


def _decode(photo: str | Path | InMemory, upright: bool, convert: Callable[[Image.Image], T]) -> T:
    """What ``convert`` makes of a decoded photograph of 8 bits; the errors of ``read_image``."""
    try:
        photo = photo if isinstance(photo, InMemory) else regular(photo, MOST_BYTES)
    except FileNotFoundError as error:
        if is_url(photo):
            url = str(Path(str(photo))).replace(":/", "://", 1)
            raise ImageError(f"{url}: an address of the web: download it first") from error
        raise ImageError(f"{photo}: no such file") from error
    except OSError as error:
        raise ImageError(str(error)) from error
    try:
        with _opened(photo) as file:
            file.load()
            if upright and file.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                if file is getattr(photo, "content", None):  # which stays as it is
                    file = ImageOps.exif_transpose(file)
                else:
                    ImageOps.exif_transpose(file, in_place=True)
            return convert(_as_bytes(file))
    except UnidentifiedImageError as error:
        with _stream(photo) as stream:
            kind = "not an image that PIL can read" if stream.read(1) else "an empty file"
        raise ImageError(f"{photo}: {kind}") from error
    except (Image.DecompressionBombError, UnsuitableError) as error:
        raise ImageError(f"{photo}: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{photo}: damaged or truncated ({error})") from error


def _stream(photo: Path | InMemory) -> BinaryIO:
    return io.BytesIO(photo.content) if isinstance(photo, InMemory) else photo.open("rb")


@contextmanager
def _opened(photo: Path | InMemory) -> Iterator[Image.Image]:
    """A photograph as PIL has it, the pixels of a file not yet decoded."""
    if isinstance(photo, InMemory) and not isinstance(photo.content, bytes):
        yield _as_image(photo.content)
        return
    # Not by its name: PIL would map raw pixels, misread them if turned, and die if cut short.
    with _stream(photo) as stream, Image.open(stream) as file:
        if file.format not in FORMATS:
            raise UnsuitableError(
                f"of format {file.format}: expected {', '.join(sorted(FORMATS))}; convert it"
            )
        if file.format in HEAVY and _is_huge(*file.size):
            raise UnsuitableError(
                f"{file.width} x {file.height} pixels in format {file.format}, which takes "
                "gigabytes: convert it to JPEG or PNG, or resize it"
            )
        yield file


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


class UnsuitableError(ValueError):
    """An image that is sound, and of a kind that is not scored."""


def _as_bytes(image: Image.Image) -> Image.Image:
    """16-bit grey by its high bytes, as PIL reads 16-bit colours; PIL would clip it to white.

    Raises:
        UnsuitableError: pixels are floats or of 32 bits, or 16 bits that the file uses in
            another way.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    sixteen = image.mode.startswith("I;16") or image.format in ("PNG", "PPM")
    tags = getattr(image, "tag_v2", {})  # of a TIFF: bits, and whether 0 is black
    if not sixteen or tags.get(258, (16,)) != (16,) or tags.get(262, 1) != 1:
        raise UnsuitableError(
            f"grey of mode {image.mode} without a defined range: expected 8 or 16 bits with 0 for "
            "black; convert it"
        )
    high = np.empty((image.height, image.width), np.uint8)
    np.right_shift(np.asarray(image), 8, out=high, casting="unsafe")
    return Image.fromarray(high)


def read_jpeg(photo: str | Path | InMemory, *, upright: bool) -> NDArray[np.uint8] | None:
    """Decode a plain JPEG with libjpeg-turbo, to the same pixels as ``read_image``.

    Returns:
        uint8 (H, W, 3), in memory that this thread's next call may use again; None for all that is
        left to PIL: other formats, other colours than RGB and grey, a picture that may have to be
        turned, a huge one, and whatever libjpeg warns of.
    """
    try:
        if isinstance(photo, InMemory):
            content = photo.content if isinstance(photo.content, bytes) else b""
        else:
            content = regular(photo, MOST_BYTES).read_bytes()
        if content[:2] != b"\xff\xd8" or (upright and _may_be_turned(content)):
            return None
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        if _is_huge(width, height) or colours not in ("YCbCr", "Gray"):
            return None
        return simplejpeg.decode_jpeg(content, "RGB", buffer=_room(3 * height * width))
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


def _may_be_turned(content: bytes) -> bool:
    """True for a JPEG with an orientation other than upright, in EXIF or in XMP."""
    if b"Exif\0\0" not in content and b"tiff:Orientation" not in content:
        return False
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    except Exception:  # whatever is wrong with it, PIL will say so when it decodes
        return True


class PixelSource(Protocol):
    """Pixels of image files: from the files (``Preprocessing``) or from a cache of them.

    Both methods raise ImageError if an image cannot be read.
    """

    def evaluation(self, path: str | Path) -> Tensor:
        """Pixels of a file for evaluation: uint8 (3, size, size), memory of their own."""

    def training(self, path: str | Path, seed: int) -> Tensor:
        """The same for training, with augmentation drawn from ``seed``."""


@dataclass(frozen=True)
class Preprocessing:
    """The :class:`PixelSource` that decodes files and resizes them, whatever their aspect ratio.

    Attributes:
        size: side of the result in pixels.
        train_resize: side before the random crop in training; None for no crop.
        interpolation: filter of the resize.
        flip: flip horizontally every other time in training.
        upright: turn by EXIF orientation first.
        decode: "exact" decodes and resizes with PIL; "fast" decodes JPEGs with libjpeg-turbo and
            resizes with torch, to pixels that differ by 2 of 255 at most on photographs.
        mean: of the channels that the model takes, as shares of white.
        std: their deviation.
    """

    size: int = 224
    _: KW_ONLY
    train_resize: int | None = None
    interpolation: Interpolation = "bicubic"
    flip: bool = True
    upright: bool = True
    decode: Literal["exact", "fast"] = "exact"  # of checkpoints that do not say
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD

    def side(self, *, training: bool) -> int:
        """The side in pixels that photographs are resized to."""
        return self.train_resize or self.size if training else self.size

    def read(self, photo: str | Photo) -> Decoded:
        """Decode a photograph for ``resize``, as ``read_image``; to uint8 (3, H, W) if fast.

        The latter may lie in memory that this thread's next call uses again. A crop is cut from the
        upright photograph.
        """
        if isinstance(photo, Crop):
            whole = replace(self, upright=True).read(photo.file)
            try:
                return photo.of(whole)
            except ValueError as error:
                raise ImageError(f"{photo}: {error}") from error
        if self.decode == "exact":
            return read_image(photo, upright=self.upright)
        pixels = read_jpeg(photo, upright=self.upright)
        if pixels is None:
            pixels = _decode(photo, self.upright, to_array)
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def resize(self, photo: Decoded, side: int) -> Tensor:
        """Resize what ``read`` gave: uint8 (3, side, side), in any layout."""
        if isinstance(photo, Image.Image):
            return to_tensor(photo.resize((side, side), FILTERS[self.interpolation]))
        # As a batch whose strides say channels last, which a batch of one does not otherwise.
        photo = photo.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
        resized = F.interpolate(
            photo, (side, side), mode=self.interpolation, antialias=True, align_corners=False
        )
        return resized[0]

    def evaluation(
        self, photo: str | Photo, look: Callable[[Decoded], None] | None = None
    ) -> Tensor:
        """Pixels for evaluation: uint8 (3, size, size). ``look`` sees what is resized."""
        decoded = self.read(photo)
        if look is not None:
            look(decoded)
        return packed(self.resize(decoded, self.size))

    def training(self, path: str | Path, seed: int) -> Tensor:
        """Pixels of a file with augmentation drawn from ``seed``: uint8 (3, size, size)."""
        return self.augment(self.resize(self.read(path), self.side(training=True)), seed)

    def augment(self, resized: Tensor, seed: int) -> Tensor:
        """Flip and crop uint8 (3, side, side), as drawn, to (3, size, size) in its own memory."""
        draw = np.random.default_rng(seed)
        spare = resized.shape[-1] - self.size
        flip = self.flip and draw.random() < 0.5
        top, left = draw.integers(0, spare, size=2, endpoint=True).tolist()
        if flip:  # the crop first, as it is the smaller picture
            left = spare - left
        crop = resized[:, top : top + self.size, left : left + self.size]
        return packed(crop, flip=flip)

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to float32 as the model takes it, on the pixels' device."""
        mean = pixels.new_tensor(self.mean, dtype=torch.float32).view(3, 1, 1)
        std = pixels.new_tensor(self.std, dtype=torch.float32).view(3, 1, 1)
        return pixels.float().div_(255).sub_(mean).div_(std)


def to_array(image: Image.Image) -> NDArray[np.uint8]:
    """An image as RGB, uint8 (H, W, 3), by stripes: a large one would be held four times."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, STRIPE):
        stripe = image.crop((0, top, image.width, min(top + STRIPE, image.height)))
        pixels[top : top + STRIPE] = np.asarray(stripe.convert("RGB"))
    return pixels


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB image as uint8 (3, H, W), channels innermost."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def packed(picture: Tensor, *, flip: bool = False) -> Tensor:
    """A copy of uint8 (3, H, W), maybe flipped horizontally, channel after channel in memory.

    By way of NumPy, which takes half of torch's time for it.
    """
    pixels = picture.numpy()
    return torch.from_numpy(np.array(pixels[:, :, ::-1] if flip else pixels, order="C"))
