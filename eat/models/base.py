"""The interface of a model of any family to training, scoring and evaluation."""

import math
import reprlib
from collections.abc import Iterable
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from eat.models.deformable import DeformableAttention, PointConv
from eat.models.kernels import at_least_float32
from eat.models.limits import MIN_SIZE
from eat.models.noise import PerImageNoise

# What torch.fx takes as one step of its graph.
torch.fx.wrap("at_least_float32")

BLOCK_LISTS = (nn.ModuleList, nn.Sequential)
Record = dict[str, dict[str, Tensor]]  # what blocks attended to, by their names


def open_record(record: Record | None, blocks: Iterable[str]) -> Record:
    """The records to fill in a forward pass, by block; those of all blocks if none is named.

    Raises:
        KeyError: ``record`` names a block that the model does not have.
    """
    if record is None:
        return {}
    every = list(blocks)
    unknown = sorted(set(record) - set(every))
    if unknown:
        blocks = f"{every[0]} ... {every[-1]}" if every else "none"
        raise KeyError(f"no block {unknown[0]!r}; blocks: {blocks}")
    if not record:
        record.update({name: {} for name in every})
    return record


def check_pixels(x: Tensor) -> None:
    """Refuse images (B, 3, H, W) with a side below ``MIN_SIZE``, by a ValueError."""
    if x.shape[-2] < MIN_SIZE or x.shape[-1] < MIN_SIZE:
        raise ValueError(
            f"images must be at least {MIN_SIZE} x {MIN_SIZE} pixels, got {tuple(x.shape)}"
        )


def init_linear(module: nn.Module) -> None:
    """Linear layers as in Swin; convolutions keep PyTorch's, which spreads the initial points."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def new_head(width: int, num_outputs: int) -> nn.Module:
    """A linear head with fresh weights; for 0 outputs what changes nothing, as in timm."""
    head = nn.Linear(width, num_outputs) if num_outputs else nn.Identity()
    init_linear(head)
    return head


class AestheticModel(nn.Module):
    """A network from normalised pixels to a score or a distribution over scores.

    A family overrides what concerns it. The defaults suit a model with one linear head, and with
    enhanced attention or without.

    Attributes:
        num_outputs: width of the head: 10 for a distribution over the scores 1..10, 1 for a score.
        num_features: channels of the features.
        global_pool: "" leaves the features of a model without head as they are, as in timm.
        poolings: what ``reset_classifier`` takes for ``global_pool``.
        img_size: (height, width) of the usual input in pixels.
        softmax: end in a softmax over outputs; None does so if there are several.
        first_conv: name of the layer that takes the pixels.
        frozen: names of parts that no run trains, so that they must come with weights.
        of_user: built by a user's own function, with layers used in any way.
    """

    first_conv = "patch_embed.conv"
    num_outputs: int
    num_features: int
    img_size: tuple[int, int]
    softmax: bool | None = None
    global_pool: str = "avg"
    poolings: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    of_user = False

    @property
    def cropped_pixels(self) -> int:
        """Pixels that the model leaves out at the right and at the bottom of its usual input."""
        return 0

    @property
    def num_classes(self) -> int:
        """``num_outputs`` under timm's name."""
        return self.num_outputs

    @property
    def ends_in_softmax(self) -> bool:
        """Whether the outputs are a distribution."""
        return self.num_outputs > 1 if self.softmax is None else self.softmax

    def get_classifier(self) -> nn.Module:
        """The head, under timm's name."""
        return self.head

    @property
    def head_hidden_size(self) -> int:
        """Width of what the head takes."""
        return self.num_features

    def reset_classifier(self, num_outputs: int, global_pool: str | None = None) -> None:
        """Replace the head by a new one for ``num_outputs`` outputs; by none for 0.

        Args:
            num_outputs: width of the new head.
            global_pool: one of ``poolings``; None leaves it.

        Raises:
            ValueError: the model has no such pooling.
        """
        self._set_pooling(global_pool)
        self.num_outputs = num_outputs
        self.head = new_head(self.head_hidden_size, num_outputs)

    def _set_pooling(self, global_pool: str | None) -> None:
        if global_pool is None:
            return
        if global_pool not in self.poolings:
            known = ", ".join(map(repr, self.poolings)) or "none, as there is one way"
            raise ValueError(f"global_pool is {reprlib.repr(global_pool)}: expected {known}")
        self.global_pool = global_pool

    @property
    def averages_points(self) -> bool:
        """Whether an image's interest points, and so its score, depend on the rest of its batch."""
        return any(isinstance(m, PointConv) and m.average for m in self.modules())

    @property
    def mixes_images(self) -> bool:
        """Whether an image's score depends on the rest of its batch, by its points or otherwise."""
        return self.averages_points

    @property
    def smallest_batch(self) -> int:
        """Images that a forward pass needs in the model's mode.

        2 to train a BatchNorm that one image gives one value a channel.
        """
        return 2 if self.training and not self._trains_on_one() else 1

    def _trains_on_one(self) -> bool:
        """Whether a batch of one image is enough for each BatchNorm, as one was seen to be."""
        if not any(isinstance(module, _BatchNorm) for module in self.modules()):
            return True
        statistics = {name: buffer.clone() for name, buffer in self.named_buffers()}
        image = torch.zeros(1, 3, *self.img_size, device=next(self.parameters()).device)
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                self(image)
        except ValueError:
            return False
        finally:
            self.load_state_dict(statistics, strict=False)  # which follow what is seen
        return True

    def check_batches(self, images: int, batch_size: int, option: str, parts: int = 1) -> None:
        """Refuse batches, each cut into ``parts``, of which the last is too small for the model.

        Raises:
            ValueError: naming the ``option`` that sets the size.
        """
        last = max((images % batch_size or min(images, batch_size)) // parts, 1)
        if last == 1 and self.smallest_batch > 1:
            raise ValueError(
                f"{option} is {batch_size}: of {images} images the last forward pass would have "
                f"{last}, and {type(self).__name__} compares at least {self.smallest_batch} with "
                "one another; take another size"
            )

    def use_own_rule(self, batch_size: int) -> None:
        """As ``use_own_points``, with a rule of ours where the model's paper has none.

        Args:
            batch_size: images of the batches that the model knows.
        """
        self.use_own_points()

    def use_own_points(self) -> None:
        """Make the score of every image independent of its batch from here on.

        Points that are averaged over a batch become each image's own.

        Raises:
            ValueError: the model has no scores of single images.
        """
        for module in self.modules():
            if isinstance(module, PointConv):
                module.average = False

    def enhanced_blocks(self) -> list[str]:
        """Names of the blocks that look at interest points of their own."""
        suffix = ".attn.interest"
        names = (name for name, _ in self.named_modules())
        return [name.removesuffix(suffix) for name in names if name.endswith(suffix)]

    def map_blocks(self) -> list[str]:
        """Names of the blocks whose features are a map (B, H, W, C) of the image, in their order.

        They may have layers ``norm1`` and ``norm2``.
        """
        return []

    def repeated_blocks(self) -> list[str]:
        """Names of the blocks that a network repeats: the members of its lists named ``blocks``.

        As in timm's models. A block within another comes after it.
        """
        return [
            f"{name}.{member}"
            for name, module in self.named_modules()
            if name.rpartition(".")[2] == "blocks" and isinstance(module, BLOCK_LISTS)
            for member, _ in module.named_children()
        ]

    def as_map(self, features: Tensor, pixels: Tensor) -> Tensor:
        """Output of a map block, or of a layer of it, as (B, H, W, C)."""
        return features

    def sampling_blocks(self) -> list[str]:
        """Names of the blocks that sample positions, from the first to the last."""
        return [
            name.removesuffix(".attn")
            for name, module in self.named_modules()
            if name.endswith(".attn") and isinstance(module, DeformableAttention)
        ]

    def map_side(self, block: str, size: int) -> int:
        """Tokens along a side of the map that a sampling block reads, of images of a side."""
        attn: Any = self.get_submodule(f"{block}.attn")
        return math.ceil(attn.feature_size[0] * size / self.img_size[0])

    def set_epoch(self, epoch: int, num_epochs: int) -> None:
        """Adapt to the progress of training.

        Sets how far offsets rotate: 1 - e / E of Eq. 9; 1 before the first call.

        Args:
            epoch: finished epochs, in [0, num_epochs].
            num_epochs: epochs of the run, at least 1.
        """
        if not 0 <= epoch <= num_epochs or num_epochs < 1:
            raise ValueError(f"epoch must lie in [0, {num_epochs}], got {epoch}")
        for module in self.modules():
            if isinstance(module, DeformableAttention):
                module.exploration.fill_(1 - epoch / num_epochs)

    def set_batch_slice(self, first: int, total: int) -> None:
        """Announce that the next batches are slices of a larger one, for draws per image.

        Args:
            first: place of the next batch's first image in the larger batch, from 0.
            total: images in the larger batch.
        """
        device = next(self.parameters()).device
        place = torch.tensor(first).to(device, non_blocking=True)
        for module in self.modules():
            if isinstance(module, PerImageNoise):
                module.batch_slice = first, total
                module.first, module.total = place, total

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only each block's input while training, and compute the rest again backwards.

        Gradients stay the same; a step needs far less memory and about a third more time.

        Raises:
            ValueError: the model has no blocks that could be computed twice.
        """
        if enable:
            raise ValueError(
                f"{type(self).__name__} has no blocks that could be computed twice: leave out "
                "run.grad_checkpointing"
            )

    def lr_factors(self, interest_lr: float) -> dict[str, float]:
        """Learning rates over the run's, by name, of the parameters that need another.

        A step of Adam changes a convolution's output by its rate times its number of inputs. The
        released profile, which averages points, learns at one rate, as its authors' did.

        Args:
            interest_lr: ``optim.interest_lr``.
        """
        factors: dict[str, float] = {}
        for name, module in self.named_modules():
            if isinstance(module, PointConv) and not module.average:
                factor = min(1.0, interest_lr / module.conv.weight.shape[1:].numel())
                factors |= {f"{name}.conv.weight": factor, f"{name}.conv.bias": factor}
        return factors

    def no_weight_decay(self) -> set[str]:
        """Names of parameters, beside biases and 1-D ones, that must not be decayed.

        The position bias tables of both kinds of attention.
        """
        return {name for name, _ in self.named_parameters() if name.endswith("bias_table")}

    def forward_features(self, x: Tensor, record: Record | None = None) -> Tensor:
        """(B, 3, H, W) normalised pixels -> features, as ``forward_head`` takes them."""
        raise NotImplementedError

    def pool(self, x: Tensor) -> Tensor:
        """Features -> (B, C), as the head takes them."""
        raise NotImplementedError

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features -> (B, num_outputs); the pooled (B, C) with ``pre_logits``."""
        x = self.pool(x)
        if pre_logits or not self.num_outputs:
            return x
        return self.activate(self.head(x))

    def activate(self, x: Tensor) -> Tensor:
        """Outputs of the head (B, num_outputs) -> of the model; votes are in float32 at least."""
        return at_least_float32(x).softmax(dim=-1) if self.ends_in_softmax else x

    def forward(self, x: Tensor, record: Record | None = None) -> Tensor:
        """(B, 3, H, W) normalised pixels -> (B, num_outputs).

        ``record`` receives what the named blocks attend to.
        """
        return self.forward_head(self.forward_features(x, record))
