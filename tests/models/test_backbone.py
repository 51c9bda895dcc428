"""The backbone: stages, sizes, records, the head, settings."""

from typing import Any

import pytest
import torch
from minis import PROFILES, images, mini
from torch import Tensor

from eat.models.attention import WindowAttention
from eat.models.backbone import EAT
from eat.models.deformable import DeformableAttention
from eat.models.variants import VARIANTS, create_model

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


@pytest.mark.parametrize("profile", PROFILES)
def test_letter_d_has_padded_kernels_and_a_range_in_both_profiles(profile: str) -> None:
    blocks = [stage.blocks[0].attn for stage in mini(profile, stages=("D",) * 4).stages]
    offsets = [block.offset for block in blocks]
    assert [net.conv.kernel_size[0] for net in offsets] == [9, 7, 5, 3]
    assert [net.conv.padding[0] for net in offsets] == [4, 3, 2, 1]
    assert {net.range_factor for net in offsets} == {2.0}
    assert not any(block.bound_positions or block.rotate for block in blocks)
    assert blocks[2].points(torch.zeros(1, 4, 4, 16)).shape == (1, 1, 4, 4, 2)


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
    x = images(160, batch=1)
    with torch.no_grad():
        torch.testing.assert_close(small(x), large(x), rtol=0, atol=0)


def test_a_map_padded_by_patches_is_the_map_of_the_zero_padded_image() -> None:
    model = mini().eval()
    x = images(65, 97)
    padded = torch.nn.functional.pad(x, (0, 3, 0, 3))
    assert torch.equal(model.patch_embed(x), model.patch_embed(padded))


SHAPES = {
    "points": (2, 1, 2, 2, 2),
    "moves": (2, 1, 2, 2, 2),
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


# What every model answers


def test_a_model_knows_whether_it_averages_points_and_can_stop() -> None:
    assert not mini().averages_points
    model = mini("released").eval()
    assert model.averages_points
    alone = model(images()[:1])
    assert not torch.equal(model(images())[:1], alone)
    model.use_own_points()
    assert not model.averages_points
    torch.testing.assert_close(model(images())[:1], alone)


def test_bias_tables_of_both_kinds_are_not_decayed() -> None:
    assert mini(stages=("L", "S", "D", "E")).no_weight_decay() == {
        f"stages.{s}.blocks.0.attn.bias_table" for s in range(4)
    }


# Settings


def test_a_misspelt_setting_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="drop_path_rte"):
        EAT(drop_path_rte=0.1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="drop_path_rte"):
        create_model("eat_nano", drop_path_rte=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_outputs": 0}, "num_outputs is 0: expected 1 to 16384"),
        ({"img_size": 63}, "img_size is 63: expected 64 to 4096"),
        ({"stages": ("L", "S", "E")}, "stages needs one value for each of 4 stages"),
        ({"dims": (8, 16, 32)}, "dims needs one value for each of 4 stages"),
        ({"interest_kernels": (3, 1)}, "interest_kernels needs one value"),
        ({"dims": (8, 16, 32, -64)}, "dims is -64: expected 1 to 16384"),
        ({"heads": (0, 1, 2, 4)}, "heads is 0: expected 1 to 1024"),
        ({"groups": (0, 0, 0, 0)}, "groups is 0: expected 1 to 1024"),
        ({"window_size": 0}, "window_size is 0: expected 1 to 32"),
        ({"drop_path_rate": -1.0}, "drop_path_rate is -1.0: expected 0 to 0.999"),
        ({"drop_path_rate": 5.0}, "drop_path_rate is 5.0: expected 0 to 0.999"),
        ({"dims": (2**14,) * 4}, "ask for 2.6e.10 weights: expected at most 1.1e.09"),
        ({"dims": (10**400, 8, 8, 8)}, "dims is 1000"),
        ({"img_size": 2048, "heads": (1, 2, 4, 8)}, "attention entries in a block"),
        ({"window_size": 32, "img_size": 1024}, "entries in masks and indices of windows"),
        (
            {"stages": ("L" * 10**6, "L", "L", "L")},
            "blocks in stages is 1000003: expected 1 to 256",
        ),
        ({"mlp_ratio": float("nan")}, "mlp_ratio is nan: expected 0.0625 to 64"),
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
    assert VARIANTS[name].settings["drop_path_rate"] == rate
