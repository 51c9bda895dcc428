"""Photographs to pixels: decoding, squeezing and augmentation, with PIL as the reference."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class ImageError(OSError):
    """An image file that cannot be read; the message names the file and what is wrong with it."""

    def __init__(self, message: str) -> None:
        # A loading process's error is raised anew with its whole traceback as its message.
        super().__init__(message.strip().rpartition("eat.data.transforms.ImageError: ")[2])


def read_image(path: str | Path, *, upright: bool) -> Image.Image:
    """Decode a photograph as RGB.

    Args:
        path: any format that PIL reads.
        upright: turn it by its EXIF orientation.

    Raises:
        ImageError: the file is missing, empty, truncated or no image.
    """
    path = Path(path)
    try:
        with Image.open(path) as image:
            image.load()
            if upright:
                image = ImageOps.exif_transpose(image)
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file") from error
    except UnidentifiedImageError as error:
        kind = "an empty file" if path.stat().st_size == 0 else "not an image that PIL can read"
        raise ImageError(f"{path}: {kind}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{path}: damaged or truncated ({error})") from error


@dataclass(frozen=True)
class Preprocessing:
    """How a photograph becomes pixels. Aspect ratio is not kept: images are squeezed to a square.

    Attributes:
        size: side of the result in pixels.
        train_resize: side before the random crop in training; None for no crop.
        interpolation: PIL filter.
        flip: flip horizontally every other time in training.
        upright: turn by EXIF orientation first.
    """

    size: int = 224
    train_resize: int | None = None
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    flip: bool = True
    upright: bool = True

    def squeeze(self, image: Image.Image, side: int) -> Image.Image:
        """Resize to ``side`` by ``side``."""
        return image.resize((side, side), FILTERS[self.interpolation])

    def evaluation(self, path: str | Path) -> Tensor:
        """Pixels of a file for evaluation: uint8 (3, size, size)."""
        return to_tensor(self.squeeze(read_image(path, upright=self.upright), self.size))

    def training(self, path: str | Path, seed: int) -> Tensor:
        """Pixels of a file with augmentation drawn from ``seed``: uint8 (3, size, size)."""
        draw = np.random.default_rng(seed)
        side = self.train_resize or self.size
        image = self.squeeze(read_image(path, upright=self.upright), side)
        if self.flip and draw.random() < 0.5:
            image = ImageOps.mirror(image)
        top, left = draw.integers(0, side - self.size, size=2, endpoint=True)
        return to_tensor(image.crop((left, top, left + self.size, top + self.size)))


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB image as uint8 (3, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def normalise(pixels: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) to float32 with ImageNet's mean and deviation, on the pixels' device."""
    mean = pixels.new_tensor(IMAGENET_DEFAULT_MEAN, dtype=torch.float32).view(3, 1, 1)
    std = pixels.new_tensor(IMAGENET_DEFAULT_STD, dtype=torch.float32).view(3, 1, 1)
    return pixels.float().div_(255).sub_(mean).div_(std)
