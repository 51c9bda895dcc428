"""The options of the commands that make something for others: ``eat export`` and ``eat share``."""

from dataclasses import dataclass
from typing import Literal

from eat.config.model import ModelOptions


@dataclass(kw_only=True)
class ExportOptions(ModelOptions):
    """A checkpoint as a file that scores photographs without this package.

    Attributes:
        out: file to write: FILE.onnx, or FILE.pt2 of torch-export. It appears once its scores were
            compared with PyTorch's, and agree.
        format: onnx (needs pip install 'eat-iaa[export]') or torch-export.
        pixels: take RGB pixels of the model's size, uint8 (B, H, W, 3); else normalised images,
            float32 (B, 3, H, W).
        resize: take pixels of photographs of any size, those of a batch of one size.
        scale: ten gives scores from 1 to 10; own leaves them on the scale that the model learnt.
        precision: fp32, fp16, bf16 (torch-export alone), or int8 (onnx alone): weights of matrix
            products in 8 bits.
        images: folder of photographs to compare scores on; null draws some.
        labels: label file or folder of these images; SRCC before and after is told.
        name: data set of the labels; null takes the one that the model was trained on.
        own_rule: for models that only compare images with one another (TANet): compare each image
            with copies of itself. This rule is ours, not their authors'.
    """

    out: str
    format: Literal["onnx", "torch-export"] = "onnx"
    pixels: bool = False
    resize: bool = False
    scale: Literal["ten", "own"] = "ten"
    precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"
    images: str | None = None
    labels: str | None = None
    name: str | None = None
    own_rule: bool = False


@dataclass(kw_only=True)
class ShareOptions(ModelOptions):
    """A checkpoint as a folder or repository that timm and the Hugging Face hub take.

    Attributes:
        out: a new folder, or hf-hub:ORGANISATION/NAME.
    """

    out: str
