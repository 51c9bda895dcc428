"""The options of the commands that make pictures and pages: one dataclass a command."""

from dataclasses import dataclass
from typing import Literal

from eat.config.commands import Precision


@dataclass
class PointsOptions:
    """A picture of where a model looks in a photograph.

    Attributes:
        checkpoint: the model: a run or its checkpoint, one of the authors' `.pth` files, a folder
            of eat share, or hf-hub:NAME.
        model: FILE.py:FUNCTION that made the model of the checkpoint, if it is one of your own.
        out: PNG to write.
        every_block: show all blocks that sample positions; else of more than four the first and
            the last two.
    """

    checkpoint: str
    model: str | None = None
    out: str = "points.png"
    every_block: bool = False


@dataclass
class SaliencyOptions:
    """A picture of what a model's score of a photograph comes from.

    Attributes:
        checkpoint: the model: a run or its checkpoint, one of the authors' `.pth` files, a folder
            of eat share, or hf-hub:NAME.
        model: FILE.py:FUNCTION that made the model of the checkpoint, if it is one of your own.
        out: PNG to write.
        method: rollout (attention, followed from the block back to the photograph), gradcam (where
            features raise the expected score; needs pip install 'eat-iaa[saliency]') or gradient
            (its size).
        block: name of the block, such as stages.2.blocks.1; null takes the last.
        layer: of the block, for gradcam and gradient: its input to attention (norm1) or to the MLP.
        mask: an image of the photograph's size, white where the foreground is; the shares of
            foreground and background are printed.
    """

    checkpoint: str
    model: str | None = None
    out: str = "saliency.png"
    method: Literal["rollout", "gradcam", "gradient"] = "rollout"
    block: str | None = None
    layer: Literal["norm1", "norm2"] = "norm1"
    mask: str | None = None


@dataclass
class GalleryOptions:
    """A page of photographs by their scores; with labels, of a model's errors, the worst first.

    Attributes:
        checkpoint: the model: a run or its checkpoint, one of the authors' `.pth` files, a folder
            of eat share, or hf-hub:NAME.
        model: FILE.py:FUNCTION that made the model of the checkpoint, if it is one of your own.
        out: folder of the page, which index.html in it opens. A gallery that is there is replaced.
        near: bits of 64 in which the difference hashes of near-duplicates differ at most, 0 to 16;
            null groups none.
        thumbnail: longer side of the thumbnails in pixels.
        labels: label file or folder of the images in the one folder given.
        name: data set of the labels; null takes the one that the model was trained on.
        low: lowest score of the data set `table`; null takes 1.
        high: highest score of it; null takes 10.
        test: label file or id list of the test split.
        split: train, val or test; null takes test if the labels have such a split, else all.
        slice_by: columns of the label table; metrics of each of their values are shown.
        device: auto (a GPU if there is one), cpu, cuda, cuda:1 (the second) or mps.
        precision: fp32, bf16 or fp16.
        batch_size: images a forward pass at most; null takes 8 on a CPU and 16 on a GPU.
        workers: threads that decode images ahead of the model; null takes one a core, at most 16.
        own_rule: score models that only compare images with one another (TANet), as `eat score`.
    """

    checkpoint: str
    model: str | None = None
    out: str = "gallery"
    near: int | None = 4
    thumbnail: int = 320
    labels: str | None = None
    name: str | None = None
    low: float | None = None
    high: float | None = None
    test: str | None = None
    split: Literal["train", "val", "test"] | None = None
    slice_by: list[str] | None = None
    device: str = "auto"
    precision: Precision = "fp32"
    batch_size: int | None = None
    workers: int | None = None
    own_rule: bool = False


@dataclass
class ReportOptions:
    """The page of a run, or of up to four side by side.

    Attributes:
        out: folder of the page, which index.html in it opens. A page that is there is replaced.
    """

    out: str = "report"
