"""The named variants: sizes, letters, profiles, timm's registry."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from parity import FIXTURES, read_case, released_model
from safetensors.torch import load as loads
from safetensors.torch import save as saves
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import eat
from eat.config.pixels import Inputs
from eat.models.backbone import EAT
from eat.models.base import AestheticModel
from eat.models.psvit import PSViT
from eat.models.variants import VARIANTS, create_model

FULL_SIZE = Path(__file__).parents[2].parent / "shared" / "parity"
# TANet has one size, 224 pixels, and stands in test_tanet.py; timm in test_timm_backbone.py.
SIZED = [name for name, row in VARIANTS.items() if issubclass(row.family, EAT | PSViT)]


def counts(name: str, **settings: Any) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in create_model(name, **settings).parameters())


def test_the_released_base_model_has_86_88_million_parameters() -> None:
    assert counts("eat_base_released", num_outputs=10) / 1e6 == pytest.approx(86.88, abs=0.005)


@pytest.mark.parametrize("name", ["mini_AVA", "mini_TAD66K", "tiny_AVA"])
def test_parameters_are_as_many_as_in_the_release(name: str) -> None:
    path = (FIXTURES if name.startswith("mini") else FULL_SIZE) / name
    if not path.with_suffix(".npz").is_file():
        pytest.skip(f"{name} is not part of the repository: it is too large for a fixture")
    case, _ = read_case(path)
    expected = sum(
        int(torch.Size(shape).numel())
        for key, shape in case["keys"].items()
        if not key.endswith(("relative_position_index", "attn_mask"))
    )
    with torch.device("meta"):
        model = released_model(case["config"])
    assert sum(p.numel() for p in model.parameters()) == expected
    if name == "tiny_AVA":
        assert counts("eat_tiny_released") == expected


def test_the_released_base_model_takes_15_8_billion_multiply_adds() -> None:
    # Convolutions and matrix products are counted; the samplings and the softmaxes are not.
    with torch.device("meta"):
        model = create_model("eat_base_released").eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(torch.zeros(1, 3, 224, 224, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(15.79, rel=0.01)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_built_and_scores(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, num_outputs=5).eval()
        with torch.no_grad():
            assert model(torch.zeros(2, 3, *model.img_size)).shape == (2, 5)


def test_a_row_may_say_how_many_outputs_it_has() -> None:
    given = {"tanet_ava": 10, "tanet_tad66k": 1, "det_icaa17k": 2, "det_spaq": 1, "eat_nano": 10}
    with torch.device("meta"):
        assert {name: create_model(name).num_outputs for name in given} == given
        assert create_model("det_icaa17k", 1).num_outputs == 1
        model = timm.create_model("tanet_tad66k")
    assert model.default_cfg["num_classes"] == model.num_classes == 1


def at_small_size(name: str) -> AestheticModel:
    """A row with its own letters and profile, a pair of blocks in each stage and ten outputs."""
    row = VARIANTS[name].settings
    torch.manual_seed(0)
    if VARIANTS[name].family is PSViT:
        small = {"points": 4, "dim": 16, "heads": 4, "depths": (2, 2), "stem_dims": (8, 8)}
        model = create_model(name, 10, 64, drop_path_rate=0.0, interest_kernel=3, **small)
        # Fresh offset layers are zero, and all points whole: unfit to compare two precisions.
        for offset_layer in model.offset_layers:
            torch.nn.init.normal_(offset_layer.weight, std=0.1)
        return model
    settings: dict[str, Any] = {"dims": (8, 16, 16, 32), "heads": (1, 2, 2, 4)}
    if "interest_kernels" not in row:
        settings["interest_kernels"] = (13, 7, 3, 1)  # for the maps of 64 pixels
    stages = tuple(pairs[:2] for pairs in row["stages"])
    model = create_model(name, 10, 64, stages=stages, drop_path_rate=0.0, **settings)
    # Fresh gates are shut or open, and have no gradient.
    for parameter_name, parameter in model.named_parameters():
        if ".gate." in parameter_name:
            torch.nn.init.normal_(parameter, std=1e-5)
    return model


def pixels(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", SIZED)
def test_every_parameter_of_every_variant_gets_a_finite_gradient(name: str) -> None:
    model = at_small_size(name).double().train()
    target = torch.eye(10, dtype=torch.float64)[:2]
    (model(pixels().double()) - target).square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        gradient = parameter.grad
        assert gradient is not None and gradient.isfinite().all(), parameter_name
        # The bias of the keys shifts all logits of a query alike, which a softmax does not see.
        assert (gradient.abs().max() > 1e-12) != parameter_name.endswith("attn.k.bias")


@pytest.mark.parametrize("name", SIZED)
def test_every_variant_is_deterministic_and_survives_a_round_trip(name: str) -> None:
    model, other = at_small_size(name).eval(), at_small_size(name).eval()
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    other.load_state_dict(loads(saves(model.state_dict())))
    with torch.no_grad():
        scores = model(pixels())
        assert torch.equal(model(pixels()), scores)
        assert torch.equal(other(pixels()), scores)


@pytest.mark.parametrize("name", SIZED)
def test_every_variant_runs_in_half_precision(name: str) -> None:
    model = at_small_size(name).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = model(pixels())
    assert scores.shape == (2, 10)
    assert scores.isfinite().all()
    scores.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def letters(name: str) -> list[str]:
    return list(VARIANTS[name].settings["stages"])


def test_the_letters_of_the_families() -> None:
    assert letters("eat_tiny") == ["LS", "LS", "LELELE", "LE"]
    assert letters("eat_base_released") == ["LS", "LS", "LE" * 9, "LE"]
    assert letters("swin_small") == ["LS", "LS", "LS" * 9, "LS"]
    assert letters("dat_base") == ["LS", "LS", "LD" * 9, "LD"]


def test_the_default_model_is_eat_base() -> None:
    with torch.device("meta"):
        default, named = EAT(), create_model("eat_base")
    assert {n: p.shape for n, p in default.named_parameters()} == {
        n: p.shape for n, p in named.named_parameters()
    }


def test_the_profiles_differ_only_in_interest_and_offset_kernels() -> None:
    with torch.device("meta"):
        paper = {n: p.shape for n, p in create_model("eat_tiny").named_parameters()}
        released = {n: p.shape for n, p in create_model("eat_tiny_released").named_parameters()}
    assert set(paper) == set(released)
    differ = {re.sub(r"\d+", "#", n) for n in paper if paper[n] != released[n]}
    assert differ == {
        "stages.#.blocks.#.attn.interest.conv.weight",
        "stages.#.blocks.#.attn.offset.conv.weight",
    }


def test_offset_groups_are_those_of_the_release() -> None:
    def groups(name: str) -> list[int]:
        with torch.device("meta"):
            model = create_model(name)
        return [model.stages[s].blocks[1].attn.num_groups for s in (2, 3)]

    assert groups("eat_tiny_released") == [3, 6]
    assert groups("eat_small") == [3, 6]
    assert groups("eat_base_released") == [4, 8]


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("eat_bse", "eat_base"),
        ("eat-tiny-released", "eat_tiny_released"),
        ("swin_tny", "swin_tiny"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(wrong: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"unknown model '{wrong}'; did you mean '{nearest}'"):
        create_model(wrong)


@pytest.mark.parametrize("order", ["import eat, timm", "import timm, eat"])
def test_timm_builds_the_models_after_import_eat(order: str) -> None:
    code = f"{order}; print(type(timm.create_model('eat_nano', num_classes=3)).__module__)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split()[-1] == (
        "eat.models.backbone"
    )


def test_timm_knows_the_models_and_what_they_take() -> None:
    model = timm.create_model("eat_nano", num_classes=3, img_size=128)
    assert isinstance(model, EAT)
    assert model.num_classes == 3
    assert set(eat.VARIANTS) <= set(timm.list_models(module="timm_entries"))
    assert timm.data.resolve_data_config(model=model)["input_size"] == (3, 128, 128)
    assert model.default_cfg["mean"] == IMAGENET_DEFAULT_MEAN == Inputs().mean
    assert model.default_cfg["std"] == IMAGENET_DEFAULT_STD == Inputs().std


def test_timm_is_told_that_no_weights_are_published() -> None:
    with pytest.raises(ValueError, match="no weights are published under the name 'eat_nano'"):
        timm.create_model("eat_nano", pretrained=True)
