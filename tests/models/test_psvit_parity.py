"""PS-ViT computes what its authors' code computes (numbers beside a checkout, not in it)."""

import json
import re
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from eat.models.foreign import PS_VIT_RULES, rename
from eat.models.psvit import PSViT, sample_pixels, sample_with_released_gradient
from eat.models.variants import create_model
from eat.models.weights import load_weights

NUMBERS = Path(__file__).parents[2].parent / "shared" / "parity" / "siblings"
CASES = {"psvit_b": ("ps_vit_b_14_AVA", 10), "psvit_ti": ("ps_vit_ti_14_score", 1)}
SIDE = 56  # of the stem's map at 224 pixels
DTYPE = torch.float64

Numbers = dict[str, np.ndarray]


def filled(keys: dict[str, list[int]]) -> dict[str, Tensor]:
    """A state dict under the authors' names, filled by the rule of the numbers."""
    state = {}
    for name, shape in keys.items():
        if name == "point_coord" or name.endswith("num_batches_tracked"):
            state[name] = torch.zeros(shape, dtype=DTYPE if shape else torch.int64)
            continue
        own = re.sub(r"^ps_layers\.\d+\.position_layer\.", "pos_layer.", name)
        n = np.random.default_rng(zlib.crc32(own.encode())).standard_normal(shape)
        stem, _, last = own.rpartition(".")
        if last == "running_mean":
            n = 0.1 * n
        elif last == "running_var":
            n = 1 + 0.1 * abs(n)
        elif len(shape) == 1:
            scale = f"{stem}.running_mean" in keys or re.search(r"norm\d*$", stem)
            n = 0.1 * n + bool(last == "weight" and scale)
        else:
            n = n / np.sqrt(np.prod(shape[1:]))
        state[name] = torch.from_numpy(n)
    return state


def read(name: str) -> tuple[dict[str, Any], Numbers]:
    if not (NUMBERS / f"{name}.npz").is_file():
        pytest.skip(f"{name} is not part of the repository: it is too large for a fixture")
    with np.load(NUMBERS / f"{name}.npz") as numbers:
        return json.loads((NUMBERS / f"{name}.json").read_text()), dict(numbers)


def build(name: str, meta: dict[str, Any], **settings: Any) -> PSViT:
    model = create_model(name, CASES[name][1], 224, **settings).to(DTYPE).eval()
    report = load_weights(model, filled(meta["keys"]), verbose=False)
    assert not report.missing and not report.left_out
    assert isinstance(model, PSViT)
    return model


def loss_of(output: Tensor) -> Tensor:
    draw = np.random.default_rng(1)
    if output.shape[1] == 1:
        target = torch.from_numpy(draw.uniform(0, 1, output.shape))
        return (output - target).square().mean()
    target = torch.from_numpy(draw.dirichlet(np.ones(output.shape[1]), len(output)))
    return (target - output).cumsum(dim=1).square().mean().sqrt()


def images(batch: int = 2) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((batch, 3, 224, 224)))


def gradients(model: nn.Module) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Output, loss, and the norm of each parameter's gradient."""
    output = model(images())
    loss = loss_of(output)
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
    meta: dict[str, Any]
    numbers: Numbers
    model: PSViT
    seen: dict[str, Tensor]
    record: dict[str, dict[str, Tensor]]
    output: Tensor


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    """A model with its outputs, and those of its parts, for the images of the numbers."""
    meta, numbers = read(CASES[request.param][0])
    model = build(request.param, meta)
    seen: dict[str, Tensor] = {}
    parts = ["stem", "norm", *model.block_names]
    hooks = [
        model.get_submodule(name).register_forward_hook(
            lambda *call, name=name: seen.update({name: call[-1]})
        )
        for name in parts
    ]
    record: dict[str, dict[str, Tensor]] = {}
    with torch.no_grad():
        output = model(images(), record)
    for hook in hooks:
        hook.remove()
    return Case(request.param, meta, numbers, model, seen, record, output)


def test_outputs_and_parts_agree(case: Case) -> None:
    agree(case.output, case.numbers["output"])
    agree(loss_of(case.output), case.numbers["loss"])
    agree(case.seen["norm"][:, 0], case.numbers["feature"])
    stem = case.seen["stem"].permute(0, 3, 1, 2)
    agree(stem.mean(dim=(2, 3)), case.numbers["stem_mean"])
    agree(stem.std(dim=(2, 3), correction=0), case.numbers["stem_std"])
    agree(stem[:, ::16, ::11, ::11], case.numbers["stem_corner"])
    plain = [case.seen[n].norm() for n in case.model.block_names if n.startswith("trans")]
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
    assert sum(p.numel() for p in case.model.parameters()) == case.meta["n_params_unique"]


def test_gradients_are_the_derivative(case: Case) -> None:
    case.model.zero_grad()
    *_, norms = gradients(case.model)
    norms_agree(norms, case.numbers, "gradnorm/", all_of_them=True)


def test_gradients_of_the_authors_kernel_agree(case: Case) -> None:
    model = build(case.name, case.meta, released_gradient=True)
    output, _, norms = gradients(model)
    agree(output, case.numbers["output"])
    norms_agree(norms, case.numbers, "gradnorm_kernel/", all_of_them=True)


def test_points_on_whole_pixels_have_the_forward_difference(case: Case) -> None:
    model = build(case.name, case.meta)
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
    _, numbers = read("ps_vit_ti_14_score")
    probe = {n.removeprefix("probe."): v for n, v in numbers.items() if n.startswith("probe.")}
    features = torch.from_numpy(probe["input"]).permute(0, 2, 3, 1).requires_grad_()
    positions = torch.from_numpy(probe["points"]).requires_grad_()
    out = sample(features, positions)
    agree(out.detach(), probe["out"])
    out.backward(torch.from_numpy(probe["grad_out"]))
    agree(features.grad.permute(0, 3, 1, 2), probe[f"grad_input_{kind}"])
    agree(positions.grad, probe[f"grad_offset_{kind}"])
