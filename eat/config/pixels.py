"""The pixels that a network takes: its row says which, and the data are made so."""

from dataclasses import dataclass
from typing import Literal

Interpolation = Literal["bicubic", "bilinear"]
Colours = Literal["as_stored", "as_shown"]
Channels = tuple[float, float, float]  # red, green and blue, of 0..1
IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Inputs:
    """What a model's weights were trained on.

    Attributes:
        mean: of the channels, which is subtracted.
        std: their deviation, which the difference is divided by.
        interpolation: filter that resizes photographs.
    """

    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD
    interpolation: Interpolation = "bicubic"
