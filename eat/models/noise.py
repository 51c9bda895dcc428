"""Random draws of training, one per image, the same however a step's batch is split up."""

from collections.abc import Callable

from torch import Tensor, nn


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
    """Stochastic depth: zero a branch for some images, and scale it up for the others.

    Args:
        rate: chance to be zeroed while training, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...)."""
        if not self.training or self.rate == 0:
            return x
        kept = 1 - self.rate
        shape = [1] * (x.ndim - 1)
        mask = self.draw(len(x), lambda n: x.new_empty(n, *shape).bernoulli_(kept))
        return x * mask.div_(kept)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"
