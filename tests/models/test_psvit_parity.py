"""PS-ViT computes what its authors' code computes (numbers beside a checkout, not in it)."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from einops import rearrange
from siblings import Golden, golden_images, golden_loss, read_golden
from torch import Tensor, nn

from eat.models.foreign import PS_VIT_RULES, rename
from eat.models.psvit import PSViT, sample_pixels, sample_with_released_gradient
from eat.models.variants import create_model
from eat.models.weights import load_weights

CASES = {"psvit_b": ("ps_vit_b_14_AVA", 10), "psvit_ti": ("ps_vit_ti_14_score", 1)}
SIDE = 56  # of the stem's map at 224 pixels

Numbers = dict[str, np.ndarray]


def build(name: str, golden: Golden, **settings: Any) -> PSViT:
    model = create_model(name, CASES[name][1], 224, **settings).double().eval()
    report = load_weights(model, golden.state(), verbose=False)
    assert not report.missing and not report.left_out
    assert isinstance(model, PSViT)
    return model


def gradients(model: nn.Module) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Output, loss, and the norm of each parameter's gradient."""
    output = model(golden_images(2))
    loss = golden_loss(output)
    loss.backward()
    norms = {name: p.grad.norm().item() for name, p in model.named_parameters()}
    return output.detach(), loss.detach(), norms


def agree(ours: Tensor | float, expected: np.ndarray) -> None:
    found = np.asarray(ours).reshape(expected.shape)
    assert abs(found - expected).max() < 1e-9 * abs(expected).max()


def norms_agree(ours: dict[str, float], numbers: Numbers, tag: str, *, all_of_them: bool) -> None:
    norms = {n.removeprefix(tag): v for n, v in numbers.items() if n.startswith(tag)}
    as_tensors = {name: torch.from_numpy(np.asarray(norm)) for name, norm in norms.items()}
    expected, _ = rename(as_tensors, PS_VIT_RULES, tag)
    assert len(norms) == len(expected) > 0
    assert not all_of_them or set(expected) == set(ours)
    for name, norm in expected.items():
        assert ours[name] == pytest.approx(norm.item(), rel=1e-6), name


class Case(NamedTuple):
    name: str
    golden: Golden
    numbers: Numbers
    model: PSViT
    seen: dict[str, Tensor]
    record: dict[str, dict[str, Tensor]]
    output: Tensor


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    """A model with its outputs, and those of its parts, for the images of the numbers."""
    golden = read_golden(CASES[request.param][0])
    model = build(request.param, golden)
    seen: dict[str, Tensor] = {}
    parts = ["stem", "norm", *model.repeated_blocks()]
    hooks = [
        model.get_submodule(name).register_forward_hook(
            lambda *call, name=name: seen.update({name: call[-1]})
        )
        for name in parts
    ]
    record: dict[str, dict[str, Tensor]] = {}
    with torch.no_grad():
        output = model(golden_images(2), record)
    for hook in hooks:
        hook.remove()
    return Case(request.param, golden, golden.numbers, model, seen, record, output)


def test_outputs_and_parts_agree(case: Case) -> None:
    agree(case.output, case.numbers["output"])
    agree(golden_loss(case.output), case.numbers["loss"])
    agree(case.seen["norm"][:, 0], case.numbers["feature"])
    stem = case.seen["stem"].permute(0, 3, 1, 2)
    agree(stem.mean(dim=(2, 3)), case.numbers["stem_mean"])
    agree(stem.std(dim=(2, 3), correction=0), case.numbers["stem_std"])
    agree(stem[:, ::16, ::11, ::11], case.numbers["stem_corner"])
    plain = [case.seen[n].norm() for n in case.model.repeated_blocks() if n.startswith("trans")]
    agree(torch.stack(plain), case.numbers["trans_norms"])


def test_points_and_offsets_of_each_layer_agree(case: Case) -> None:
    def listed(x: Tensor) -> Tensor:  # the authors list the points column by column
        return rearrange(x, "b y x ... -> b (x y) ...")

    for layer in range(4):
        name, record = f"ps_layers.{layer}", case.record[f"ps_layers.{layer}"]
        agree(listed(case.seen[name].norm(dim=-1)), case.numbers[f"ps.{layer}.out_norm"])
        positions = (record["positions"][:, 0] + 1) / 2 * (SIDE - 1)
        agree(listed(positions), case.numbers[f"ps.{layer}.sample_point"])
        if layer:
            offsets = record["offsets"][:, 0] / 2 * (SIDE - 1)
            agree(listed(offsets), case.numbers[f"ps.{layer - 1}.offset"])


def test_parameters_are_as_many_as_the_authors(case: Case) -> None:
    assert sum(p.numel() for p in case.model.parameters()) == case.golden.meta["n_params_unique"]


def test_gradients_are_the_derivative(case: Case) -> None:
    case.model.zero_grad()
    *_, norms = gradients(case.model)
    norms_agree(norms, case.numbers, "gradnorm/", all_of_them=True)


def test_gradients_of_the_authors_kernel_agree(case: Case) -> None:
    model = build(case.name, case.golden, released_gradient=True)
    output, _, norms = gradients(model)
    agree(output, case.numbers["output"])
    norms_agree(norms, case.numbers, "gradnorm_kernel/", all_of_them=True)


def test_points_on_whole_pixels_have_the_forward_difference(case: Case) -> None:
    model = build(case.name, case.golden)
    for layer in model.offset_layers:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    output, loss, norms = gradients(model)
    agree(output, case.numbers["zero_offset.output"])
    agree(loss, case.numbers["zero_offset.loss"])
    norms_agree(norms, case.numbers, "zero_offset.gradnorm/", all_of_them=False)


@pytest.mark.parametrize(
    ("sample", "kind"), [(sample_pixels, "true"), (sample_with_released_gradient, "kernel")]
)
def test_the_sampler_alone_agrees(sample: Any, kind: str) -> None:
    numbers = read_golden("ps_vit_ti_14_score").numbers
    probe = {n.removeprefix("probe."): v for n, v in numbers.items() if n.startswith("probe.")}
    features = torch.from_numpy(probe["input"]).permute(0, 2, 3, 1).requires_grad_()
    positions = torch.from_numpy(probe["points"]).requires_grad_()
    out = sample(features, positions)
    agree(out.detach(), probe["out"])
    out.backward(torch.from_numpy(probe["grad_out"]))
    agree(features.grad.permute(0, 3, 1, 2), probe[f"grad_input_{kind}"])
    agree(positions.grad, probe[f"grad_offset_{kind}"])
