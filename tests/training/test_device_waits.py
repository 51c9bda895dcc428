"""A training step on a GPU's fake tensors: nothing is on the wrong device, and nothing waits.

Fake tensors have shapes, types and devices, and no data, so that no GPU is needed. Where a program
would wait for the device to read a number, they raise.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from eat.config import OptimConfig, RunConfig
from eat.data.transforms import Preprocessing
from eat.models import create_model, deformable
from eat.models.variants import RELEASED
from eat.training.losses import LOSSES
from eat.training.step import MicroBatch, TrainStep

SMALL: dict[str, Any] = {"dims": [8, 16, 16, 32], "heads": [1, 1, 2, 4], "drop_path_rate": 0.3}
PAPER = {"stages": ["L", "S", "LE", "E"], "interest_kernels": [13, 7, 3, 1]}
PROFILES = {"paper": PAPER, "released": RELEASED | {"stages": ["L", "S", "LE", "LE"]}}
CUDA = torch.device("cuda")


pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")


class Copies(TorchDispatchMode):
    """Collects the copies between devices that the host waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if name == "_to_copy" and args[0].device != result.device:
            self.waited += [] if kwargs.get("non_blocking") else [name]
        if name == "copy_" and args[0].device != args[1].device:
            self.waited += [] if args[2:] == (True,) or kwargs.get("non_blocking") else [name]
        return result


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Iterator[Copies]:
    """Within it tensors are fake. On the CPU drop path leaves out an image, and nothing is true."""

    def nonzero(x: torch.Tensor) -> torch.Tensor:
        assert x.device.type == "cpu"
        return torch.arange(len(x) - 1).view(-1, 1)

    def is_true(x: torch.Tensor) -> bool:
        assert x.device.type == "cpu"
        return False

    monkeypatch.setattr(torch.Tensor, "nonzero", nonzero)
    monkeypatch.setattr(FakeTensor, "__bool__", is_true, raising=False)
    monkeypatch.setattr(torch.nn.init, "trunc_normal_", lambda x, **settings: x)
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, device: module)  # made there
    # A copied model stays in the same mode.
    monkeypatch.setattr(FakeTensorMode, "__deepcopy__", lambda mode, memo: mode, raising=False)
    deformable._grid.cache_clear()
    with FakeTensorMode(), Copies() as copies:
        yield copies
    deformable._grid.cache_clear()


def make_step(profile: str, **run: Any) -> TrainStep:
    with CUDA:
        settings = SMALL | PROFILES[profile]
        model = create_model("eat_base", 10, 64, **settings).train()

    def prepare(part: Any) -> Any:
        if isinstance(part, torch.optim.Optimizer):
            part.optimizer = part  # type: ignore[attr-defined]
        return part

    def backward(loss: torch.Tensor) -> None:  # the engine asks for a device that is there
        assert loss.is_cuda and loss.grad_fn is not None
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)

    accelerator: Any = SimpleNamespace(
        device=CUDA,
        num_processes=1,
        scaler=None,
        prepare=prepare,
        no_sync=lambda model: nullcontext(),
        autocast=nullcontext,
        backward=backward,
        unscale_gradients=lambda: None,
    )
    optim = OptimConfig(ema=0.9, clip_norm=1.0)
    pixels = Preprocessing(64)
    return TrainStep(model, pixels, LOSSES["emd"], optim, RunConfig(**run), accelerator, 10)


def batches(sizes: tuple[int, ...]) -> list[MicroBatch]:
    firsts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [
        MicroBatch(torch.zeros(n, 3, 64, 64, dtype=torch.uint8), torch.zeros(n, 10), first, n)
        for first, n in zip(firsts, sizes, strict=True)
    ]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_step_waits_for_the_device_at_one_place(
    profile: str, copies: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def tolist(numbers: torch.Tensor) -> list[float]:
        read.append(numbers.device.type)
        return [0.0] * len(numbers)

    step = make_step(profile, grad_checkpointing=profile == "paper")
    monkeypatch.setattr(FakeTensor, "tolist", tolist)
    copies.waited.clear()
    for sizes in ((4,), (3, 2)):
        step.gradients(batches(sizes), sum(sizes), seed=1, local_sums=[0, 0])
        step.update()
    assert read == ["cuda", "cuda"] and not copies.waited
    assert step.average is not None and step.average.n_averaged.device.type == "cpu"
    assert all(p.is_cuda for p in step.raw_model.parameters())


def test_what_would_wait_is_seen(copies: Copies) -> None:
    x = torch.zeros(3, device=CUDA)
    with pytest.raises(DataDependentOutputException):
        x[0].item()
    x + torch.zeros(3).to(CUDA, non_blocking=True)
    assert not copies.waited
    x.new_tensor([1.0])
    x.copy_(torch.zeros(3))
    assert len(copies.waited) == 2
