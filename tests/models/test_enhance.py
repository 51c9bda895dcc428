"""Enhanced attention in other transformers: it starts from their weights, and learns."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from backbones import HIERARCHICAL, PLAIN, backbone, images_for
from torch import Tensor, nn

from eat.evaluation.saliency import rollout
from eat.models import EAT, create_model
from eat.models.enhance import enhance, recording, rotary_at

ALL_TOKENS: dict[str, Any] = {"interest": False, "offsets": False, "bias": False, "points": None}


def outputs(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


@pytest.mark.parametrize("name", PLAIN)
def test_points_at_all_tokens_without_offsets_and_bias_compute_what_the_original_does(
    name: str,
) -> None:
    model, x = backbone(name), images_for(name)
    expected = outputs(model, x)
    replaced = enhance(model, blocks=range(4), **ALL_TOKENS)
    assert list(replaced) == [f"blocks.{i}.attn" for i in range(4)]
    assert (outputs(model, x) - expected).abs().max() < 1e-12


def own_swin() -> EAT:
    torch.manual_seed(0)
    settings = {"dims": (8, 8, 16, 16), "heads": (1, 2, 4, 4), "window_size": 2}
    return create_model("swin_tiny", 3, 64, drop_path_rate=0.0, **settings).double().eval()


@pytest.mark.parametrize("name", ["swin_tiny", "vit_base_patch16_siglip_224", *HIERARCHICAL])
def test_a_gated_model_starts_as_the_original_to_the_bit_and_learns(name: str) -> None:
    own = name == "swin_tiny"
    model, x = (own_swin() if own else backbone(name)), images_for(name)
    expected = outputs(model, x)
    replaced = enhance(model, gate=True)
    assert torch.equal(outputs(model, x), expected)
    attns: list[Any] = [model.get_submodule(name) for name in replaced]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    model.train()
    model(x)[:, 0].sum().backward()
    assert all(attn.output_gate.grad.any() for attn in attns)
    assert not any(attn.q.weight.grad.any() for attn in attns)
    optimizer.step()
    model(x)[:, 0].sum().backward()
    without = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    # A softmax does not see what is added to all positions, so that this gradient is rounding.
    assert {n for n in without if not n.endswith("rel_pos.mlp.fc2.bias")} == set()


def test_it_has_the_weights_of_what_it_replaces_and_a_grid_over_all_of_the_map() -> None:
    model = backbone("maxvit_tiny_tf_224")
    replaced = enhance(model, stages=[2], interest=False)
    assert list(replaced) == [f"stages.2.blocks.{b}.attn_grid.attn" for b in (0, 1)]
    name, old = next(iter(replaced.items()))
    new: Any = model.get_submodule(name)
    x = images_for("swin_tiny").flatten()[: 2 * 16 * 32].view(2, 4, 4, 32)
    q, _, _ = old.qkv(x).view(2, 16, 1, 96).chunk(3, dim=-1)
    assert torch.allclose(new.q(x).view(2, 16, 1, 32), q)
    record: dict[str, Any] = {}
    new(x, record)
    corners = record["points"][0, 0][[0, 0, 3, 3], [0, 3, 0, 3]].tolist()
    assert corners == [[-1, -1], [-1, 1], [1, -1], [1, 1]]


def test_rotary_embedding_between_tokens_is_that_of_the_place() -> None:
    def table(y: Tensor, x: Tensor) -> Tensor:
        angles = torch.stack((0.9 * y - 0.2 * x + 0.3, 0.1 * y + x), dim=-1)
        return torch.cat((angles.sin(), angles.cos()), dim=-1)

    rows, cols = torch.meshgrid(torch.arange(3.0), torch.arange(5.0), indexing="ij")
    rope = table(rows.double(), cols.double()).flatten(0, 1)
    positions = torch.tensor([[0.3, -0.9], [-1.0, 1.0], [0.1, 0.77]]).double()[None, None]
    found = rotary_at(rope, positions, 3, 5)
    assert torch.allclose(found, table(positions[..., 0] + 1, 2 * positions[..., 1] + 2))
    # One with learnt frequencies of each head.
    assert torch.allclose(rotary_at(torch.stack((rope,) * 2), positions, 3, 5)[:, 1], found[:, 0])


def test_blocks_of_timm_record_what_they_attend_to() -> None:
    name = "vit_small_patch14_reg4_dinov2"
    model, x = backbone(name), images_for(name)
    enhance(model, points=3)
    record: dict[str, dict[str, Tensor]] = {"blocks.3": {}}
    copied = deepcopy(model)  # as a moving average of weights does
    with recording(copied, record):
        expected = outputs(copied, x)
    assert record["blocks.3"]["attention"].shape == (2, 4, 16, 9)
    assert torch.equal(outputs(model, x), expected)
    assert model.get_submodule("blocks.3.attn").kept_record is None


def test_a_map_of_another_size_is_that_of_the_image() -> None:
    model = backbone("vit_base_patch16_dinov3")
    enhance(model)
    record: dict[str, dict[str, Tensor]] = {"blocks.3": {}}
    with recording(model, record):
        outputs(model, torch.zeros(1, 3, 128, 48, dtype=torch.float64))
    assert record["blocks.3"]["attention"].shape[2] == 8 * 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stages": (2, 4)}, "stages is 4: expected 0 to 3"),
        ({"blocks": range(2)}, "choose stages"),
        ({"stages": (3, 3)}, r"stages is \[3, 3\]: expected each once"),
        ({"every": 7}, "no attention module that the settings choose"),
        ({"every": 0}, "every is 0"),
        ({"heads": 4}, "'heads' is unknown"),
        ({"points": 7.5}, "points is 7.5: expected int or null"),
        ({"eta": 2.0}, "eta must lie in"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    model = own_swin()
    before = list(model.state_dict())
    with pytest.raises(ValueError, match=message):
        enhance(model, **settings)
    assert list(model.state_dict()) == before


def test_modules_of_unknown_kinds_and_a_second_time_are_refused() -> None:
    with pytest.raises(ValueError, match=r"stages.2.blocks.1.attn is a .*DeformableAttention"):
        enhance(create_model("eat_nano"))
    model = own_swin()
    enhance(model)
    with pytest.raises(ValueError, match="enhanced already"):
        enhance(model)


@pytest.mark.parametrize(
    "name",
    [
        "pvt_v2_b0",
        "hieradet_small",
        "samvit_base_patch16",
        "coatnet_nano_cc_224",
        "naflexvit_base_patch16_gap",
    ],
)
def test_models_of_other_kinds_are_refused(name: str) -> None:
    import timm

    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
    with pytest.raises(ValueError, match="neither blocks nor stages|does not know"):
        enhance(model)


def test_stages_of_a_plain_transformer_are_refused() -> None:
    with pytest.raises(ValueError, match="choose blocks of this one"):
        create_model("vit_nano", enhance={"stages": [0]})


def test_what_training_tells_a_model_reaches_enhanced_attention_in_it() -> None:
    settings = {"window_size": 2, "depths": (1, 1, 2, 2), "embed_dim": 8, "num_heads": (1, 2, 2, 4)}
    model = create_model("timm/swinv2_tiny_window8_256", 1, 64, enhance={}, **settings)
    names = ["net.layers.2.blocks.1", "net.layers.3.blocks.1"]
    assert model.enhanced_blocks() == model.sampling_blocks() == names
    assert [model.map_side(name, 64) for name in names] == [4, 2]
    model.set_epoch(1, 4)
    model.set_batch_slice(2, 8)
    attns: list[Any] = [model.get_submodule(f"{name}.attn") for name in names]
    assert all(attn.exploration == 0.75 and attn.batch_slice == (2, 8) for attn in attns)
    points = {f"{name}.attn.interest.conv.{kind}" for name in names for kind in ("weight", "bias")}
    assert set(model.lr_factors(1.0)) == points
    kept = {f"{name}.attn.{kind}" for name in names for kind in ("bias_table", "logit_scale")}
    assert kept <= model.no_weight_decay()
    record: dict[str, dict[str, Tensor]] = {}
    model.eval()(torch.zeros(1, 3, 64, 64), record)
    assert list(record) == names and "attention" in record[names[1]]


def test_rollout_does_not_follow_a_gate() -> None:
    model = own_swin()
    enhance(model, gate=True)
    with pytest.raises(ValueError, match=r"does not follow stages\.2\.blocks\.1"):
        rollout(model, images_for("swin_tiny"))
