"""Random draws of training, one per image, the same however a step's batch is split up."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Among = tuple[Tensor, int] | None  # rows, and the size of the batch that they are of
Branch = Callable[[Tensor, Tensor | None], Tensor]


class Noisy(nn.Module):
    """A module that draws at random for each image while training.

    A batch may be a part of a larger one that several processes, or several passes, share. Each
    then draws for the whole batch and takes its own rows, so that with equal random states the
    parts together draw what the whole would.

    Attributes:
        rows: the first image's place in the whole batch, and the whole batch's size; None if the
            batch is whole.
    """

    rows: tuple[int, int] | None = None

    def draw(self, count: int, sample: Callable[[int], Tensor]) -> Tensor:
        """``sample(n)`` for the whole batch, cut to the ``count`` images at hand."""
        if self.rows is None:
            return sample(count)
        first, whole = self.rows
        return sample(whole)[first : first + count]


class DropPath(Noisy):
    """Stochastic depth: leave a branch out for some images, and scale it up for the others.

    While training, the branch is computed for the others alone, which saves their share of time and
    memory. Where the number of images must not change, a mask does the same: in a compiled model,
    and for a branch that looks at the images together.

    Args:
        rate: chance to be left out while training, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def kept(self, count: int, device: torch.device | str = "cpu") -> Tensor:
        """Draw for which of ``count`` images the branch counts: (count,) bool."""
        return self.draw(count, lambda n: torch.rand(n, device=device) >= self.rate)

    def forward(self, x: Tensor, branch: Branch, *, together: bool = False) -> Tensor:
        """``x`` and what the branch adds to it.

        Args:
            x: (B, ...).
            branch: takes some images, and which of the B they are, (N,) or None for all.
            together: compute the branch for all images at once.
        """
        if not self.training or self.rate == 0:
            return x + branch(x, None)
        scale = 1 / (1 - self.rate)
        if together or torch.compiler.is_compiling():
            mask = self.kept(len(x), x.device).to(x.dtype) * scale
            return x + branch(x, None) * mask.view(-1, *[1] * (x.ndim - 1))
        rows = self.kept(len(x)).nonzero().flatten()  # drawn where the program runs: no waiting
        if len(rows) == len(x):
            return x + branch(x, None) * scale
        if not len(rows):  # one image for nothing, so that all weights get a gradient
            rows, scale = rows.new_zeros(1), 0.0
        rows = rows.to(x.device, non_blocking=True)
        added = branch(x.index_select(0, rows), rows)
        return x.index_add(0, rows, added.to(x.dtype), alpha=scale)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"
