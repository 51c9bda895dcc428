"""Drawing of photo-like scenes whose faults and virtues are known.

A scene has a background (sky and sea, hills, a city, a meadow or a night) and one foreground
subject. :func:`draw_factors` draws what is good or bad about each, :func:`draw_scene` paints it.
Every factor lies in 0..1, where 1 is the virtue and 0 the fault, so that the terms of
:class:`Factors` are plain weighted sums.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

RGB = tuple[float, float, float] | NDArray[np.floating]

# scene -> subjects that can stand in it
SCENES: dict[str, tuple[str, ...]] = {
    "Sky": ("balloon", "bird"),
    "Seascapes": ("boat", "bird", "person"),
    "Landscape": ("tree", "house", "balloon", "person"),
    "Cityscape": ("person", "balloon", "bird"),
    "Floral": ("flower",),
    "Night": ("house", "person", "balloon"),
}
AIRBORNE = ("balloon", "bird")

# mood -> colour of the zenith, of the sky at the horizon, of the ground
MOODS: dict[str, tuple[RGB, RGB, RGB]] = {
    "Golden_Hour": ((0.30, 0.38, 0.62), (1.00, 0.68, 0.30), (0.34, 0.26, 0.16)),
    "Blue_Morning": ((0.14, 0.40, 0.80), (0.72, 0.88, 0.96), (0.20, 0.40, 0.20)),
    "Red_Sunset": ((0.26, 0.16, 0.44), (0.98, 0.42, 0.26), (0.24, 0.15, 0.18)),
    "Violet_Dusk": ((0.24, 0.20, 0.54), (0.92, 0.56, 0.68), (0.22, 0.18, 0.34)),
    "Clear_Teal": ((0.06, 0.44, 0.60), (0.80, 0.93, 0.80), (0.14, 0.38, 0.28)),
}

FOREGROUND = {"sharpness": 0.28, "contrast": 0.28, "colour": 0.32, "placement": 0.12}
BACKGROUND = {"richness": 0.34, "clarity": 0.26, "tidiness": 0.28, "level": 0.06, "neutral": 0.06}
TECHNICAL = {"exposure": 0.6, "cleanness": 0.4}


@dataclass(frozen=True)
class Factors:
    """Virtues (1) and faults (0) of one image; ``values`` has one entry per factor.

    ``foreground``, ``background`` and ``technical`` are the weighted sums of their factors, 0..1.
    """

    scene: str
    subject: str
    mood: str
    values: dict[str, float]

    def _term(self, weights: dict[str, float]) -> float:
        return sum(weight * self.values[name] for name, weight in weights.items())

    @property
    def foreground(self) -> float:
        return self._term(FOREGROUND)

    @property
    def background(self) -> float:
        return self._term(BACKGROUND)

    @property
    def technical(self) -> float:
        return self._term(TECHNICAL)


Paint = Callable[[Factors, np.random.Generator, int, int], np.ndarray]  # a background (H, W, 3)


def draw_factors(rng: np.random.Generator) -> Factors:
    """Draw scene, subject, mood and factors; the three terms are independent of each other."""
    scene = str(rng.choice(list(SCENES)))
    subject = str(rng.choice(SCENES[scene]))
    mood = str(rng.choice(list(MOODS)))
    values = {}
    for group in (FOREGROUND, BACKGROUND, TECHNICAL):
        # A careful photographer is careful in most things: the factors of a term share a cause,
        # which gives the term a wide spread and a small network several cues for it.
        care = rng.uniform()
        for name in group:
            values[name] = float(0.7 * care + 0.3 * rng.uniform())
    return Factors(scene, subject, mood, values)


def draw_scene(
    factors: Factors, rng: np.random.Generator, size: int, paint: Paint | None = None
) -> Image.Image:
    """Paint the scene as an RGB image whose longer side is `size` pixels."""
    return _develop(draw_layers(factors, rng, size, paint)[0], factors, rng)


def draw_layers(
    factors: Factors, rng: np.random.Generator, size: int, paint: Paint | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The scene before it is developed (H, W, 3), and its subject's opacity (H, W), in 0..1.

    `paint` makes the background, by default that of one of ``SCENES``.
    """
    ratio = rng.choice([4 / 3, 4 / 3, 3 / 2, 1.0, 3 / 4, 2 / 3])
    height, width = (round(size / ratio), size) if ratio >= 1 else (size, round(size * ratio))
    background = (paint or paint_background)(factors, rng, height, width)
    return _add_subject(background, factors, rng)


def fractal(
    rng: np.random.Generator, height: int, width: int, cells: tuple[float, float], octaves: int = 4
) -> np.ndarray:
    """Smooth noise (height, width) of mean about 0 and standard deviation about 1.

    `cells` is the number of blobs (down, across) in the coarsest octave; each octave doubles it.
    """
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        rows, columns = (min(int(cell * 2**octave) + 3, 256) for cell in cells)
        grid = Image.fromarray(rng.standard_normal((rows, columns)).astype(np.float32))
        smooth = grid.resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(smooth) / 2**octave
    return total / (total.std() + 1e-6)


def mix(first: np.ndarray, second: np.ndarray | RGB, share: np.ndarray | float) -> np.ndarray:
    """Blend (H, W, 3) or (3,) colours: share 0 gives `first`, 1 gives `second`."""
    share = np.asarray(share, np.float32)
    share = share[..., None] if share.ndim == 2 else share
    return np.asarray(first, np.float32) * (1 - share) + np.asarray(second, np.float32) * share


def step(value: np.ndarray, edge: float | np.ndarray, softness: float) -> np.ndarray:
    """0 below `edge`, 1 above it, linear over `softness` around it."""
    return np.clip((value - edge) / softness + 0.5, 0, 1)


@dataclass(frozen=True)
class View:
    """Where a background is painted: heights (H, W) and columns (1, W) in about 0..1."""

    factors: Factors
    rng: np.random.Generator
    down: np.ndarray
    across: np.ndarray
    horizon: float


def paint_background(
    factors: Factors, rng: np.random.Generator, height: int, width: int
) -> np.ndarray:
    """Painted background (H, W, 3) in 0..1 with its faults, without subject."""
    tilt = np.tan(np.radians((1 - factors.values["level"]) * rng.choice([-11, 11])))
    across = np.linspace(0, 1, width, dtype=np.float32)[None, :]
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    # every layer is painted in tilted heights, so that all of them lean alike
    down = down + tilt * (across - 0.5) * width / height
    view = View(factors, rng, down, across, rng.uniform(0.55, 0.72))
    match factors.scene:
        case "Sky":
            image = _hills(sky(view), view, layers=1, lower=0.2)
        case "Seascapes":
            image = _sea(sky(view), view)
        case "Landscape":
            image = _hills(sky(view), view, layers=3)
        case "Cityscape" | "Night":
            image = _city(sky(view), view)
        case "Floral":
            image = _bokeh(view)
    return _spoil(_clutter(image, view), view)


def sky(view: View) -> np.ndarray:
    rng, (height, width) = view.rng, view.down.shape
    zenith, low, _ = MOODS[view.factors.mood]
    if view.factors.scene == "Night":
        zenith, low = np.multiply(zenith, (0.2, 0.25, 0.45)), np.multiply(low, (0.55, 0.45, 0.6))
    image = mix(np.asarray(zenith), low, np.clip(view.down / view.horizon, 0, 1) ** 1.4)
    clouds = fractal(rng, height, width, (3, 1.5))
    cover = step(clouds, rng.uniform(0.3, 1.0), 1.6) * rng.uniform(0.4, 0.8)
    tint = mix(np.asarray(low), (1, 1, 1), 0.45 if view.factors.scene != "Night" else 0.0)
    image = mix(image, tint, cover)
    sun, sun_height = rng.uniform(0.15, 0.85), view.horizon - rng.uniform(0.05, 0.3)
    away = ((view.across - sun) * width / height) ** 2 + (view.down - sun_height) ** 2
    image = mix(image, (1, 0.95, 0.8), 0.55 * np.exp(-away / 0.02) + 0.25 * np.exp(-away / 0.15))
    return mix(image, (1, 1, 0.92), step(-away, -0.0015, 0.0008))


def _sea(image: np.ndarray, view: View) -> np.ndarray:
    rng, (height, width) = view.rng, image.shape[:2]
    waves = fractal(rng, height, width, (24, 3), octaves=3)
    water = image[::-1] * np.array((0.62, 0.74, 0.86), np.float32)
    water = water * (1 + 0.13 * waves * np.clip(view.down - view.horizon + 0.15, 0, 1))[..., None]
    away = (view.across - rng.uniform(0.2, 0.8)) / 0.08
    glitter = np.exp(-(away**2)) * step(waves, 0.7, 0.8)
    water = mix(water, (1, 0.95, 0.82), 0.5 * glitter)
    return mix(image, water, step(view.down, view.horizon, 0.012))


def _hills(image: np.ndarray, view: View, layers: int, lower: float = 0.0) -> np.ndarray:
    height, width = image.shape[:2]
    _, low, ground = MOODS[view.factors.mood]
    for layer in range(layers):
        near = (layer + 1) / layers
        ridge = fractal(view.rng, 1, width, (1, 2 + layer))[0]
        edge = view.horizon + lower - 0.12 + 0.16 * layer + ridge * 0.05
        # distant hills take the colour of the sky, as air does it
        colour = mix(np.asarray(low), ground, 0.35 + 0.65 * near)
        texture = 1 + 0.16 * near * fractal(view.rng, height, width, (16, 10), octaves=3)
        image = mix(image, colour * texture[..., None], step(view.down, edge[None], 0.012))
    return image


def _city(image: np.ndarray, view: View) -> np.ndarray:
    rng, (height, width) = view.rng, image.shape[:2]
    _, low, ground = MOODS[view.factors.mood]
    night = view.factors.scene == "Night"
    for near in (0.4, 0.9):
        count = int(rng.integers(7, 12))
        house = np.minimum((view.across[0] * count).astype(int), count - 1)
        rise = rng.uniform(-0.05, 0.3, count)[house]
        edge = view.horizon - rise * (1.1 - 0.6 * near) + 0.1 * near
        colour = mix(np.asarray(low), np.multiply(ground, 0.45 if night else 1.0), near)
        wall = colour * rng.uniform(0.8, 1.2, count)[house][:, None]
        wall = np.broadcast_to(wall[None], image.shape)
        grid = np.sin(view.down * 150) * np.sin(view.across * 110) > 0.35
        lit = grid & (fractal(rng, height, width, (30, 30), octaves=1) > (0.0 if night else 0.8))
        wall = mix(wall, (1, 0.86, 0.5), lit * (0.85 if night else 0.3) * near)
        image = mix(image, wall, step(view.down, edge[None], 0.01))
    street = np.asarray(ground, np.float32) * (0.4 if night else 0.9)
    return mix(image, street, step(view.down, view.horizon + 0.22, 0.02))


def _bokeh(view: View) -> np.ndarray:
    rng, (height, width) = view.rng, view.down.shape
    zenith, low, ground = MOODS[view.factors.mood]
    green = mix(np.asarray(ground), (0.25, 0.5, 0.18), 0.6)
    soft = fractal(rng, height, width, (2, 2), octaves=2)
    image = mix(np.broadcast_to(green, (height, width, 3)), low, step(soft, 0.4, 2.5) * 0.8)
    image = mix(image, zenith, step(-soft, 0.5, 2.0) * 0.5)
    layer = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(layer)
    for _ in range(int(rng.integers(6, 14))):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        radius = rng.uniform(0.03, 0.08) * width
        tint = tuple(int(255 * c * 0.5) for c in mix(np.asarray(low), (1, 1, 0.8), 0.4))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tint)
    layer = layer.filter(ImageFilter.GaussianBlur(width / 120))
    light = np.asarray(layer, np.float32) / 255
    return 1 - (1 - np.clip(image, 0, 1)) * (1 - 0.7 * light)


def _clutter(image: np.ndarray, view: View) -> np.ndarray:
    """Poles, wires, boxes and signs that draw the eye away from the subject."""
    rng, (height, width) = view.rng, image.shape[:2]
    layer = Image.new("RGBA", (2 * width, 2 * height), (128, 128, 128, 0))
    draw = ImageDraw.Draw(layer)
    unit = 2 * max(height, width)
    for _ in range(round(26 * max(0.9 - view.factors.values["tidiness"], 0) ** 1.2)):
        x, y = rng.uniform(0, 2 * width), rng.uniform(0.4, 1) * 2 * height
        tone = rng.uniform(20, 90) if rng.uniform() < 0.6 else rng.uniform(170, 245)
        colour = tuple(int(c) for c in np.clip(tone + rng.normal(0, 22, 3), 0, 255))
        kind = rng.integers(5)
        if kind == 0:  # wire
            ends = (0, y - 0.4 * unit, 2 * width, y - rng.uniform(0.3, 0.5) * unit)
            draw.line(ends, fill=colour, width=round(0.006 * unit))
        elif kind < 3:  # pole with a cross-arm, or a sign on its post
            wide, tall = 0.007 * unit, rng.uniform(0.2, 0.45) * unit
            arm, deep = ((0.035, 0.008), (0.04, 0.06))[kind - 1]
            draw.rectangle((x - wide, y - tall, x + wide, y), fill=colour)
            arm, deep = arm * unit, deep * unit
            draw.rectangle((x - arm, y - tall, x + arm, y - tall + deep), fill=colour)
        else:  # rubbish
            wide, tall = rng.uniform(0.015, 0.05, 2) * unit
            draw.rectangle((x - wide, y - tall, x + wide, y + tall), fill=colour)
    pixels = np.asarray(layer.reduce(2), np.float32) / 255
    return mix(image, pixels[..., :3], pixels[..., 3] * 0.9)


def _spoil(image: np.ndarray, view: View) -> np.ndarray:
    """Take colour, depth and neutrality from the background as its factors say."""
    values = view.factors.values
    light = image @ np.array((0.3, 0.59, 0.11), np.float32)
    image = mix(light[..., None], image, 0.05 + 1.2 * values["richness"])
    veil = 0.35 if view.factors.scene == "Night" else 0.74
    image = veil + (image - veil) * (0.25 + 0.85 * values["clarity"])
    cast = np.array(((0.9, 1.08, 0.85), (1.1, 0.9, 1.05))[view.rng.integers(2)], np.float32)
    return np.clip(image * mix(cast, (1, 1, 1), values["neutral"]), 0, 1)


def _add_subject(
    background: np.ndarray, factors: Factors, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The background with the subject before it, sharp or blurred, clear or lost; its opacity."""
    values = factors.values
    height, width = background.shape[:2]
    scale = 3
    layer = Image.new("RGBA", (width * scale, height * scale), (0, 0, 0, 0))
    span = rng.uniform(0.6, 0.78) * min(height * 0.95, width) * scale
    third, wrong = rng.choice([(0.34, 0.5), (0.66, 0.5), (0.34, 0.0), (0.66, 1.0)])
    x = third + (wrong - third) * (1 - values["placement"]) ** 1.5
    base = 0.82 if factors.subject in AIRBORNE else rng.uniform(0.9, 0.97)
    brush = Brush(ImageDraw.Draw(layer), x * width * scale, base * height * scale, span)
    SUBJECTS[factors.subject](brush, rng)
    blur = 0.026 * max(height, width) * (1 - values["sharpness"]) ** 1.2
    layer = layer.reduce(scale)
    # PIL filters colour and alpha apart: blur the premultiplied form, else edges turn black
    layer = layer.convert("RGBa").filter(ImageFilter.GaussianBlur(blur))
    pixels = np.asarray(layer.convert("RGBA"), np.float32) / 255
    colour, alpha = pixels[..., :3], pixels[..., 3]
    grain = fractal(rng, height, width, (14, 14), octaves=3)
    side = np.linspace(1, -1, width, dtype=np.float32)[None] - (1 - 2 * x)
    colour = colour * (1 + 0.08 * values["sharpness"] * grain + 0.3 * side)[..., None]
    light = colour @ np.array((0.3, 0.59, 0.11), np.float32)
    colour = mix(light[..., None], colour, 0.08 + 1.1 * values["colour"])
    share = alpha / (alpha.sum() + 1e-6)
    behind = (background * share[..., None]).sum((0, 1))
    colour = behind + (colour - behind) * (0.22 + 0.88 * values["contrast"])
    return mix(background, np.clip(colour, 0, 1), alpha), alpha


def _develop(image: np.ndarray, factors: Factors, rng: np.random.Generator) -> Image.Image:
    """Exposure, sensor noise and a first, possibly poor, JPEG coding."""
    stops = rng.choice([-1.1, 0.8]) * (1 - factors.values["exposure"]) ** 1.5
    dirt = (1 - factors.values["cleanness"]) ** 1.5
    image = np.clip(image, 0, 1) * 2**stops
    image = image + rng.standard_normal(image.shape, dtype=np.float32) * (0.004 + 0.06 * dirt)
    photo = Image.fromarray((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8))
    coded = io.BytesIO()
    photo.save(coded, "JPEG", quality=int(92 - 60 * dirt))
    return Image.open(coded).convert("RGB")


class Brush:
    """Draws in the subject's own units: x to the right of its middle, y up from its base."""

    def __init__(self, draw: ImageDraw.ImageDraw, x: float, y: float, span: float) -> None:
        self.draw, self.x, self.y, self.span = draw, x, y, span

    def shape(self, points: Sequence[tuple[float, float]], colour: RGB) -> None:
        placed = [(self.x + x * self.span, self.y - y * self.span) for x, y in points]
        self.draw.polygon(placed, fill=tuple(int(255 * min(max(c, 0), 1)) for c in colour))

    def oval(
        self, x: float, y: float, wide: float, tall: float, colour: RGB, turn: float = 0.0
    ) -> None:
        """Ellipse of half axes `wide` and `tall`, turned by `turn` radians."""
        angle = np.linspace(0, 2 * np.pi, 28)
        u, v = wide * np.cos(angle), tall * np.sin(angle)
        cos, sin = np.cos(turn), np.sin(turn)
        self.shape(list(zip(x + u * cos - v * sin, y + u * sin + v * cos, strict=True)), colour)


def _vivid(rng: np.random.Generator) -> np.ndarray:
    """A strong colour as clothes, sails and petals have it."""
    hues = ((0.88, 0.12, 0.12), (0.97, 0.50, 0.06), (0.98, 0.80, 0.10), (0.86, 0.14, 0.52))
    return np.clip(np.array(hues[rng.integers(len(hues))]) + rng.normal(0, 0.03, 3), 0, 1)


def _tree(brush: Brush, rng: np.random.Generator) -> None:
    brush.shape([(-0.06, 0), (0.07, 0), (0.03, 0.5), (-0.03, 0.5)], (0.28, 0.17, 0.09))
    leaf = np.array(((0.16, 0.46, 0.10), (0.82, 0.42, 0.06), (0.78, 0.16, 0.10))[rng.integers(3)])
    for shade in np.linspace(0.6, 1.45, 22):
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.24)
        x, y = reach * np.cos(angle) * 1.1 - (shade - 1) * 0.1, 0.66 + reach * np.sin(angle)
        brush.oval(x, y + (shade - 1) * 0.08, 0.13, 0.11, leaf * shade)


def _boat(brush: Brush, rng: np.random.Generator) -> None:
    hull, sail = _vivid(rng), _vivid(rng)
    brush.shape([(-0.02, 0.12), (0.0, 0.12), (0.0, 1), (-0.02, 1)], (0.3, 0.2, 0.12))
    brush.shape([(0.02, 0.2), (0.4, 0.22), (0.02, 0.96)], (0.97, 0.96, 0.92))
    brush.shape([(0.02, 0.2), (0.4, 0.22), (0.25, 0.48), (0.02, 0.5)], sail)
    brush.shape([(-0.04, 0.22), (-0.34, 0.24), (-0.04, 0.88)], sail * 0.9)
    brush.shape([(-0.42, 0.17), (0.46, 0.17), (0.32, 0), (-0.3, 0)], hull)
    brush.shape([(-0.42, 0.17), (0.46, 0.17), (0.44, 0.13), (-0.4, 0.13)], (0.97, 0.97, 0.95))


def _house(brush: Brush, rng: np.random.Generator) -> None:
    roof = _vivid(rng) * 0.9
    brush.shape([(0.16, 0.6), (0.25, 0.6), (0.25, 0.92), (0.16, 0.92)], (0.5, 0.3, 0.24))
    brush.shape([(-0.36, 0), (0.36, 0), (0.36, 0.52), (-0.36, 0.52)], (0.95, 0.90, 0.80))
    brush.shape([(0.12, 0), (0.36, 0), (0.36, 0.52), (0.12, 0.52)], (0.76, 0.70, 0.62))
    brush.shape([(-0.44, 0.5), (0.44, 0.5), (0.18, 0.86), (-0.2, 0.86)], roof)
    brush.shape([(-0.08, 0), (0.06, 0), (0.06, 0.3), (-0.08, 0.3)], roof * 0.6)
    for x in (-0.28, 0.18):
        brush.shape([(x, 0.2), (x + 0.13, 0.2), (x + 0.13, 0.38), (x, 0.38)], (0.98, 0.86, 0.45))


def _bird(brush: Brush, rng: np.random.Generator) -> None:
    coat = _vivid(rng)
    brush.shape([(-0.16, 0.42), (-0.5, 0.3), (-0.46, 0.46)], coat * 0.6)
    brush.shape([(-0.12, 0.46), (0.16, 0.48), (-0.12, 0.98), (-0.3, 0.9)], coat * 0.72)
    brush.oval(0.0, 0.44, 0.27, 0.12, coat, 0.15)
    brush.oval(0.05, 0.39, 0.2, 0.07, (0.97, 0.93, 0.84), 0.15)
    brush.oval(0.26, 0.53, 0.1, 0.09, coat * 1.1)
    brush.shape([(0.34, 0.56), (0.48, 0.5), (0.34, 0.49)], (0.95, 0.62, 0.1))
    brush.oval(0.29, 0.55, 0.02, 0.02, (0.05, 0.05, 0.05))
    brush.shape([(-0.12, 0.44), (0.12, 0.44), (0.02, 0.2), (-0.28, 0.02)], coat * 0.85)


def _flower(brush: Brush, rng: np.random.Generator) -> None:
    petal, count = _vivid(rng), int(rng.integers(7, 11))
    brush.shape([(-0.02, -0.2), (0.02, -0.2), (0.02, 0.6), (-0.015, 0.6)], (0.2, 0.46, 0.12))
    brush.oval(0.14, 0.14, 0.16, 0.055, (0.24, 0.54, 0.14), 0.6)
    brush.oval(-0.14, 0.06, 0.16, 0.055, (0.18, 0.44, 0.12), 2.5)
    for ring, shade in ((0.24, 0.82), (0.19, 1.1)):
        for angle in np.arange(count) * 2 * np.pi / count + ring * 9:
            x, y = ring * np.cos(angle), 0.64 + ring * np.sin(angle)
            brush.oval(x, y, 0.15, 0.075, petal * (shade + 0.12 * np.sin(angle)), angle)
    brush.oval(0, 0.64, 0.1, 0.1, (0.36, 0.2, 0.06))
    brush.oval(-0.02, 0.66, 0.06, 0.06, (0.72, 0.48, 0.1))


def _balloon(brush: Brush, rng: np.random.Generator) -> None:
    first, second = _vivid(rng), np.array((0.98, 0.94, 0.84))
    turn = np.linspace(0, np.pi, 24)
    # gores from the rim inwards, each a narrower teardrop over the one before
    for wide, colour in ((0.36, first), (0.28, second), (0.19, first), (0.09, second)):
        edge = [(wide * np.sin(a) * (1 - 0.25 * (a > 1.9)), 0.64 + 0.36 * np.cos(a)) for a in turn]
        brush.shape(edge + [(-x, y) for x, y in reversed(edge)], colour * (0.8 + wide * 0.55))
    for x in (-0.06, 0.05):
        brush.shape([(x, 0.12), (x + 0.012, 0.12), (x + 0.012, 0.32), (x, 0.32)], (0.2, 0.15, 0.1))
    brush.shape([(-0.08, 0.14), (0.08, 0.14), (0.06, 0), (-0.06, 0)], (0.5, 0.3, 0.14))


def _person(brush: Brush, rng: np.random.Generator) -> None:
    coat, shade = _vivid(rng), _vivid(rng)
    for x in (-0.08, 0.02):
        brush.shape([(x, 0), (x + 0.06, 0), (x + 0.07, 0.34), (x - 0.01, 0.34)], (0.1, 0.1, 0.16))
    brush.shape([(-0.15, 0.26), (0.14, 0.26), (0.08, 0.62), (-0.09, 0.62)], coat)
    brush.shape([(0.06, 0.6), (0.16, 0.48), (0.13, 0.44), (0.02, 0.52)], coat * 0.75)
    brush.oval(0, 0.69, 0.065, 0.075, (0.86, 0.64, 0.5))
    brush.oval(-0.01, 0.73, 0.068, 0.05, (0.2, 0.12, 0.07))
    brush.shape([(0.13, 0.46), (0.15, 0.46), (0.1, 0.98), (0.08, 0.98)], (0.15, 0.12, 0.1))
    dome = [(0.08 + 0.36 * np.cos(a), 0.8 + 0.2 * np.sin(a)) for a in np.linspace(0, np.pi, 20)]
    brush.shape(dome, shade)
    brush.shape([(0.08, 1.0), (-0.06, 0.8), (0.2, 0.8)], shade * 0.8)


SUBJECTS: dict[str, Callable[[Brush, np.random.Generator], None]] = {
    "balloon": _balloon,
    "bird": _bird,
    "boat": _boat,
    "flower": _flower,
    "house": _house,
    "person": _person,
    "tree": _tree,
}
