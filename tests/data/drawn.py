"""Pictures for the tests of what reads photographs."""

from pathlib import Path

import numpy as np
from PIL import Image


def noise(path: Path) -> Path:
    """A JPEG of 200 x 120 that nothing can smooth."""
    pixels = np.random.default_rng(0).integers(0, 256, (120, 200, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=90)
    return path


def scene(width: int = 300, height: int = 200) -> Image.Image:
    """Smooth colours with an edge: as hard as a photograph, and lost by none of JPEG's ways."""
    y, x = np.mgrid[:height, :width]
    waves = [127 + 120 * np.sin(x / a + y / b) for a, b in ((17, 40), (60, 9), (31, 23))]
    pixels = np.stack(waves, axis=2)
    pixels[height // 3 :, width // 2 :] *= 0.5
    return Image.fromarray(pixels.astype(np.uint8))
