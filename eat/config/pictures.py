"""The options of the commands that make pictures and pages: one dataclass a command."""

from dataclasses import dataclass
from typing import Literal

from eat.config.labels import LabelOptions
from eat.config.model import CheckpointOptions, ScorerOptions


@dataclass(kw_only=True)
class FigureOptions(CheckpointOptions):
    """A figure of photographs, a row each.

    Attributes:
        width: of the figure in inches: 7 fills a page of two columns, 3.3 one of them.
    """

    width: float = 7.0


@dataclass(kw_only=True)
class PointsOptions(FigureOptions):
    """A picture of where a model looks in photographs, a row each, with their scores and votes.

    Attributes:
        out: file to write: .pdf and .svg have the marks as lines for print, .png as pixels.
        every_block: show all blocks that sample positions; else of more than four the first and
            the last two.
        heat: colour the photographs, then in grey, by the attention that they get.
    """

    out: str = "points.png"
    every_block: bool = False
    heat: bool = False


@dataclass(kw_only=True)
class SaliencyOptions(FigureOptions):
    """A picture of what a model's scores of photographs come from, a row each.

    Attributes:
        out: file to write: .pdf, .svg or .png.
        method: rollout (attention, followed from the block back to the photograph), gradcam (where
            features raise the expected score; needs pip install 'eat-iaa[saliency]') or gradient
            (its size).
        block: name of the block, such as stages.2.blocks.1; null takes the last.
        layer: of the block, for gradcam and gradient: its input to attention (norm1) or to the MLP.
        mask: an image of the one photograph's size, white where the foreground is; the shares of
            foreground and background are printed.
    """

    out: str = "saliency.png"
    method: Literal["rollout", "gradcam", "gradient"] = "rollout"
    block: str | None = None
    layer: Literal["norm1", "norm2"] = "norm1"
    mask: str | None = None


@dataclass(kw_only=True)
class GalleryOptions(LabelOptions, ScorerOptions):
    """A page of photographs by their scores; with labels, of a model's errors, the worst first.

    Attributes:
        out: folder of the page, which index.html in it opens. A gallery that is there is replaced.
        near: bits of 64 in which the difference hashes of near-duplicates differ at most, 0 to 16;
            null groups none.
        thumbnail: longer side of the thumbnails in pixels.
        labels: label file or folder of the images in the one folder given.
        split: train, val or test; null takes test if the labels have such a split, else all.
    """

    out: str = "gallery"
    near: int | None = 4
    thumbnail: int = 320
    split: Literal["train", "val", "test"] | None = None


@dataclass
class ReportOptions:
    """The page of a run, or of up to four side by side.

    Attributes:
        out: folder of the page, which index.html in it opens. A page that is there is replaced.
    """

    out: str = "report"
