"""What the kinds of inputs share: their class, a tiny model, pictures."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from eat.data.transforms import Preprocessing
from fuzzing.damage import Files, Input

TINY: dict[str, Any] = {"dims": [8, 16, 32, 64], "heads": [1, 1, 2, 2], "stages": list("LLLE")}
PIXELS = Preprocessing(64, train_resize=72, decode="fast")


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        sound: files that are read without an error.
        spoilt: draws others from them.
        read: reads a folder of such files.
    """

    sound: Callable[[], Files]
    spoilt: Callable[[Files], st.SearchStrategy[Files]]
    read: Callable[[Path], object]

    def inputs(self, sound: Files) -> st.SearchStrategy[Input]:
        """Spoilt files as inputs."""
        return self.spoilt(sound).map(Input)


def content_of(folder: Path) -> Files:
    """All files of a folder."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def picture(form: str = "png", side: int = 24, mode: str = "RGB", **options: Any) -> bytes:
    """An image file."""
    pixels = np.random.default_rng(side).integers(0, 256, (side, side + 3, 4), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels, "RGBA").convert(mode).save(file, form, **options)
    return file.getvalue()
