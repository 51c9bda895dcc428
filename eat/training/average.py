"""The moving average of a model's weights."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class Average(AveragedModel):
    """Exponential moving average of weights, with the state of PyTorch's.

    PyTorch's asks the device at each update whether it is the first one, and so waits for it.

    Args:
        model: as it is before the first step.
        device: to keep the average on.
        decay: share of the average in the next one, in [0, 1).
    """

    def __init__(self, model: nn.Module, device: torch.device | None, decay: float) -> None:
        super().__init__(model, device)
        self.decay = decay
        self.n_averaged = torch.zeros((), dtype=torch.long)  # on the CPU

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move towards the model's weights; take them as they are the first time."""
        share = 1.0 if self.n_averaged == 0 else 1 - self.decay
        averages: list[Tensor] = [*self.module.parameters()]
        weights: list[Tensor] = [*model.parameters()]
        torch._foreach_lerp_(averages, weights, share)
        for kept, new in zip(self.module.buffers(), model.buffers(), strict=True):
            kept.copy_(new)
        self.n_averaged += 1
