"""Random draws of training: one per image, and the same however a batch is divided up."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Subset(NamedTuple):
    """Some images of a batch.

    Attributes:
        images: (N,) their places in the batch, ascending.
        total: images in the batch.
    """

    images: Tensor
    total: int


Branch = Callable[[Tensor, Subset | None], Tensor]


class PerImageNoise(nn.Module):
    """A module that draws at random for each image while training.

    Several processes, or several accumulation steps, may share a batch. Each then draws for all of
    its images and takes those at hand, so that with equal random states the slices draw what the
    undivided batch would.

    Attributes:
        batch_slice: place of the first image in the shared batch, and images in that batch; None
            for a batch that is not shared.
        first, total: the same two numbers for a compiled model, the first as a tensor on the
            model's device. A number would be compiled in, and each other one compiled anew.
    """

    batch_slice: tuple[int, int] | None = None
    first: Tensor | None = None
    total: int = 0

    def draw(
        self, count: int, sample: Callable[[int], Tensor], subset: Subset | None = None
    ) -> Tensor:
        """Draw for all images of the batch, and take the ``count`` at hand: (count, ...).

        Args:
            count: images at hand.
            sample: draws for n images: (n, ...).
            subset: which images of the batch they are; None for all.
        """
        size = count if subset is None else subset.total
        if torch.compiler.is_compiling():
            drawn = sample(self.total or size)
            if self.first is not None:
                drawn = drawn[self.first + torch.arange(size, device=drawn.device)]
        else:
            first, total = self.batch_slice or (0, size)
            drawn = sample(total)[first : first + size]
        return drawn if subset is None else drawn[subset.images]


class DropPath(PerImageNoise):
    """Stochastic depth: drop a residual branch for some images, and scale it up for the others.

    While training, the branch is computed only for the images that keep it, which saves a quarter
    of a training step at a rate of 0.5. Where the number of images must not change, a mask does the
    same: in a compiled model, and for a branch that needs all images.

    Args:
        rate: chance of an image to drop the branch while training, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def kept(self, count: int, device: torch.device | str = "cpu") -> Tensor:
        """Draw which of ``count`` images keep the branch: (count,) bool."""
        return self.draw(count, lambda n: torch.rand(n, device=device) >= self.rate)

    def forward(self, branch: Branch, x: Tensor, *, needs_all: bool = False) -> Tensor:
        """``branch(x)``, with zeros for the images that drop it: (B, ...) -> (B, ...).

        Args:
            branch: from (N, ...) images, and the subset of ``x`` that they are (None for all of
                it), to as many of the same shape.
            x: (B, ...).
            needs_all: the branch is computed for all images at once.
        """
        if not self.training or self.rate == 0:
            return branch(x, None)
        scale = 1 / (1 - self.rate)
        if needs_all or torch.compiler.is_compiling():
            mask = self.kept(len(x), x.device).to(x.dtype) * scale
            return branch(x, None) * mask.view(-1, *[1] * (x.ndim - 1))
        kept = self.kept(len(x)).nonzero().flatten()  # drawn on the CPU, to avoid a GPU sync
        if len(kept) == len(x):
            return branch(x, None) * scale
        if not len(kept):  # one image, times zero, so that all weights get a gradient
            kept, scale = kept.new_zeros(1), 0.0
        kept = kept.to(x.device, non_blocking=True)
        y = branch(x.index_select(0, kept), Subset(kept, len(x)))
        return torch.zeros_like(x).index_add_(0, kept, y.to(x.dtype), alpha=scale)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"
