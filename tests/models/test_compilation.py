"""Half precision and compilation of the whole model."""

from typing import Any

import pytest
import torch
from minis import PROFILES, images, mini
from oracles import array
from torch import Tensor, nn

from eat.models.deformable import DeformableAttention

WIDE = (8, 16, 24, 48)  # enough channels to make interest points by matrix products


def counted(model: nn.Module, **options: bool) -> tuple[Any, list[torch.fx.GraphModule]]:
    """A compiled model, and the list of the graphs that it has been compiled to so far."""
    torch._dynamo.reset()
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    return torch.compile(model, fullgraph=True, backend=backend, **options), graphs


@pytest.mark.parametrize("profile", PROFILES)
def test_bfloat16_autocast_stays_near_float32(profile: str) -> None:
    model = mini(profile, softmax=False).eval()
    torch.nn.init.normal_(model.head.weight)  # outputs of a size that tells
    with torch.no_grad():
        exact = array(model(images()))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = model(images())
    error = abs(array(rough) - exact).max() / abs(exact).max()
    assert 0 < error < 0.05


@pytest.mark.parametrize("profile", PROFILES)
def test_positions_stay_float32_under_autocast(profile: str) -> None:
    record: dict[str, dict[str, Tensor]] = {"stages.2.blocks.1": {}}
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        mini(profile).eval()(images(), record)
    assert record["stages.2.blocks.1"]["positions"].dtype == torch.float32


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_model_compiles_to_one_graph(profile: str, training: bool, precision: str) -> None:
    model = mini(profile, rotate=False, dims=WIDE, stages=("L", "S", "D", "E")).train(training)
    torch._dynamo.reset()
    results = []
    for computed in (torch.compile(model, fullgraph=True, backend="aot_eager"), model):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            out = computed(images())
        results.append([out, *torch.autograd.grad(out[:, 0].sum(), list(model.parameters()))])
    tolerance = {"rtol": 0.02, "atol": 2e-6} if precision == "bf16" else {}
    torch.testing.assert_close(*results, **tolerance)


def test_a_compiled_model_follows_the_rotation_schedule_without_a_new_graph() -> None:
    model = mini().train()
    compiled, graphs = counted(model)
    assert not torch.equal(compiled(images()), compiled(images()))
    model.set_epoch(3, 3)
    torch.testing.assert_close(compiled(images()), compiled(images()), rtol=0, atol=0)
    assert len(graphs) == 1


def test_a_second_call_and_another_batch_compile_nothing_anew() -> None:
    module = DeformableAttention(
        8, 2, num_groups=1, feature_size=(4, 4), offset_kernel=3, pad_offsets=True, range_factor=2.0
    )
    compiled, graphs = counted(module, dynamic=True)
    for batch, side in ((2, 4), (2, 4), (3, 4), (3, 6)):
        compiled(torch.randn(batch, side, side, 8))
    assert len(graphs) == 1


def test_micro_batches_share_a_graph_and_draw_what_the_undivided_batch_draws() -> None:
    model = mini(stages=("L", "L", "L", "E"), drop_path_rate=0.5).train()
    compiled, graphs = counted(model, dynamic=False)
    x = images(batch=6)

    def outputs(first: int, last: int) -> Tensor:
        torch.manual_seed(1)
        model.set_batch_slice(first, 6)
        return compiled(x[first:last])

    parts = torch.cat([outputs(first, first + 2) for first in (0, 2, 4)])
    assert len(graphs) == 1
    torch.testing.assert_close(parts, outputs(0, 6))


@pytest.mark.long
@pytest.mark.parametrize("profile", PROFILES)
def test_one_graph_serves_other_batches_and_another_size_computes_the_same(profile: str) -> None:
    model = mini(profile, rotate=False, dims=WIDE, stages=("L", "S", "E", "E")).eval()
    compiled, graphs = counted(model, dynamic=True)
    with torch.no_grad():  # the other tests compile gradients
        for batch, size, count in ((2, 64, 1), (3, 64, 1), (2, 128, 2)):
            x = images(size, batch=batch)
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
            assert len(graphs) == count
