"""Training losses, functions of tensors."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """A loss that is a mean over a batch's images, or the root of one.

    This form allows micro-batches: the mean is taken over all of them, and the derivative of the
    root is the same factor for each.

    Attributes:
        terms: maps predictions and targets, (B, K) each, to one term an image, (B,).
        root: take the square root of the terms' mean.
    """

    terms: Callable[[Tensor, Tensor], Tensor]
    root: bool = False

    def __call__(self, predicted: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch, a scalar."""
        return self.of_mean(self.terms(predicted, target).mean())

    def of_mean(self, mean: Tensor) -> Tensor:
        """The loss, from the mean of its terms."""
        return mean.sqrt() if self.root else mean

    def slope(self, mean: Tensor) -> Tensor:
        """The derivative of the loss by the mean of its terms."""
        return 0.5 / mean.sqrt() if self.root else mean.new_ones(())


def squared_emd(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of the cumulative shares of each image: (B, K) twice to (B,).

    Raises:
        ValueError: the shapes differ.
    """
    if predicted.shape != target.shape or predicted.ndim != 2:
        raise ValueError(
            f"EMD needs two (B, K) tensors, got {tuple(predicted.shape)} and {tuple(target.shape)}"
        )
    gap = predicted - target
    if gap.element_size() < 4:
        gap = predicted.float() - target.float()
    return gap.cumsum(dim=1).square().mean(dim=1)


def squared_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared error of scores, (B, K) or (B,) each, its mean over K targets: (B,).

    Raises:
        ValueError: the numbers of scores differ.
    """
    if predicted.numel() != target.numel():
        raise ValueError(
            f"MSE needs as many predictions as targets, got {tuple(predicted.shape)} and "
            f"{tuple(target.shape)}"
        )
    return (predicted.flatten() - target.flatten()).square().view(len(target), -1).mean(dim=1)


LOSSES = {
    "emd": Loss(squared_emd, root=True),
    "emd_per_image": Loss(lambda predicted, target: squared_emd(predicted, target).sqrt()),
    "mse": Loss(squared_error),
}


def choose_loss(option: str | None, model: str, num_outputs: int) -> Loss:
    """The loss of a run, as ``optim.loss`` or else the model's name and outputs choose it.

    Raises:
        ValueError: there is no loss of that name.
    """
    if option is None and not model.endswith("_released"):
        option = "emd_per_image" if num_outputs > 1 else "mse"
    elif option in (None, "released"):
        option = "emd" if num_outputs > 1 else "mse"
    if option not in LOSSES:
        names = ", ".join(LOSSES)
        raise ValueError(f"optim.loss is {option!r:.100}: expected {names}, released or null")
    return LOSSES[str(option)]
