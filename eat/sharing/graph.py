"""A checkpoint as one network: from pixels, or from normalised images, to score and votes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from eat.checkpoint import CheckpointInfo
from eat.data.colours import in_srgb
from eat.data.scales import Scales, mean_scores
from eat.models import AestheticModel

CUBIC = -0.5  # slope of PIL's bicubic filter at a distance of one pixel


def filter_weights(old: int, new: int, interpolation: str) -> Tensor:
    """Weights of the pixels of a row of ``old`` in one of ``new``, as PIL has them: (new, old)."""
    ratio = torch.full((), old, dtype=torch.float32) / new
    centres = (torch.arange(new) + 0.5) * ratio
    distances = (torch.arange(old) + 0.5 - centres[:, None]).abs() / ratio.clamp(min=1)
    weights = triangle(distances) if interpolation == "bilinear" else cubic(distances)
    return weights / weights.sum(dim=1, keepdim=True)


def triangle(x: Tensor) -> Tensor:
    """The filter of a bilinear resize at distances in pixels."""
    return (1 - x).relu()


def cubic(x: Tensor) -> Tensor:
    """The filter of a bicubic resize at distances in pixels (Keys, 1981)."""
    near = ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    far = CUBIC * (((x - 5) * x + 8) * x - 4)
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def resize(pixels: Tensor, size: int, interpolation: str) -> Tensor:
    """Resize (B, H, W, 3), in 0..255, to (B, size, size, 3), rounded after each axis as by PIL."""
    across = filter_weights(pixels.shape[2], size, interpolation)
    down = filter_weights(pixels.shape[1], size, interpolation)
    wide = (across @ pixels.float() + 0.5).floor().clamp(0, 255)
    return (down @ wide.flatten(2) + 0.5).floor().clamp(0, 255).unflatten(2, (size, 3))


class Rater(nn.Module):
    """A model between what a user has and what a user wants, for images of any number.

    Args:
        model: gives each image its own points; it is cast to ``dtype``, in place.
        info: of its checkpoint.
        scales: of the scores, by target.
        pixels: take uint8 (B, size, size, 3) pixels, RGB; False takes normalised float32
            (B, 3, size, size).
        resize: take pixels (B, H, W, 3) of any size.
        dtype: in which the model computes. What it computes in float32 anyway stays so: positions
            and the sampling at them.
    """

    weights: Tensor
    base: Tensor

    def __init__(
        self,
        model: AestheticModel,
        info: CheckpointInfo,
        scales: Scales,
        *,
        pixels: bool = False,
        resize: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.model = model.to(dtype).eval()
        self.preprocessing = info.preprocessing
        self.pixels, self.resize, self.dtype = pixels, resize, dtype

        self.output_names = [*scales, *["votes"] * (info.num_votes > 0)]

        def scores(outputs: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.stack([*mean_scores(outputs, scales, info.scales).values()], axis=1)

        # Scores are linear in the outputs, and so these values tell all of them.
        base = scores(np.zeros((1, model.num_outputs)))
        weights = scores(np.eye(model.num_outputs)) - base
        self.register_buffer("base", torch.from_numpy(base).float())
        self.register_buffer("weights", torch.from_numpy(weights).float())

    @property
    def input_name(self) -> str:
        """What it takes: "pixels" or normalised "images"."""
        return "pixels" if self.pixels else "images"

    @property
    def input_shape(self) -> tuple[int | str, ...]:
        """Shape of what it takes, with names for sides of any size."""
        side = self.preprocessing.size
        if not self.pixels:
            return "batch", 3, side, side
        return ("batch", "height", "width", 3) if self.resize else ("batch", side, side, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images as ``input_shape`` says -> scores (B,) by target, votes (B, K) if there are."""
        if self.resize:
            x = resize(x, self.preprocessing.size, self.preprocessing.interpolation)
        if self.pixels:
            x = self.preprocessing.normalise(x.permute(0, 3, 1, 2))
        outputs = self.model(x.to(self.dtype)).float()
        scores = (outputs @ self.weights + self.base).unbind(dim=1)
        return (*scores, outputs)[: len(self.output_names)]

    def taken(self, files: Sequence[Path]) -> NDArray[Any]:
        """Photographs as it takes them; with ``resize`` all must be of one size.

        Raises:
            ImageError: one cannot be read.
        """
        if self.resize:
            photos = map(self.preprocessing.read, files)
            return np.stack([np.array(in_srgb(p.image(), p.transform)) for p in photos])
        pixels = torch.stack([self.preprocessing.evaluation(file) for file in files])
        ready = pixels.permute(0, 2, 3, 1) if self.pixels else self.preprocessing.normalise(pixels)
        return ready.contiguous().numpy()

    @torch.no_grad()
    def rate(self, images: NDArray[Any]) -> list[NDArray[Any]]:
        """What ``taken`` gave -> each target's scores (B,), and votes (B, K) if there are."""
        return [output.numpy() for output in self(torch.from_numpy(images))]

    def program(self) -> torch.export.ExportedProgram:
        """The network as PyTorch's exported program, for any number of images."""
        # Sides that differ: equal ones would be taken for one side.
        sides = [
            side if isinstance(side, int) else 4 + i for i, side in enumerate(self.input_shape)
        ]
        names = {
            i: torch.export.Dim(side, min=1)
            for i, side in enumerate(self.input_shape)
            if isinstance(side, str)
        }
        example = torch.zeros(sides, dtype=torch.uint8 if self.pixels else torch.float32)
        with torch.no_grad():
            program = torch.export.export(self, (example,), dynamic_shapes=(names,))
        for node in program.graph.nodes:  # it names files of this machine
            node.meta.pop("stack_trace", None)
        return program
