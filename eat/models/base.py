"""The interface of a model of any family to training, scoring and evaluation."""

from torch import Tensor, nn

Record = dict[str, dict[str, Tensor]]  # what blocks attended to, by their names


class AestheticModel(nn.Module):
    """A network from normalised pixels to a score or a distribution over scores.

    A family overrides what concerns it. The defaults suit a model without random points.

    Attributes:
        num_outputs: width of the head: 10 for a distribution over the scores 1..10, 1 for a score.
        img_size: (height, width) of the usual input in pixels.
    """

    num_outputs: int
    img_size: tuple[int, int]

    @property
    def averages_points(self) -> bool:
        """Whether an image's interest points, and so its score, depend on the rest of its batch."""
        return False

    @property
    def mixes_images(self) -> bool:
        """Whether an image's score depends on the rest of its batch, by its points or otherwise."""
        return self.averages_points

    def use_own_points(self) -> None:
        """Make the score of every image independent of its batch from here on.

        Points that are averaged over a batch become each image's own.

        Raises:
            ValueError: the model has no scores of single images.
        """

    def enhanced_blocks(self) -> list[str]:
        """Names of the blocks that look at interest points of their own."""
        return []

    def set_epoch(self, epoch: int, num_epochs: int) -> None:
        """Adapt to the progress of training.

        Args:
            epoch: finished epochs, in [0, num_epochs].
            num_epochs: epochs of the run, at least 1.
        """

    def set_batch_slice(self, first: int, total: int) -> None:
        """Announce that the next batches are slices of a larger one, for draws per image.

        Args:
            first: place of the next batch's first image in the larger batch, from 0.
            total: images in the larger batch.
        """

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass instead of keeping them."""
        raise NotImplementedError

    def lr_factors(self, interest_lr: float) -> dict[str, float]:
        """Learning rates over the run's, by name, of the parameters that need another.

        Args:
            interest_lr: ``optim.interest_lr``.
        """
        return {}

    def no_weight_decay(self) -> set[str]:
        """Names of parameters, beside biases and 1-D ones, that must not be decayed."""
        return set()

    def reset_classifier(self, num_outputs: int) -> None:
        """Replace the head by a new one for ``num_outputs`` outputs."""
        raise NotImplementedError

    def forward(self, x: Tensor, record: Record | None = None) -> Tensor:
        """(B, 3, H, W) normalised pixels -> (B, num_outputs).

        ``record`` receives what the named blocks attend to.
        """
        raise NotImplementedError
