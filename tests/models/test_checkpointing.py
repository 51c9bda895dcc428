"""Gradient checkpointing computes the same as keeping every activation."""

from typing import Any

import pytest
import torch
from torch import Tensor

from eat.models.backbone import EAT
from eat.models.variants import RELEASED

SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {"interest_kernels": (13, 7, 3, 1)},
    "released": RELEASED | {"shift": 2, "drop_path_rate": 0.5},
}


def model(profile: str, dtype: torch.dtype = torch.float64) -> EAT:
    torch.manual_seed(0)
    built = EAT(
        **{"drop_path_rate": 0.5}
        | SETTINGS[profile]
        | {
            "dims": (8, 16, 16, 32),
            "heads": (1, 2, 2, 4),
            "stages": ("LS", "LS", "LESD", "LE"),
            "window_size": 3,
            "img_size": 64,
        }
    )
    return built.to(dtype).train()


def step(built: EAT, checkpointing: bool, **forward: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Output and gradients of one step, whose random draws start at the same seed."""
    built.set_grad_checkpointing(checkpointing)
    built.zero_grad(set_to_none=True)
    draw = torch.Generator().manual_seed(1)
    images = torch.randn(3, 3, 64, 64, dtype=built.head.weight.dtype, generator=draw)
    torch.manual_seed(2)
    out = built(images, **forward)
    out.float().square().sum().backward()
    gradients = {n: p.grad for n, p in built.named_parameters() if p.grad is not None}
    return out.detach(), gradients


@pytest.mark.parametrize("profile", SETTINGS)
def test_outputs_and_gradients_are_those_without_it(profile: str) -> None:
    built = model(profile)
    out, gradients = step(built, False)
    again, recomputed = step(built, True)
    assert torch.equal(again, out)
    assert recomputed.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(recomputed[name], gradient, rtol=1e-12, atol=1e-14, msg=name)


def test_drop_path_and_rotation_matter_in_that_comparison() -> None:
    built = model("paper")
    out, _ = step(built, True)
    still = step(built.eval(), True)[0]
    assert not torch.allclose(out, still, rtol=1e-6)


@pytest.mark.parametrize("profile", SETTINGS)
def test_under_autocast_the_gradients_are_those_without_it(profile: str) -> None:
    built = model(profile, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, gradients = step(built, False)
        again, recomputed = step(built, True)
    assert torch.equal(again, out)
    for name, gradient in gradients.items():
        torch.testing.assert_close(recomputed[name], gradient, rtol=1e-6, atol=1e-9, msg=name)


def test_a_block_that_records_does_so_once_and_its_record_carries_gradients() -> None:
    built = model("paper")
    name = "stages.2.blocks.1"
    record: dict[str, dict[str, Tensor]] = {name: {}}
    built.set_grad_checkpointing()
    torch.manual_seed(3)  # drop path keeps an image in that block
    out = built(torch.randn(2, 3, 64, 64, dtype=torch.float64), record)
    before = dict(record[name])
    before["points"].retain_grad()
    out.square().sum().backward()
    assert all(record[name][key] is value for key, value in before.items())
    assert before["points"].grad.abs().sum() > 0


def test_fewer_tensors_are_kept_for_the_backward_pass() -> None:
    def kept(checkpointing: bool) -> int:
        storages: dict[int, int] = {}

        def pack(x: Tensor) -> Tensor:
            storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        built = model("released")
        built.set_grad_checkpointing(checkpointing)
        parameters = {p.untyped_storage().data_ptr() for p in built.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            out = built(torch.randn(2, 3, 64, 64, dtype=torch.float64))
        assert out.requires_grad
        return sum(size for at, size in storages.items() if at not in parameters)

    assert kept(True) < 0.5 * kept(False)


@pytest.mark.parametrize("profile", SETTINGS)
def test_a_compiled_step_with_it_is_one_graph(profile: str) -> None:
    built = model(profile, torch.float32)
    built.set_grad_checkpointing()
    torch._dynamo.reset()
    compiled = torch.compile(built, fullgraph=True, backend="eager")
    compiled(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in built.parameters())
