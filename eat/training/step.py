"""A model that learns: its optimizer, schedule, precision and average, in one process or many."""

import math
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from eat.config import OptimConfig, RunConfig
from eat.data.transforms import normalise
from eat.models import EAT
from eat.system.device import check_compiler
from eat.system.processes import summed
from eat.training.losses import Loss

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
SMALLEST_SCALE = 1.0  # of fp16; gradients that overflow even so are no matter of scale


@dataclass(frozen=True)
class Part:
    """What one process computes of a step's batch in one pass.

    Attributes:
        pixels: (B, 3, H, W) uint8.
        target: (B, K).
        first: place of the first image in the step's batch.
        count: images that count, the first ones; 0 if the process only takes part.
    """

    pixels: Tensor
    target: Tensor
    first: int
    count: int


@dataclass(frozen=True)
class Gradients:
    """What came out of a step's forward and backward passes, all processes together.

    Attributes:
        loss: of the whole batch.
        norm: of the gradients, before clipping; NaN or infinite if any of them is.
        overflow: infinite only because of fp16's scale, which the next step lowers.
        notes: sums of what the processes had to tell.
    """

    loss: float
    norm: float
    overflow: bool
    notes: list[float]


def schedule_factor(step: int, steps_per_epoch: int, optim: OptimConfig) -> float:
    """Learning rate over its setting, at a step counted from 0 over the whole run."""
    epoch = step / steps_per_epoch
    if epoch < optim.warmup_epochs:
        return (step + 1) / (optim.warmup_epochs * steps_per_epoch)
    if optim.schedule == "step":
        return optim.step_factor ** (int(epoch) // optim.step_epochs)
    if optim.schedule == "cosine":
        rest = max(optim.epochs - optim.warmup_epochs, 1e-9)
        return 0.5 * (1 + math.cos(math.pi * min((epoch - optim.warmup_epochs) / rest, 1)))
    return 1.0


class Learner:
    """A model, and all that a step changes or needs.

    A step is ``gradients``, then ``update`` or ``skip``.

    Args:
        model: on any device; it is moved.
        loss: of a batch.
        optim: how it learns.
        run: device, precision and passes.
        accelerator: of this process.
        steps_per_epoch: which the schedule counts in.

    Attributes:
        model: the model as a step calls it, with what accelerate wraps around it.
        bare: the model itself.
    """

    def __init__(
        self,
        model: EAT,
        loss: Loss,
        optim: OptimConfig,
        run: RunConfig,
        accelerator: Accelerator,
        steps_per_epoch: int,
    ) -> None:
        self.loss = loss
        self.accelerator = accelerator
        self.clip_norm = optim.clip_norm
        self.bare = model
        self.average = None
        if optim.ema is not None:
            self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(optim.ema))
            self.average.to(accelerator.device)
        model.set_grad_checkpointing(run.grad_checkpointing)
        if run.compile:
            check_compiler()
            model.compile()
        optimizer = OPTIMIZERS[optim.optimizer](
            model.parameters(), lr=optim.lr, weight_decay=optim.weight_decay, fused=True
        )
        with warnings.catch_warnings():
            # The name that PyTorch wants instead is not known to the older ones.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            self.model, self.optimizer = accelerator.prepare(model, optimizer)
        # Of kernels with one input channel, whose strides mean nothing.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        self.schedule = LambdaLR(
            self.optimizer.optimizer, lambda step: schedule_factor(step, steps_per_epoch, optim)
        )

    @property
    def result(self) -> EAT:
        """The model to evaluate and keep: the average if there is one."""
        return self.average.module if self.average is not None else self.bare

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return self.optimizer.param_groups[0]["lr"]

    def gradients(
        self, parts: Sequence[Part], whole: int, seed: int, notes: Sequence[float] = ()
    ) -> Gradients:
        """Forward and backward passes of a step.

        Args:
            parts: this process's share of the batch, one a pass.
            whole: images in the batch of all processes.
            seed: of drop path and rotation angles, the same in every process and pass.
            notes: numbers to be summed over the processes on the way.
        """
        device, processes = self.accelerator.device, self.accelerator.num_processes
        self.optimizer.zero_grad(set_to_none=True)
        told = torch.zeros(1 + len(notes), dtype=torch.float64)
        told[1:] = torch.tensor(notes)
        told = told.to(device, non_blocking=True)
        for i, part in enumerate(parts):
            torch.manual_seed(seed)
            self.bare.set_batch_slice(part.first, whole)
            last = i == len(parts) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                with self.accelerator.autocast():
                    pixels = normalise(part.pixels.to(device, non_blocking=True))
                    outputs = self.model(pixels)
                terms = self.loss.terms(outputs.float(), part.target.to(device))
                mean = terms[: part.count].sum() / whole  # this part of it
                told[0] += mean.detach()
                slope = 1.0
                if len(parts) == 1:
                    slope = self.loss.slope(summed(told)[0]).to(mean.dtype)
                # The wrapped model averages gradients over the processes.
                self.accelerator.backward(mean * slope * processes)
        grads = [p.grad for p in self.bare.parameters() if p.grad is not None]
        if len(parts) > 1:
            slope = self.loss.slope(summed(told)[0])
            if self.loss.root:
                torch._foreach_mul_(grads, slope.to(grads[0].dtype))
        self.accelerator.unscale_gradients()
        self.norm = get_total_norm(grads)
        loss = self.loss.of_mean(told[:1])
        # The one place of a step that waits for the device.
        loss, norm, *notes = torch.cat([loss, self.norm[None].double(), told[1:]]).tolist()
        scaler = self.accelerator.scaler
        overflow = (
            scaler is not None
            and math.isfinite(loss)
            and not math.isfinite(norm)
            and scaler.get_scale() > SMALLEST_SCALE
        )
        return Gradients(loss, norm, overflow, notes)

    def update(self) -> None:
        """Let the optimizer take the step."""
        if self.clip_norm is not None:
            clip_grads_with_norm_(self.bare.parameters(), self.clip_norm, self.norm)
        self.optimizer.step()
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.bare)

    def skip(self) -> None:
        """Leave the weights as they are; the schedule goes on."""
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.update()
        with warnings.catch_warnings():  # PyTorch expects a step of the optimizer before
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler", UserWarning)
            self.schedule.step()

    def state(self) -> dict[str, Any]:
        """All that changes from step to step, as state dicts by name."""
        parts = {
            "model": self.bare.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        if self.average is not None:
            parts["average"] = self.average.state_dict()
        if self.accelerator.scaler is not None:
            parts["scaler"] = self.accelerator.scaler.state_dict()
        return parts

    def load(self, parts: dict[str, Any]) -> None:
        """Take up what ``state`` gave."""
        self.bare.load_state_dict(parts["model"])
        self.optimizer.load_state_dict(parts["optimizer"])
        self.schedule.load_state_dict(parts["schedule"])
        if self.average is not None:
            self.average.load_state_dict(parts["average"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(parts["scaler"])
