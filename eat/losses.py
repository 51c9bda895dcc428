"""Training losses, functions of tensors."""

import torch
from torch import Tensor


def emd_loss(predicted: Tensor, target: Tensor, *, per_image: bool = False) -> Tensor:
    """Earth mover's distance between vote distributions, with squared differences.

    Args:
        predicted: (B, K) shares of the K scores.
        target: (B, K) shares, each row summing to 1.
        per_image: take the square root of each image's mean and average the roots (NIMA); by
            default one root is taken of the mean over the batch, as the authors' release does.

    Returns:
        A scalar, 0 or more.

    Raises:
        ValueError: the shapes differ.
    """
    if predicted.shape != target.shape or predicted.ndim != 2:
        raise ValueError(
            f"EMD needs two (B, K) tensors, got {tuple(predicted.shape)} and {tuple(target.shape)}"
        )
    gap = (predicted - target).float() if predicted.dtype != torch.float64 else predicted - target
    squared = gap.cumsum(dim=1).square()
    if per_image:
        return squared.mean(dim=1).sqrt().mean()
    return squared.mean().sqrt()


def mse_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of scores (B, 1) or (B,) on the target's scale.

    Raises:
        ValueError: the numbers of scores differ.
    """
    if predicted.numel() != target.numel():
        raise ValueError(
            f"MSE needs as many predictions as targets, got {tuple(predicted.shape)} and "
            f"{tuple(target.shape)}"
        )
    return (predicted.flatten() - target.flatten()).square().mean()


LOSSES = {
    "emd": emd_loss,
    "emd_per_image": lambda predicted, target: emd_loss(predicted, target, per_image=True),
    "mse": mse_loss,
}
