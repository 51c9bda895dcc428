"""Crops of photographs, written as ImageMagick does: photo.jpg[WIDTHxHEIGHT+X+Y]."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

WRITTEN = re.compile(r"(.+)\[(\d{1,9})x(\d{1,9})\+(\d{1,9})\+(\d{1,9})\]", re.DOTALL)


@dataclass(frozen=True)
class Crop:
    """A rectangle of a photograph, in pixels of the upright photograph from its top left corner."""

    file: Path
    width: int
    height: int
    left: int
    top: int

    def __str__(self) -> str:
        return f"{self.file}[{self.width}x{self.height}+{self.left}+{self.top}]"

    def of(self, photo: Image.Image | Tensor) -> Image.Image | Tensor:
        """Its pixels, of the photograph as an image or (3, H, W).

        Raises:
            ValueError: it is empty, or not within the photograph.
        """
        height, width = photo.shape[1:] if isinstance(photo, Tensor) else photo.size[::-1]
        right, bottom = self.left + self.width, self.top + self.height
        if not (self.left < right <= width and self.top < bottom <= height):
            raise ValueError(f"no rectangle within the photograph's {width} x {height} pixels")
        if isinstance(photo, Tensor):
            return photo[:, self.top : bottom, self.left : right]
        return photo.crop((self.left, self.top, right, bottom))


def as_crop(path: str | Path) -> Crop | None:
    """The crop that a path is written as; None for any other path, and for a file of this name."""
    found = WRITTEN.fullmatch(str(path))
    if found is None or os.path.lexists(path):
        return None
    return Crop(Path(found[1]), *map(int, found.groups()[1:]))
