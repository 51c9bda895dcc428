"""Scenes whose background is judged by its arrangement: the task ``background``.

Rows of poplars, towers or sails stand behind the subject. The background's merit is how parallel
they stand, how evenly, and how much alike they are. Their lean, number, size and colour are drawn
apart from it, so that statistics of colour and contrast do not tell it.
"""

import numpy as np
from PIL import Image, ImageDraw

from eat.sample.scenes import FOREGROUND, MOODS, SCENES, Factors, View, fractal, mix, sky, step

ARRANGEMENT = {"parallel": 0.4, "even": 0.35, "alike": 0.25}
# Outlines in their own units: x to the right of the middle, y up from the foot, both about 0..1.
SHAPES = {
    "Landscape": [(-0.06, 0), (-0.06, 0.15), (-0.2, 0.3), (-0.2, 0.65), (0, 1),
                  (0.2, 0.65), (0.2, 0.3), (0.06, 0.15), (0.06, 0)],
    "Cityscape": [(-0.17, 0), (-0.17, 0.85), (0, 1), (0.17, 0.85), (0.17, 0)],
    "Seascapes": [(-0.2, 0), (-0.16, 0.15), (0, 1), (0.16, 0.15), (0.2, 0)],
}  # fmt: skip
LEAN = 25  # degrees, of all things of an image alike, to either side
MOST_TILT = 40  # degrees, a standard deviation


class Arranged(Factors):
    """Factors whose background is an arrangement."""

    @property
    def background(self) -> float:
        return self._term(ARRANGEMENT)


def draw_arranged(rng: np.random.Generator) -> Arranged:
    """Draw scene, subject, mood and factors; the terms are independent and about uniform."""
    scene = str(rng.choice(list(SHAPES)))
    subject = str(rng.choice(SCENES[scene]))
    mood = str(rng.choice(list(MOODS)))
    values = {}
    for group in (FOREGROUND, ARRANGEMENT):
        care = rng.uniform(-0.1, 1.1)  # wider than the term, which noise of its factors narrows
        for name in group:
            values[name] = float(np.clip(0.85 * care + 0.15 * rng.uniform(), 0, 1))
    return Arranged(scene, subject, mood, values | {"exposure": 0.9, "cleanness": 0.9})


def paint_arranged(
    factors: Factors, rng: np.random.Generator, height: int, width: int
) -> np.ndarray:
    """Rows of equal things between sky and ground, in order or not: (H, W, 3) in 0..1."""
    across = np.linspace(0, 1, width, dtype=np.float32)[None, :]
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None] + 0 * across
    view = View(factors, rng, down, across, rng.uniform(0.25, 0.45))
    ground = np.asarray(MOODS[factors.mood][2]) * rng.uniform(0.9, 1.5)
    grass = 1 + 0.12 * fractal(rng, height, width, (16, 10), octaves=3)
    image = mix(sky(view), ground * grass[..., None], step(down, view.horizon, 0.02))
    pixels = _things(factors, rng, height, width)
    return np.clip(mix(image, pixels[..., :3], pixels[..., 3]), 0, 1)


def _things(factors: Factors, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """The things on a clear ground: (H, W, 4) in 0..1."""
    rows, columns = int(rng.integers(3, 5)), int(rng.integers(5, 8))
    outline = np.array(SHAPES[factors.scene]) - (0, 0.5)
    disorder = {name: 1 - factors.values[name] for name in ARRANGEMENT}
    colour, scale = rng.uniform(0.05, 0.95, 3), 2
    layer = Image.new("RGBA", (scale * width, scale * height), (128, 128, 128, 0))
    draw = ImageDraw.Draw(layer)
    cell = np.array((width / columns, 0.92 * height / rows)) * scale
    lean = np.radians(rng.uniform(-LEAN, LEAN))
    tall = cell[1] * rng.uniform(0.75, 0.9)
    for row in range(rows):
        for column in range(columns):
            moved = rng.uniform(-0.5, 0.5, 2) * disorder["even"]
            centre = (np.array((column + 0.5, row + 0.5)) + moved) * cell
            centre[1] += 0.08 * height * scale
            size = tall * np.exp(rng.normal(0, 0.35) * disorder["alike"])
            turn = lean + np.radians(rng.normal(0, MOST_TILT) * disorder["parallel"])
            cos, sin = np.cos(turn), np.sin(turn)
            placed = centre + size * (outline * (1, -1)) @ np.array(((cos, sin), (-sin, cos)))
            tint = np.clip(colour + rng.normal(0, 0.06, 3), 0, 1)
            draw.polygon([tuple(p) for p in placed], fill=tuple(int(255 * c) for c in tint))
    return np.asarray(layer.reduce(scale), np.float32) / 255
