"""Models that a function in a file of the user's builds."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from eat.models.base import AestheticModel, Record
from eat.system.plugins import blaming, file_of, load_function


class UserModel(AestheticModel):
    """A torch module of the user's own, behind the interface of a model.

    It takes normalised images (B, 3, H, W) and returns raw outputs (B, K), which a softmax turns
    into a distribution if there are several.
    """

    def __init__(self, net: nn.Module, num_outputs: int, img_size: tuple[int, int]) -> None:
        super().__init__()
        self.net, self.num_outputs, self.img_size = net, num_outputs, img_size

    def get_classifier(self) -> nn.Module:
        """A module without parameters: what the head of any network is cannot be told."""
        return nn.Identity()

    def reset_classifier(self, num_outputs: int, global_pool: str | None = None) -> None:
        """Refuse, by a ValueError: the user's function takes ``num_outputs``."""
        raise ValueError("build the model anew: its function takes num_outputs")

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """As the user's module does it, under timm's name; else refuse, by a ValueError."""
        own = getattr(self.net, "set_grad_checkpointing", None)
        if own is not None:
            own(enable)
        elif enable:
            raise ValueError("run.grad_checkpointing: the model has no set_grad_checkpointing")

    def forward_features(self, x: Tensor, record: Record | None = None) -> Tensor:
        """(B, 3, H, W) normalised pixels -> raw outputs (B, num_outputs)."""
        return self.net(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Raw outputs -> outputs; as they are with ``pre_logits``."""
        return x if pre_logits else self.activate(x)


def load_model(
    name: str, num_outputs: int = 10, img_size: int | tuple[int, int] = 224, **settings: Any
) -> AestheticModel:
    """Build the model of FILE.py:FUNCTION, which gets these keywords; img_size as (height, width).

    Raises:
        ValueError: as ``load_function``; the function fails, or returns neither a torch module that
            fits ``UserModel`` nor an AestheticModel with these outputs.
    """
    function = load_function(name)
    size = (img_size, img_size) if isinstance(img_size, int) else img_size
    with blaming(file_of(name)):
        net = function(num_outputs=num_outputs, img_size=size, **settings)
        if not isinstance(net, nn.Module):
            raise TypeError(f"returned {type(net).__name__}: expected a torch.nn.Module")
        weight = next(net.parameters(), None)
        if weight is None:
            raise TypeError(f"returned a {type(net).__name__} without parameters")
        images = torch.zeros(2, 3, *size, device=weight.device)
        # Before hours are spent; lazy layers get their shapes by it.
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            _check_outputs(net.eval()(images), images, num_outputs, "")
            state = deepcopy(net.state_dict())  # BatchNorm follows what it sees in training
            _check_outputs(net.train()(images), images, num_outputs, "in training ")
            net.load_state_dict(state)
    model = net if isinstance(net, AestheticModel) else UserModel(net, num_outputs, size)
    model.of_user = True
    return model


def _check_outputs(found: object, images: Tensor, num_outputs: int, when: str) -> None:
    """Refuse what is no tensor (B, num_outputs) for images (B, 3, H, W).

    Raises:
        ValueError: with what was returned.
    """
    if not isinstance(found, Tensor):
        raise ValueError(f"{when}its model returns {type(found).__name__}: expected a tensor")
    expected = len(images), num_outputs
    if found.shape != expected:
        raise ValueError(
            f"{when}its model returns shape {tuple(found.shape)} for images of shape "
            f"{tuple(images.shape)}: expected {expected}, one row of num_outputs for each image"
        )
