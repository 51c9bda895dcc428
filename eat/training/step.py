"""One training step: forward, backward, optimizer, schedule and average, in one process or many."""

import math
import random
import reprlib
import warnings
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.lr_scheduler import LambdaLR

from eat.config import OptimConfig, RunConfig
from eat.data.transforms import Preprocessing
from eat.models import AestheticModel
from eat.system.device import check_compiler
from eat.system.processes import summed
from eat.training.average import Average
from eat.training.losses import Loss
from eat.training.sharding import divided, own, shard, whole

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
SMALLEST_SCALE = 1.0  # of fp16; gradients that overflow even so are no matter of scale


@dataclass(frozen=True)
class MicroBatch:
    """Images of a step that one process computes in one forward and backward pass.

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
class StepStatistics:
    """Numbers of a step's forward and backward passes, over all processes.

    Attributes:
        loss: of the batch.
        norm: of the gradients, before clipping; NaN or infinite if any of them is.
        overflow: infinite only because of fp16's scale, which the next step lowers.
        sums: of the processes' local sums.
    """

    loss: float
    norm: float
    overflow: bool
    sums: list[float]


def schedule_factor(step: int, steps_per_epoch: int, optim: OptimConfig) -> float:
    """Learning rate over ``optim.lr``, at a step counted from 0 over the run."""
    epoch = step / steps_per_epoch
    if epoch < optim.warmup_epochs:
        return (step + 1) / (optim.warmup_epochs * steps_per_epoch)
    if optim.schedule == "step":
        return optim.step_factor ** (int(epoch) // optim.step_epochs)
    if optim.schedule == "cosine":
        rest = max(optim.epochs - optim.warmup_epochs, 1e-9)
        return 0.5 * (1 + math.cos(math.pi * min((epoch - optim.warmup_epochs) / rest, 1)))
    return 1.0


def seed_generators(seed: int) -> None:
    """Seed all that a model, a user's own too, may draw from."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def parts(model: AestheticModel, names: Iterable[str], option: str) -> dict[str, str]:
    """The parts of a model that its parameters belong to, by the parameters' names.

    Of nested parts it is the innermost.

    Raises:
        ValueError: naming the option and the part that the model does not have.
    """
    parameters = [name for name, _ in model.named_parameters()]
    found: dict[str, str] = {}
    for part in sorted(names, key=len):
        own = [name for name in parameters if f"{name}.".startswith(f"{part}.")]
        if not own:
            known = ", ".join(dict.fromkeys(name.partition(".")[0] for name in parameters))
            raise ValueError(
                f"{option} names {reprlib.repr(part)}, and no parameter of the model begins so: "
                f"expected such as {known}, or a part of one after a dot"
            )
        found |= dict.fromkeys(own, part)
    return found


def freeze(model: AestheticModel, optim: OptimConfig) -> None:
    """Leave the parameters of ``optim.frozen`` out of training."""
    for name in parts(model, optim.frozen, "optim.frozen"):
        model.get_parameter(name).requires_grad_(False)


def make_optimizer(model: AestheticModel, optim: OptimConfig) -> torch.optim.Optimizer:
    """The optimizer, with a group of parameters for each weight decay and learning rate.

    Raises:
        ValueError: nothing is left to train, or ``optim.lr_factors`` names no part of the model.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not named:
        raise ValueError("optim.frozen leaves no parameter to train: name fewer parts")
    groups: list[dict[str, Any]] = [{"params": [*named.values()]}]
    if optim.weight_decay and optim.decay == "matrices":
        from timm.optim import param_groups_weight_decay

        groups = param_groups_weight_decay(
            model, optim.weight_decay, no_weight_decay_list=model.no_weight_decay()
        )
    interest = {} if optim.interest_lr is None else model.lr_factors(optim.interest_lr)
    part_of = parts(model, optim.lr_factors, "optim.lr_factors")
    factors = {
        parameter: interest.get(name, 1.0) * optim.lr_factors.get(part_of.get(name, ""), 1.0)
        for name, parameter in named.items()
    }
    groups = [
        group | {"params": parameters, "lr": optim.lr * factor}
        for group in groups
        for factor in sorted({*factors.values()}, reverse=True)
        if (parameters := [p for p in group["params"] if factors[p] == factor])
    ]
    kind = OPTIMIZERS[optim.optimizer]
    return kind(groups, lr=optim.lr, weight_decay=optim.weight_decay, fused=True)


def wrapped(model: AestheticModel, accelerator: Accelerator) -> nn.Module:
    """A model on its device, in what accelerate puts around it for several processes."""
    with warnings.catch_warnings():
        # The name that PyTorch wants instead is not known to the older ones.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return accelerator.prepare(model)


class TrainStep:
    """A model, and all that a training step changes or needs.

    A step is ``gradients``, then ``update`` or ``skip``.

    Attributes:
        model: the model as a step calls it, with what accelerate wraps around it.
        raw_model: the model itself.
    """

    def __init__(
        self,
        model: AestheticModel,
        preprocessing: Preprocessing,
        loss: Loss,
        optim: OptimConfig,
        run: RunConfig,
        accelerator: Accelerator,
        steps_per_epoch: int,
    ) -> None:
        self.preprocessing = preprocessing
        self.loss = loss
        self.accelerator = accelerator
        self.clip_norm = optim.clip_norm
        self.raw_model = model
        self.sharded = run.sharded and accelerator.num_processes > 1
        self.average: Average | None = None
        if optim.ema is not None:
            device = None if self.sharded else accelerator.device  # it moves there in shards
            self.average = Average(model, device, optim.ema)
        model.set_grad_checkpointing(run.grad_checkpointing)
        freeze(model, optim)
        if run.compile:
            check_compiler()
            model.compile()
        for each in dict.fromkeys((model, self.eval_model)) if self.sharded else ():
            shard(each, accelerator.device)
        self.model = model if self.sharded else wrapped(model, accelerator)
        self.optimizer = accelerator.prepare(make_optimizer(model, optim))
        # Running means and variances of BatchNorm, which a forward pass changes.
        self.running = [b for name, b in model.named_buffers() if ".running_" in name]
        self.before: list[Tensor] = []  # them before the step
        # Of kernels with one input channel, whose strides mean nothing.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        self.base_lr = optim.lr
        self.factor = lambda step: schedule_factor(step, steps_per_epoch, optim)
        self.schedule = LambdaLR(self.optimizer.optimizer, self.factor)

    @property
    def eval_model(self) -> AestheticModel:
        """The model to evaluate and keep: the average if there is one."""
        if self.average is None:
            return self.raw_model
        return cast(AestheticModel, self.average.module)

    def lr(self, back: int = 0) -> float:
        """The learning rate ``back`` steps before the next, without single parts' factors."""
        return self.base_lr * self.factor(self.schedule.last_epoch - back)

    def gradients(
        self,
        micro_batches: Sequence[MicroBatch],
        batch_size: int,
        seed: int,
        local_sums: Sequence[float] = (),
    ) -> StepStatistics:
        """Forward and backward passes of a step.

        Args:
            micro_batches: this process's share of the batch.
            batch_size: images in the batch of all processes.
            seed: of all that is drawn, the same for every process and micro-batch.
            local_sums: numbers to sum over the processes on the way.
        """
        device, processes = self.accelerator.device, self.accelerator.num_processes
        accumulate = len(micro_batches) > 1
        self.optimizer.zero_grad(set_to_none=True)
        self.before = [buffer.clone() for buffer in self.running]
        sums = torch.tensor([0.0, *local_sums], dtype=torch.float64).to(device, non_blocking=True)
        for i, micro in enumerate(micro_batches):
            seed_generators(seed)
            self.raw_model.set_batch_slice(micro.first, batch_size)
            last = i == len(micro_batches) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                mean = self._terms(micro)[: micro.count].sum() / batch_size
                sums[0] += mean.detach()
                # With one micro-batch the batch's mean is known here; else the slope comes below.
                slope = 1.0 if accumulate else self.loss.slope(summed(sums)[0]).to(mean.dtype)
                # The wrapped model averages gradients over the processes.
                self.accelerator.backward(mean * slope * processes)
        grads = [own(p.grad) for p in self.raw_model.parameters() if p.grad is not None]
        if accumulate:
            slope = self.loss.slope(summed(sums)[0])
            if self.loss.root:
                torch._foreach_mul_(grads, slope.to(grads[0].dtype))
        self.accelerator.unscale_gradients()
        self.norm = get_total_norm(grads)
        if self.sharded:
            self.norm = summed(self.norm.double().square()).sqrt()
        numbers = torch.cat([self.loss.of_mean(sums[:1]), self.norm[None].double(), sums[1:]])
        loss, norm, *rest = numbers.tolist()  # the one place of a step that waits for the device
        return StepStatistics(loss, norm, self._overflow(loss, norm), rest)

    def order_gradients(self, images: int) -> None:
        """Take a step of that many blank images that changes no weights, before a state is loaded.

        DistributedDataParallel orders the gradients anew after its first step, and the order
        decides how a sum over three processes or more is rounded. A run that continues has to have
        the same one.
        """
        if isinstance(self.model, DistributedDataParallel):
            images = max(images, 1)
            pixels = torch.zeros(images, 3, *self.raw_model.img_size, dtype=torch.uint8)
            target = torch.zeros(images, self.raw_model.num_outputs)
            self.model.train()
            self.gradients([MicroBatch(pixels, target, 0, images)], images, seed=0, local_sums=[])
            self.skip()

    def _terms(self, micro: MicroBatch) -> Tensor:
        """The loss's terms of a micro-batch: (B,)."""
        device = self.accelerator.device
        with self.accelerator.autocast():
            pixels = micro.pixels.to(device, non_blocking=True)
            outputs = self.model(self.preprocessing.normalise(pixels))
        return self.loss.terms(outputs.float(), micro.target.to(device, non_blocking=True))

    def _overflow(self, loss: float, norm: float) -> bool:
        """Whether infinite gradients may be due to fp16's scale."""
        scaler = self.accelerator.scaler
        if scaler is None or not math.isfinite(loss) or math.isfinite(norm):
            return False
        return scaler.get_scale() > SMALLEST_SCALE

    def update(self) -> None:
        """Change the weights."""
        if self.clip_norm is not None:
            clip_grads_with_norm_(self.raw_model.parameters(), self.clip_norm, self.norm)
        self.optimizer.step()
        self.schedule.step()
        for buffer in self.running if self.accelerator.num_processes > 1 else ():
            summed(buffer).div_(self.accelerator.num_processes)  # each saw other images
        if self.average is not None:
            self.average.update_parameters(self.raw_model)

    def skip(self) -> None:
        """Leave the weights and running statistics as they are; the schedule goes on."""
        for buffer, before in zip(self.running, self.before, strict=True):
            buffer.copy_(before)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.update()
        with warnings.catch_warnings():  # PyTorch expects a step of the optimizer before
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler", UserWarning)
            self.schedule.step()

    def _stateful(self) -> dict[str, Any]:
        parts = {
            "model": self.raw_model,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "average": self.average,
            "scaler": self.accelerator.scaler,
        }
        return {name: part for name, part in parts.items() if part is not None}

    def state(self) -> dict[str, Any]:
        """State dicts of all that changes from step to step, by name; of all processes."""
        state = {name: part.state_dict() for name, part in self._stateful().items()}
        return whole(state) if self.sharded else state

    def weights(self) -> dict[str, Tensor]:
        """Weights to keep: those of ``eval_model``; of all processes."""
        weights = self.eval_model.state_dict()
        return whole(weights) if self.sharded else weights

    def load(self, state: dict[str, Any]) -> None:
        """Take up what ``state`` returned.

        Raises:
            ValueError: it does not fit this model and optimizer.
            Exception: of torch's, for other junk.
        """
        present = {name: part.state_dict() for name, part in self._stateful().items()}
        for name in present:
            if not _alike(state[name], present[name]):
                raise ValueError(f"its part {name} has other names, types or shapes")
        if self.sharded:
            weights = (p for group in self.optimizer.param_groups for p in group["params"])
            state = divided(state, present | {"optimizer": {"state": dict(enumerate(weights))}})
        for name, part in self._stateful().items():
            part.load_state_dict(state[name])
        for parameter, moments in self.optimizer.state.items():
            shapes = {value.shape for value in moments.values() if value.ndim}
            if shapes - {parameter.shape}:
                raise ValueError("its optimizer's moments have other shapes than the weights")


def _alike(found: Any, present: Any) -> bool:
    """Whether a state dict has the types and shapes of the present one, where both have a key."""
    if isinstance(present, dict):
        return isinstance(found, dict) and all(
            _alike(found[key], value) for key, value in present.items() if key in found
        )
    if isinstance(present, list):
        return (
            isinstance(found, list)
            and len(found) == len(present)
            and all(map(_alike, found, present))
        )
    if isinstance(present, Tensor):
        return isinstance(found, Tensor) and found.shape == present.shape
    return present is None or isinstance(
        found, (int, float) if type(present) in (int, float) else type(present)
    )
