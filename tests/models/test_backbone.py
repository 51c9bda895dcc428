"""The backbone and its named variants: shapes, settings, sizes, registries, precision."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from oracles import array
from parity import FIXTURES, read_case, released_model
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import eat
from eat.data import transforms
from eat.inference import cast_weights
from eat.models.attention import WindowAttention
from eat.models.backbone import EAT
from eat.models.deformable import DeformableAttention
from eat.models.variants import RELEASED, VARIANTS, create_model

FULL_SIZE = Path(__file__).parents[2].parent / "shared" / "parity"
MINI: dict[str, Any] = {"dims": (8, 16, 16, 32), "heads": (1, 2, 2, 4), "window_size": 3}
PROFILES: dict[str, dict[str, Any]] = {
    "paper": {"interest_kernels": (13, 7, 3, 1), "stages": ("LS", "LS", "LE", "LE")},
    "released": RELEASED | {"shift": 2, "stages": ("LS", "LS", "LE", "LE")},
}


def mini(profile: str = "paper", **settings: Any) -> EAT:
    torch.manual_seed(0)
    base = {"img_size": 64, "drop_path_rate": 0.0}
    return EAT(**MINI | PROFILES[profile] | base | settings)


def images(height: int = 64, width: int | None = None, batch: int = 2) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, height, width or height, generator=draw)


# Stages, sizes and records


@pytest.mark.parametrize("letters", ["LSDE", "SDEL", "DELS", "ELSD"])
@pytest.mark.parametrize("profile", PROFILES)
def test_any_stage_takes_any_letter(profile: str, letters: str) -> None:
    record: dict[str, dict[str, Tensor]] = {}
    model = mini(profile, stages=tuple(letters)).eval()
    scores = model(images(), record)
    assert scores.shape == (2, 10)
    assert scores.isfinite().all()
    kinds = [type(stage.blocks[0].attn) for stage in model.stages]
    window = [WindowAttention if letter in "LS" else DeformableAttention for letter in letters]
    assert kinds == window
    learned = [
        stage.blocks[0].attn.shift > 0
        for stage in model.stages
        if stage.blocks[0].attn.__class__ is WindowAttention
    ]
    assert learned == [letter == "S" for letter in letters if letter in "LS"]
    interest = [getattr(stage.blocks[0].attn, "interest", None) for stage in model.stages]
    assert [net is not None for net in interest] == [letter == "E" for letter in letters]


def test_letters_may_be_mixed_and_repeated_within_a_stage() -> None:
    model = mini(stages=("S", "DL", "LEDS", "EE"))
    assert [len(stage.blocks) for stage in model.stages] == [1, 2, 4, 2]
    assert model(images()).shape == (2, 10)


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (224, 100), (97, 65)])
@pytest.mark.parametrize(
    "settings",
    [
        PROFILES["paper"],
        PROFILES["released"],
        {"stages": ("LS", "LS", "LD", "LD")},
        {"stages": ("LS", "LS", "LS", "LS")},
        {"stages": ("E", "E", "E", "E"), "interest_kernels": (50, 22, 8, 1)},
    ],
    ids=["paper", "released", "DAT", "Swin", "kernels larger than maps"],
)
def test_inputs_of_any_size_from_64_are_rounded_up_to_multiples_of_32(
    settings: dict[str, Any], size: tuple[int, int]
) -> None:
    model = mini(**settings).eval()
    with torch.no_grad():
        features = model.forward_features(images(*size))
        assert features.shape == (2, -(-size[0] // 32), -(-size[1] // 32), 32)
        assert model(images(*size)).isfinite().all()


@pytest.mark.parametrize("size", [(63, 64), (64, 63)])
def test_smaller_images_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 64 x 64 pixels"):
        mini()(images(*size))


def test_img_size_changes_nothing_but_the_size_of_deformable_bias_tables() -> None:
    small, large = mini(), mini(img_size=(96, 128))
    shapes = {name: value.shape for name, value in small.state_dict().items()}
    changed = {
        name: tuple(value.shape)
        for name, value in large.state_dict().items()
        if value.shape != shapes[name]
    }
    assert changed == {
        "stages.2.blocks.1.attn.bias_table": (2, 11, 15),
        "stages.3.blocks.1.attn.bias_table": (4, 5, 7),
    }


def test_a_swin_gives_the_same_at_any_img_size_setting() -> None:
    stages = ("LS", "LS", "LS", "LS")
    small, large = mini(stages=stages).eval(), mini(stages=stages, img_size=160).eval()
    large.load_state_dict(small.state_dict())
    torch.testing.assert_close(small(images(160)), large(images(160)), rtol=0, atol=0)


def test_a_map_padded_by_patches_is_the_map_of_the_zero_padded_image() -> None:
    model = mini().eval()
    x = images(65, 97)
    padded = torch.nn.functional.pad(x, (0, 3, 0, 3))
    assert torch.equal(model.patch_embed(x), model.patch_embed(padded))


SHAPES = {
    "points": (2, 1, 2, 2, 2),
    "offsets": (2, 1, 2, 2, 2),
    "positions": (2, 1, 2, 2, 2),
    "attention": (2, 2, 16, 4),
}


def test_an_empty_record_is_filled_for_every_block_and_changes_no_score() -> None:
    model = mini().eval()
    record: dict[str, dict[str, Tensor]] = {}
    with torch.no_grad():
        assert torch.equal(model(images(), record), model(images()))
    assert list(record) == [f"stages.{s}.blocks.{b}" for s in range(4) for b in range(2)]
    assert {key: tuple(value.shape) for key, value in record["stages.2.blocks.1"].items()} == SHAPES
    # 16 x 16 tokens make 6 x 6 windows of 9 after padding, for one head
    assert {k: tuple(v.shape) for k, v in record["stages.0.blocks.1"].items()} == {
        "attention": (2, 36, 9, 9)
    }
    for block in record.values():
        rows = block["attention"].sum(-1)
        torch.testing.assert_close(rows, torch.ones_like(rows))


def test_only_the_named_blocks_are_recorded() -> None:
    record: dict[str, dict[str, Tensor]] = {"stages.3.blocks.1": {}}
    mini().eval()(images(), record)
    assert list(record) == ["stages.3.blocks.1"]
    assert set(record["stages.3.blocks.1"]) == set(SHAPES)


def test_recording_an_unknown_block_is_a_key_error_that_names_it() -> None:
    with pytest.raises(KeyError, match=r"no block 'stages\.2\.blocks\.7'"):
        mini()(images(), {"stages.2.blocks.7": {}})


@pytest.mark.parametrize("profile", PROFILES)
def test_forward_is_the_head_of_the_features(profile: str) -> None:
    model = mini(profile).eval()
    features = model.forward_features(images())
    assert torch.equal(model(images()), model.forward_head(features))
    pooled = model.forward_head(features, pre_logits=True)
    torch.testing.assert_close(pooled, features.mean((1, 2)))


# The head


def test_the_paper_profile_ends_in_a_distribution_and_the_released_one_in_raw_numbers() -> None:
    paper, released = mini().eval(), mini("released").eval()
    shares = paper(images())
    torch.testing.assert_close(shares.sum(-1), torch.ones(2))
    assert (shares > 0).all()
    raw = released(images())
    pooled = released.forward_head(released.forward_features(images()), pre_logits=True)
    assert torch.equal(raw, released.head(pooled))
    assert (raw < 0).any()


@pytest.mark.parametrize("profile", PROFILES)
def test_a_single_output_is_never_squashed(profile: str) -> None:
    model = mini(profile, num_outputs=1).eval()
    torch.nn.init.constant_(model.head.bias, 7.0)
    scores = model(images())
    assert scores.shape == (2, 1)
    assert (scores > 5).all()


def test_reset_classifier_replaces_only_the_head() -> None:
    model = mini()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.reset_classifier(4)
    assert model.num_outputs == model.num_classes == 4
    assert model.get_classifier() is model.head
    assert model(images()).shape == (2, 4)
    after = model.state_dict()
    assert {n for n in after if after[n].shape != before[n].shape} == {"head.weight", "head.bias"}
    assert all(torch.equal(after[n], before[n]) for n in after if not n.startswith("head"))


# Settings


def test_a_misspelt_setting_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="drop_path_rte"):
        EAT(drop_path_rte=0.1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="drop_path_rte"):
        create_model("eat_nano", drop_path_rte=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_outputs": 0}, "num_outputs must be at least 1, got 0"),
        ({"img_size": 63}, "img_size must be at least 64 pixels, got 63"),
        ({"stages": ("L", "S", "E")}, "stages needs one value for each of 4 stages"),
        ({"dims": (8, 16, 32)}, "dims needs one value for each of 4 stages"),
        ({"interest_kernels": (3, 1)}, "interest_kernels needs one value"),
        ({"stages": ("L", "S", "X", "E")}, r"\['X'\] are unknown; letters"),
        ({"stages": ("L", "", "L", "E")}, "each needs at least one letter"),
        ({"dims": (8, 16, 15, 32)}, r"dim \(15\)"),
        ({"groups": (1, 1, 1, 3)}, r"num_groups \(3\) must divide num_heads"),
        ({"shift": 3}, r"shift must lie in \[0, 2\], got 3"),
        ({"eta": 0.0}, "eta must lie in"),
        ({"pad_offsets": True}, "different numbers of points|must be odd"),
    ],
)
def test_settings_out_of_range_are_value_errors_that_say_why(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        mini(**settings)


def test_drop_path_grows_linearly_over_all_blocks_to_its_rate() -> None:
    model = create_model("eat_nano", drop_path_rate=0.35)
    blocks = [block for stage in model.stages for block in stage.blocks]
    rates = [b.drop_path.rate for b in blocks]
    assert rates == pytest.approx([0.05 * i for i in range(8)])


@pytest.mark.parametrize(
    ("name", "rate"), [("eat_tiny", 0.2), ("eat_small_released", 0.3), ("eat_base", 0.5)]
)
def test_drop_path_of_the_published_sizes(name: str, rate: float) -> None:
    assert VARIANTS[name]["drop_path_rate"] == rate


# Variants


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
            assert model(torch.zeros(1, 3, *model.img_size)).shape == (1, 5)


def letters(name: str) -> list[str]:
    return list(VARIANTS[name]["stages"])


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
    normalised = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    assert normalised == (transforms.IMAGENET_MEAN, transforms.IMAGENET_STD)


def test_timm_is_told_that_no_weights_are_published() -> None:
    with pytest.raises(ValueError, match="no weights are published under the name 'eat_nano'"):
        timm.create_model("eat_nano", pretrained=True)


# Precision and compilation

WIDE = (8, 16, 24, 48)  # enough channels to make interest points by matrix products


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
def test_weights_cast_in_advance_are_those_that_autocast_casts(profile: str) -> None:
    model = mini(profile, dims=WIDE).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        before = model(images())
        cast_weights(model, "bf16")
        assert torch.equal(model(images()), before)


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
    model = mini(profile, rotate=False, dims=WIDE).train(training)
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
    torch._dynamo.reset()
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model, fullgraph=True, backend=backend)
    assert not torch.equal(compiled(images()), compiled(images()))
    model.set_epoch(3, 3)
    torch.testing.assert_close(compiled(images()), compiled(images()), rtol=0, atol=0)
    assert len(graphs) == 1


@pytest.mark.parametrize("profile", PROFILES)
def test_one_graph_serves_other_batches_and_sizes(profile: str) -> None:
    model = mini(profile, rotate=False, dims=WIDE).train()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    for batch, size in ((2, 64), (3, 64), (2, 128)):
        x = images(size, batch=batch)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
