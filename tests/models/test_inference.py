"""Linear layers for scoring alone: packed in bf16, and in int8."""

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import eat
from eat.checkpoint.precision import make_ready
from eat.data.transforms import Preprocessing
from eat.models.base import AestheticModel
from eat.models.inference import (
    FEWEST_OUTPUTS,
    LEAST,
    MARGIN,
    Int8Linear,
    Int8MLP,
    PackedLinear,
    _layers_of_mlp,
    _linear_layers,
    can_pack,
    can_quantise,
    keep_classifier,
    pack,
    quantise,
)

needs_vnni = pytest.mark.skipif(not can_quantise(), reason="needs a processor with VNNI")
needs_packing = pytest.mark.skipif(not can_pack(), reason="needs products of packed weights")

WIDE: dict[str, Any] = {"dims": (32, 32, 64, 64), "heads": (2, 2, 4, 4)}
VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2}
TIMM_SWIN = {"embed_dim": 32, "depths": (2, 2), "num_heads": (2, 2), "window_size": 4}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "eat": ("eat_nano", WIDE | {"stages": ("L", "S", "LE", "E")}),
    "eat, released": ("eat_base_released", WIDE | {"stages": ("L", "S", "LE", "E")}),
    "dat": ("dat_tiny", WIDE | {"stages": ("L", "L", "L", "D")}),
    "det": ("det_icaa17k", WIDE | {"stages": ("L", "L", "L", "E")}),
    "psvit": ("psvit_nano_eam", {"points": 4, "dim": 32, "heads": 2, "depths": (1, 1)}),
    "vit": ("vit_nano", VIT),
    "timm vit": ("timm/vit_tiny_patch16_224", VIT),
    "timm swin": ("timm/swin_tiny_patch4_window7_224", TIMM_SWIN),
    "timm convnext": (
        "timm/convnext_atto",
        {"depths": (1, 1, 1, 1), "dims": (32, 32, 32, 32), "conv_mlp": False},
    ),
    "timm eva, which reads a layer's weights": ("timm/eva02_tiny_patch14_224", VIT),
}


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    """With them, the trained layers compute themselves."""
    with torch.no_grad():
        yield


def images(batch: int = 4, side: int = 64) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, side, side, generator=draw)


def model_of(family: str) -> AestheticModel:
    """A model whose outputs tell images apart."""
    name, settings = FAMILIES[family]
    torch.manual_seed(0)
    model = eat.create_model(name, num_outputs=10, img_size=64, **settings).eval()
    model.use_own_points()
    model.softmax = False
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def distance(found: Tensor, wanted: Tensor) -> float:
    """Relative to what was wanted."""
    return float((found.float() - wanted).norm() / wanted.norm())


def error(found: Tensor, wanted: Tensor) -> float:
    """Of the differences between images."""
    return distance(found - found.mean(dim=0), wanted - wanted.mean(dim=0))


def run(model: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return model(x)


def count(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in model.modules())


@needs_packing
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_layers_compute_what_autocast_does(family: str) -> None:
    model = model_of(family)
    exact = model(images())
    rough = error(run(model, images()), exact)
    pack(model)
    assert count(model, PackedLinear) >= 4
    assert error(run(model, images()), exact) < 1.5 * rough + 0.005


@needs_vnni
@pytest.mark.parametrize("family", FAMILIES)
def test_int8_stays_near_float32(family: str) -> None:
    model = model_of(family)
    exact = model(images())
    quantise(model, images(8))
    assert count(model, Int8Linear) >= 2
    assert 0 < error(run(model, images()), exact) < 0.15


@pytest.mark.parametrize("family", ["eat", "timm vit", "timm swin"])
def test_each_mlp_is_one_chain_and_the_classifier_stays(family: str) -> None:
    model = model_of(family)
    mlps = sum(name.endswith("mlp") for name, _ in model.named_modules())
    classifier = model.get_classifier()
    if can_quantise():
        quantise(model, images())
        assert count(model, Int8MLP) == mlps
        assert type(model.get_classifier()) is nn.Linear
    if can_pack():
        model = model_of(family)
        pack(model)
        gelus = [m for m in model.modules() if isinstance(m, PackedLinear) and m.gelu]
        assert len(gelus) == mlps
        assert model.get_classifier().weight.shape == classifier.weight.shape


@needs_vnni
def test_offsets_and_other_narrow_layers_are_not_rounded() -> None:
    model = model_of("eat")
    quantise(model, images())
    kept = [*_linear_layers(model), model.get_classifier()]
    assert len(kept) == 3  # the classifier and the two layers that give offsets
    assert all(layer.out_features < FEWEST_OUTPUTS for layer in kept)


@needs_vnni
@pytest.mark.parametrize("rows", [1, 3, 64])
@pytest.mark.parametrize("bias", [False, True])
def test_an_int8_layer_is_off_by_its_levels(rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(48, 80, bias=bias)
    x = torch.randn(rows, 2, 48) * torch.logspace(-2, 2, 48)  # channels of very different ranges
    peaks = x.abs().amax((0, 1))
    found, wanted = Int8Linear(layer, peaks)(x), layer(x)
    assert found.shape == wanted.shape
    assert distance(found, wanted) < 0.03


@needs_vnni
def test_inputs_beyond_their_range_saturate_and_zeros_stay_zeros() -> None:
    layer = nn.Linear(16, 16, bias=False)
    nn.init.eye_(layer.weight)
    quantised = Int8Linear(layer, torch.ones(16))
    found = quantised(torch.tensor([0.0, 1.0, -1.0, 10.0, -10.0])[:, None].expand(-1, 16))
    wanted = torch.tensor([0.0, 1.0, -1.0, MARGIN, -MARGIN])
    assert torch.allclose(found.float(), wanted[:, None].expand(-1, 16), atol=0.02)
    assert not found[0].any()


@needs_vnni
def test_a_channel_that_was_always_zero_does_no_harm() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(32, 32)
    layer.weight.data[:, 5] = 0
    x = torch.randn(8, 32)
    x[:, 3] = x[:, 5] = 0
    found, wanted = Int8Linear(layer, x.abs().amax(0))(x), layer(x)
    assert distance(found, wanted) < 0.03


@needs_vnni
def test_an_mlp_in_int8_is_that_in_float32() -> None:
    torch.manual_seed(0)
    fc1, fc2 = nn.Linear(32, 128), nn.Linear(128, 32)
    x = 3 * torch.randn(50, 32)
    hidden = nn.functional.gelu(fc1(x))
    mlp = Int8MLP(fc1, x.abs().amax(0), fc2, float(hidden.amax()))
    wanted = fc2(hidden)
    assert distance(mlp(x), wanted) < 0.03


@needs_vnni
def test_the_score_of_an_image_in_int8_does_not_depend_on_its_batch() -> None:
    model = model_of("eat")
    quantise(model, images(8))
    together = run(model, images(8))
    alone = torch.cat([run(model, image[None]) for image in images(8)])
    assert error(alone, together) < 0.02


@needs_vnni
def test_a_layer_with_two_names_stays_one() -> None:
    model = model_of("vit")
    first, second = model.net.blocks
    second.attn = first.attn
    exact = model(images())
    quantise(model, images())
    assert isinstance(second.attn.proj, Int8Linear)
    assert first.attn.proj is second.attn.proj
    assert error(run(model, images()), exact) < 0.15


@pytest.mark.parametrize("family", ["eat", "timm vit"])
def test_gradients_are_those_of_the_trained_layers(family: str) -> None:
    def gradient(model: nn.Module) -> Tensor:
        x = images().requires_grad_()
        with torch.enable_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            model(x).float()[:, 0].sum().backward()
        assert x.grad is not None
        return x.grad

    wanted = gradient(model_of(family))
    assert wanted.abs().max() > 0
    if can_pack():
        model = model_of(family)
        pack(model)
        assert torch.equal(gradient(model), wanted)
    if can_quantise():
        model = model_of(family)
        quantise(model, images())
        assert torch.equal(gradient(model), wanted)


@pytest.mark.parametrize("change", [pack, lambda model: quantise(model, images())])
def test_a_copy_computes_the_same(change: Any) -> None:
    if not (can_pack() and can_quantise()):
        pytest.skip("needs products of packed weights and VNNI")
    model = model_of("eat")
    change(model)
    found = run(model, images())
    assert torch.equal(run(copy.deepcopy(model), images()), found)
    assert torch.equal(run(pickle.loads(pickle.dumps(model)), images()), found)


def test_a_classifier_that_is_kept_gives_float32() -> None:
    model = model_of("eat")
    exact = model(images())
    rounded = run(model, images())
    keep_classifier(model)
    found = run(model, images())
    assert found.dtype == torch.float32 and rounded.dtype == torch.bfloat16
    assert distance(found, exact) < distance(rounded, exact)


@needs_vnni
def test_what_cannot_be_quantised_is_refused() -> None:
    with pytest.raises(ValueError, match="no linear layers of 16 outputs or more"):
        quantise(eat.create_model("timm/resnet18", num_outputs=10, img_size=64).eval(), images())
    model = model_of("eat")
    model.stages[0].blocks[0].mlp.fc1.weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="outputs for drawn images are not finite"):
        quantise(model, images())


def test_an_activation_that_comes_twice_is_not_an_mlp() -> None:
    act = nn.GELU()
    assert _layers_of_mlp(nn.Sequential(nn.Linear(4, 8), act, nn.Linear(8, 4), act)) is None
    assert _layers_of_mlp(nn.Sequential(nn.Linear(4, 8), act, nn.Linear(8, 4))) is not None


@needs_vnni
def test_a_channel_that_was_weak_may_be_as_wide_as_a_quarter_of_the_widest() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(32, 32), torch.randn(64, 32).clamp(-2, 2)
    peaks = torch.full((32,), 2.0)
    peaks[:4] = 0
    x[:, :4] *= LEAST
    assert distance(Int8Linear(layer, peaks)(x), layer(x)) < 0.03


@needs_vnni
def test_weights_that_are_no_numbers_give_none() -> None:
    layer = nn.Linear(32, 32)
    layer.weight.data[0, 0] = float("nan")
    found = Int8Linear(layer, torch.ones(32))(torch.randn(4, 32))
    assert found[:, 0].isnan().all()


def test_a_users_own_model_is_cast_and_no_more() -> None:
    model, cpu = model_of("eat"), torch.device("cpu")
    model.of_user = True
    if can_quantise():
        with pytest.raises(ValueError, match="the model is one of your own: expected bf16"):
            make_ready(model, Preprocessing(64), "int8", cpu)
    make_ready(model, Preprocessing(64), "bf16", cpu)
    assert count(model, PackedLinear) == 0
    assert type(model.get_classifier()) is nn.Linear
    assert model.get_classifier().weight.dtype == torch.bfloat16
