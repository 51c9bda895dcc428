"""Photographs to pixels: decoding, resizing and augmentation, exactly as PIL does it or faster."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from eat.config.pixels import IMAGENET_MEAN, IMAGENET_STD, Channels, Colours, Interpolation
from eat.data.colours import Note, in_srgb
from eat.data.crops import Crop
from eat.data.decoding import Decoded, ImageError, InMemory, decode

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
Photo = Path | Crop | InMemory


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
        colours: "as_stored" takes them as PIL converts them, without regard to colour profiles and
            transparency; "as_shown" converts them from the profile to sRGB, on white.
        mean: of the channels that the model takes, as shares of white.
        std: their deviation.
    """

    size: int = 224
    _: KW_ONLY
    train_resize: int | None = None
    interpolation: Interpolation = "bicubic"
    flip: bool = True
    upright: bool = True
    decode: Literal["exact", "fast"] = "exact"  # this and the next of checkpoints that do not say
    colours: Colours = "as_stored"
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD

    def side(self, *, training: bool) -> int:
        """The side in pixels that photographs are resized to."""
        return self.train_resize or self.size if training else self.size

    def read(self, photo: str | Photo, note: Note | None = None) -> Decoded:
        """Decode a photograph for ``resize``, as ``decode``.

        A crop is cut from the upright photograph.
        """
        if isinstance(photo, Crop):
            whole = replace(self, upright=True).read(photo.file, note)
            try:
                return replace(whole, pixels=photo.of(whole.pixels))
            except ValueError as error:
                raise ImageError(f"{photo}: {error}") from error
        fast = self.decode == "fast"
        return decode(photo, upright=self.upright, colours=self.colours, fast=fast, note=note)

    def resize(self, photo: Decoded, side: int) -> Tensor:
        """Resize what ``read`` gave, then convert it to sRGB: uint8 (3, side, side), any layout."""
        if isinstance(photo.pixels, Image.Image):
            small = photo.pixels.resize((side, side), FILTERS[self.interpolation])
            return to_tensor(in_srgb(small, photo.transform))
        # As a batch whose strides say channels last, which a batch of one does not otherwise.
        pixels = photo.pixels.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
        resized = F.interpolate(
            pixels, (side, side), mode=self.interpolation, antialias=True, align_corners=False
        )[0]
        if photo.transform is None:
            return resized
        return to_tensor(in_srgb(Decoded(resized).image(), photo.transform))

    def evaluation(
        self,
        photo: str | Photo,
        look: Callable[[Decoded], None] | None = None,
        note: Note | None = None,
    ) -> Tensor:
        """Pixels for evaluation: uint8 (3, size, size).

        Args:
            look: sees what is resized, before it is converted to sRGB.
            note: as of ``read_image``.
        """
        decoded = self.read(photo, note)
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
        # Unlike new_tensor, this does not wait for what the device has yet to do.
        constants = torch.tensor([self.mean, self.std]).to(pixels.device, non_blocking=True)
        mean, std = constants.view(2, 3, 1, 1)
        return pixels.float().div_(255).sub_(mean).div_(std)


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB image as uint8 (3, H, W), channels innermost."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def packed(picture: Tensor, *, flip: bool = False) -> Tensor:
    """A copy of uint8 (3, H, W), maybe flipped horizontally, channel after channel in memory.

    By way of NumPy, which takes half of torch's time for it.
    """
    pixels = picture.numpy()
    return torch.from_numpy(np.array(pixels[:, :, ::-1] if flip else pixels, order="C"))
