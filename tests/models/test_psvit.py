"""PS-ViT's sampler, sizes, records and weights; its numbers are in ``test_psvit_parity``."""

import re
from typing import Any

import pytest
import torch
from oracles import array, bilinear
from torch import Tensor, nn

from eat.models.psvit import PSViT, sample_pixels, sample_with_released_gradient
from eat.models.variants import create_model
from eat.models.weights import WeightsError, load_weights

TINY: dict[str, Any] = {
    "img_size": 64, "points": 4, "dim": 16, "heads": 4, "depths": (3, 2), "stem_dims": (8, 8),
}  # fmt: skip


def tiny(seed: int = 0, name: str = "psvit_nano", **settings: Any) -> PSViT:
    """A model in float64 whose offsets are neither zero nor outside the map."""
    torch.manual_seed(seed)
    if name.endswith("eam"):
        settings = {"interest_kernel": 2} | settings
    model = create_model(name, 3, **TINY | settings).double()
    assert isinstance(model, PSViT)
    for layer in model.offset_layers:
        nn.init.normal_(layer.weight, std=0.3)
    return model


def images(height: int = 64, width: int = 64, batch: int = 2) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, height, width, generator=draw, dtype=torch.float64)


def authors_state(model: PSViT) -> dict[str, Tensor]:
    """A model's weights under its authors' names."""
    rules = [
        (r"stem\.conv\.", "stem.0."),
        (r"stem\.norm\.", "stem.1."),
        (r"stem\.blocks\.(\d)", lambda m: f"stem.{int(m[1]) + 4}"),
        (r"ps_layers\.(\d)\.", r"ps_layers.\1.transformer_layer."),
        (r"offset_layers\.(\d)\.", r"ps_layers.\1.offset_layer."),
    ]
    state = {}
    for name, value in model.state_dict().items():
        for pattern, theirs in rules:
            name = re.sub(f"^{pattern}", theirs, name)
        state[name] = value
    for layer in range(len(model.ps_layers)):
        for kind in ("weight", "bias"):
            state[f"ps_layers.{layer}.position_layer.{kind}"] = state[f"pos_layer.{kind}"]
    return state | {"point_coord": torch.zeros(1, model.points**2, 2)}


def test_sampling_is_bilinear_in_pixels_with_zeros_outside() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, 5, 7, 2, generator=draw, dtype=torch.float64)
    places = torch.rand(1, 40, 2, generator=draw, dtype=torch.float64) * 12 - 3
    places[0, :4] = torch.tensor([[0.0, 0.0], [4.0, 6.0], [-1.0, 2.0], [2.0, 7.0]])
    for sample in (sample_pixels, sample_with_released_gradient):
        found = sample(x, places)
        for n, (y, col) in enumerate(places[0].tolist()):
            at = y / 4 * 2 - 1, col / 6 * 2 - 1  # the oracle's coordinates
            for c in range(2):
                expected = bilinear(array(x[0, ..., c]), *at)
                assert found[0, n, c].item() == pytest.approx(expected, abs=1e-12)


def test_the_gradient_of_the_sampler_is_its_derivative() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 5, 3, generator=draw, dtype=torch.float64, requires_grad=True)
    places = torch.rand(2, 9, 2, generator=draw, dtype=torch.float64) * 7 - 1.5
    assert torch.autograd.gradcheck(sample_pixels, (x, places.requires_grad_()))


def test_the_kernels_gradient_is_the_derivative_inside_the_map() -> None:
    draw = torch.Generator().manual_seed(0)
    places = torch.rand(2, 9, 2, generator=draw, dtype=torch.float64) * 3
    found = []
    for sample in (sample_pixels, sample_with_released_gradient):
        draw.manual_seed(1)
        x = torch.randn(2, 4, 4, 3, generator=draw, dtype=torch.float64, requires_grad=True)
        at = places.clone().requires_grad_()
        sample(x, at).square().sum().backward()
        found.append((x.grad, at.grad))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["psvit_nano", "psvit_nano_eam"])
def test_images_of_any_size_have_the_same_points_over_their_map(name: str) -> None:
    model = tiny(name=name).eval()
    for height, width in ((64, 64), (96, 64), (65, 101)):
        record: dict[str, dict[str, Tensor]] = {"ps_layers.0": {}, "trans_layers.1": {}}
        assert model(images(height, width), record).shape == (2, 3)
        assert record["trans_layers.1"]["attention"].shape == (2, 4, 17, 17)
        if name == "psvit_nano":
            first = record["ps_layers.0"]["points"][0, 0, 0, 0]
            map_sides = torch.tensor([-(-height // 4), -(-width // 4)])
            expected = (0.5 * map_sides / 4) * 2 / (map_sides - 1) - 1
            torch.testing.assert_close(first, expected.double())


@pytest.mark.parametrize("name", ["psvit_nano", "psvit_nano_eam"])
def test_an_image_is_scored_alike_in_any_batch(name: str) -> None:
    model = tiny(name=name).eval()
    with torch.no_grad():
        together, alone = model(images(batch=3)), model(images(batch=3)[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=1e-12, atol=1e-12)
    assert not model.averages_points


def test_points_move_on_by_the_offsets_and_gamma_scales_what_is_sampled() -> None:
    record: dict[str, dict[str, Tensor]] = {}
    tiny(gamma=0.5).eval()(images(), record)
    for layer in range(2):
        now, then = (record[f"ps_layers.{i}"] for i in (layer, layer + 1))
        torch.testing.assert_close(now["points"] + now["offsets"], then["points"])
        torch.testing.assert_close(now["points"] + now["offsets"] / 2, now["positions"])
    assert (
        record["ps_layers.1"]["offsets"].abs().min() > 0 == record["ps_layers.0"]["offsets"].max()
    )


def test_a_fresh_models_points_do_not_move() -> None:
    record: dict[str, dict[str, Tensor]] = {}
    create_model("psvit_nano", **TINY).eval()(images().float(), record)
    assert all(not record[f"ps_layers.{i}"]["offsets"].any() for i in range(3))


@pytest.mark.parametrize("name", ["psvit_nano", "psvit_nano_eam"])
def test_checkpointing_computes_the_same(name: str) -> None:
    model, found = tiny(name=name, drop_path_rate=0.5).train(), []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        torch.manual_seed(2)
        model(images(batch=4)).square().sum().backward()
        found.append({n: p.grad.clone() for n, p in model.named_parameters()})
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_drop_path_grows_over_all_layers_and_the_class_token_does_not_decay() -> None:
    model = tiny(drop_path_rate=0.4)
    rates = [model.get_submodule(f"{name}.drop_path").rate for name in model.repeated_blocks()]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert model.no_weight_decay() == {"cls_token"}


def test_the_enhanced_model_has_interest_points_in_the_layers_that_sample() -> None:
    model, record = tiny(name="psvit_nano_eam").eval(), {}
    assert model.enhanced_blocks() == model.sampling_blocks()
    model(images(), record)
    assert record["ps_layers.1"]["points"].shape == (2, 1, 3, 3, 2)  # 4 - k_in + 1
    assert record["ps_layers.1"]["attention"].shape == (2, 4, 16, 9)
    assert set(model.lr_factors(1.0)) == {
        f"ps_layers.{i}.attn.interest.conv.{kind}" for i in range(3) for kind in ("weight", "bias")
    }


def test_the_named_sizes() -> None:
    with torch.device("meta"):
        counts = {
            name: sum(p.numel() for p in create_model(name, outputs).parameters()) / 1e6
            for name, outputs in (("psvit_b", 1000), ("psvit_b_eam", 10))
        }
    assert counts["psvit_b"] == 21.344302
    assert counts["psvit_b_eam"] == pytest.approx(21, abs=0.5)  # "21M" in Table 8


def test_the_authors_weights_load_averaged_ones_first_and_save_the_head_of_another_width() -> None:
    source, model = tiny(seed=1), tiny(seed=2)
    state = authors_state(source)
    wrong = {name: torch.zeros_like(value) for name, value in state.items()}
    report = load_weights(model, {"state_dict_ema": state, "state_dict": wrong}, verbose=False)
    assert report.format == "PS-ViT" and not report.missing and not report.left_out
    torch.testing.assert_close(model.state_dict(), source.state_dict())
    model.reset_classifier(1)
    assert load_weights(model, state, verbose=False).left_out == ["head.weight", "head.bias"]


def test_the_authors_weights_start_the_enhanced_model() -> None:
    source, model = tiny(seed=1), tiny(name="psvit_nano_eam")
    report = load_weights(model, authors_state(source), verbose=False)
    assert {re.sub(r"\d", "#", n).split(".", 3)[3].split(".")[0] for n in report.missing} == {
        "interest", "offset", "bias_table",
    }  # fmt: skip
    ours, theirs = model.ps_layers[1].attn, source.ps_layers[1].attn
    torch.testing.assert_close(ours.v.weight, theirs.qkv.weight[32:])
    assert not ours.k.bias.any()


def test_weights_of_other_points_or_with_unlike_copies_are_refused() -> None:
    state = authors_state(tiny())
    with pytest.raises(WeightsError, match="point_coord.*the model has 5 x 5 points: set points"):
        load_weights(tiny(points=5), state)
    state["ps_layers.1.position_layer.bias"] = torch.ones(16)
    with pytest.raises(WeightsError, match=r"ps_layers\.1.*'pos_layer.bias' differ"):
        load_weights(tiny(), state)
    with pytest.raises(WeightsError, match="another architecture"):
        load_weights(create_model("eat_nano"), authors_state(tiny()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"points": 65}, "points is 65: expected 1 to 64"),
        ({"depths": (4, 0)}, "depths is 0: expected 1 to 128"),
        ({"depths": (4, 2, 1)}, "depths is .*: expected a list of 2"),
        ({"heads": 5}, "must be a multiple of num_heads"),
        ({"dim": 16384, "heads": 1}, "weights: expected at most"),
        ({"stem_dims": (16384, 64)}, "weights: expected at most"),
        ({"img_size": 32}, "img_size is 32: expected 64"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        create_model("psvit_b", **settings)
    with pytest.raises(TypeError, match="stages"):
        create_model("psvit_b", stages=["LS"] * 4)
