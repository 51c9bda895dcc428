"""Weights: foreign names, other sizes, and files that must not be trusted."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from minis import SMALL, copy, same, small
from oracles import array
from parity import FIXTURES, read_case, release_state, released_model
from safetensors.torch import save_file
from torch import Tensor, nn

from eat.models.backbone import EAT
from eat.models.empty import EmptyWeights
from eat.models.variants import create_model
from eat.models.weights import (
    TRAINED_ON,
    LoadReport,
    WeightsError,
    load_weights,
    resize_bias_table,
)

FULL_SIZE = Path(__file__).parents[2].parent / "shared" / "parity"


def sizes(report: LoadReport) -> list[int]:
    """How many were loaded, resized, left out, missing."""
    kinds = (report.loaded, report.resized, report.left_out, report.missing)
    return [len(names) for names in kinds]


# Our own files


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_our_own_weights_make_the_round_trip(tmp_path: Path, suffix: str) -> None:
    model, other = small(), small(seed=1)
    path = tmp_path / f"weights.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(model.state_dict(), path)
    assert not same(other, copy(model))
    report = load_weights(other, path, verbose=False)
    assert same(other, copy(model))
    assert report.format == "eat"
    assert sizes(report) == [len(model.state_dict()), 0, 0, 0]


@pytest.mark.parametrize("wrap", ["model", "state_dict", "module."])
def test_wrappings_of_training_scripts_are_taken_off(wrap: str) -> None:
    model, other = small(), small(seed=1)
    state = model.state_dict()
    wrapped = {wrap + n: v for n, v in state.items()} if wrap == "module." else {wrap: state}
    load_weights(other, wrapped, verbose=False)
    assert same(other, copy(model))


def test_the_report_is_printed_with_its_counts(capsys: pytest.CaptureFixture[str]) -> None:
    model, state = small(), small(num_outputs=1).state_dict()
    load_weights(model, state)
    kept = len(state) - 2
    assert capsys.readouterr().out == (
        f"state dict (eat): loaded {kept}, resized 0, left out 2 (head.weight, head.bias), "
        "missing 2 (head.weight, head.bias)\n"
    )
    load_weights(model, state, verbose=False)
    assert capsys.readouterr().out == ""


def test_a_head_of_another_width_is_left_out_and_the_rest_loaded() -> None:
    model, source = small(), small(seed=1, num_outputs=1)
    before = copy(model)
    report = load_weights(model, source.state_dict(), verbose=False)
    assert report.left_out == report.missing == ["head.weight", "head.bias"]
    now = model.state_dict()
    assert torch.equal(now["head.weight"], before["head.weight"])
    assert torch.equal(now["norm.weight"], source.norm.weight)
    assert torch.equal(now["patch_embed.conv.weight"], source.patch_embed.conv.weight)


def test_a_list_of_training_images_among_older_weights_is_ignored() -> None:
    model, other = small(), small(seed=1)
    report = load_weights(other, model.state_dict() | {TRAINED_ON: torch.arange(3)}, verbose=False)
    assert same(other, copy(model))
    assert sizes(report) == [len(model.state_dict()), 0, 0, 0]


# The release and DAT


@pytest.mark.parametrize("dataset", ["AVA", "TAD66K"])
def test_every_name_of_the_release_is_loaded(dataset: str) -> None:
    case, _ = read_case(FIXTURES / f"mini_{dataset}")
    model = released_model(case["config"])
    state = release_state(case["keys"])
    report = load_weights(model, state, verbose=False)
    assert report.format == "DAT or released EAT"
    assert sizes(report) == [len(model.state_dict()), 0, 0, 0]
    now = model.state_dict()
    table = "stages.2.attns.1.rpe_table"
    assert torch.equal(now["stages.2.blocks.1.attn.bias_table"], state[table])
    mlp = "stages.3.layer_norms.3.norm.weight"
    assert torch.equal(now["stages.3.blocks.1.norm2.weight"], state[mlp])
    interest = "stages.3.attns.1.ref_point14.weight"
    assert torch.equal(now["stages.3.blocks.1.attn.interest.conv.weight"], state[interest])
    value = "stages.3.attns.1.proj_v.weight"
    assert torch.equal(now["stages.3.blocks.1.attn.v.weight"], state[value][:, :, 0, 0])


def dat_checkpoint(keys: dict[str, list[int]]) -> dict[str, dict[str, Tensor]]:
    """As published: under ``model``, 1000 classes, no interest network."""
    keys = {name: shape for name, shape in keys.items() if "ref_point14" not in name}
    keys["cls_head.weight"], keys["cls_head.bias"] = [1000, keys["cls_head.weight"][1]], [1000]
    return {"model": release_state(keys)}


@pytest.mark.parametrize("name", ["mini_AVA", "tiny_AVA"])
def test_imagenet_weights_of_dat_start_the_released_profile(tmp_path: Path, name: str) -> None:
    path = (FIXTURES if name.startswith("mini") else FULL_SIZE) / name
    if not path.with_suffix(".npz").is_file():
        pytest.skip(f"{name} is not part of the repository: it is too large for a fixture")
    case, _ = read_case(path)
    tiny = name == "tiny_AVA"
    model = create_model("eat_tiny_released") if tiny else released_model(case["config"])
    before = copy(model)
    torch.save(dat_checkpoint(case["keys"]), tmp_path / "dat.pth")
    report = load_weights(model, tmp_path / "dat.pth", verbose=False)
    assert report.left_out == ["cls_head.weight", "cls_head.bias"]
    deformable = sum(key.endswith("rpe_table") for key in case["keys"])
    assert len(report.missing) == 2 * deformable + 2
    assert all(".interest." in n or n.startswith("head.") for n in report.missing)
    assert sizes(report)[:2] == [len(before) - 2 * deformable - 2, 0]
    now = model.state_dict()
    assert {n for n in now if torch.equal(now[n], before[n])} == set(report.missing)


def test_the_paper_profile_takes_dat_weights_but_for_offset_kernels_of_another_size() -> None:
    case, _ = read_case(FIXTURES / "mini_AVA")
    config = case["config"]
    model = EAT(
        dims=config["dims"],
        heads=config["heads"],
        groups=[1, 1, 2, 4],
        stages=("LS", "LS", "LE", "LE"),
    )
    assert model.stages[0].blocks[1].attn.shift == 3  # the weights were trained with 4
    report = load_weights(model, dat_checkpoint(case["keys"]), verbose=False)
    kernels = [n for n in report.left_out if not n.startswith("cls_head")]
    assert kernels == [f"stages.{s}.attns.1.conv_offset.0.weight" for s in (2, 3)]


# timm's Swin


NARROW: dict[str, Any] = {"dims": (24, 48, 96, 192), "heads": (1, 2, 4, 8)}


@pytest.fixture(scope="module")
def swin() -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", embed_dim=24, num_heads=NARROW["heads"]
    )
    for name, parameter in model.named_parameters():
        if name.endswith("relative_position_bias_table"):
            nn.init.normal_(parameter)
        elif "norm" in name and name.endswith("weight"):
            nn.init.uniform_(parameter, 0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize("name", ["swin_tiny", "eat_tiny"])
def test_swin_blocks_of_the_early_stages_compute_what_timms_do(swin: nn.Module, name: str) -> None:
    model = create_model(name, **NARROW).eval()
    report = load_weights(model, swin.state_dict(), verbose=False)
    assert report.format == "timm Swin"
    for s, side, dim in ((0, 56, 24), (1, 28, 48)):
        x = torch.randn(1, side, side, dim)
        for ours, theirs in zip(model.stages[s].blocks, swin.layers[s].blocks, strict=True):
            with torch.no_grad():
                torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_swin_weights_in_swin_leave_out_only_the_head(swin: nn.Module) -> None:
    report = load_weights(create_model("swin_tiny", **NARROW), swin.state_dict(), verbose=False)
    assert report.left_out == ["head.fc.weight", "head.fc.bias"]
    new = [f"stages.{s}.downsample.norm.{kind}" for s in range(3) for kind in ("weight", "bias")]
    assert set(report.missing) == {*new, "head.weight", "head.bias"}
    assert report.resized == []


def test_swin_weights_in_eat_split_queries_keys_and_values(swin: nn.Module) -> None:
    model = create_model("eat_tiny", **NARROW)
    report = load_weights(model, swin.state_dict(), verbose=False)
    joint = swin.layers[2].blocks[3].attn.qkv
    block = model.stages[2].blocks[3].attn
    assert torch.equal(torch.cat([block.q.weight, block.k.weight, block.v.weight]), joint.weight)
    assert torch.equal(torch.cat([block.q.bias, block.k.bias, block.v.bias]), joint.bias)
    fresh = {n.split(".attn.")[1].split(".")[0] for n in report.missing if ".attn." in n}
    assert fresh == {"interest", "offset", "bias_table"}


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_the_step_down_is_timms_patch_merging_up_to_a_layer_norm(
    swin: nn.Module, stage: int
) -> None:
    merging = swin.layers[stage + 1].downsample
    assert not merging.norm.bias.any()  # the norm's bias is what cannot be folded
    model = create_model("swin_tiny", **NARROW).eval()
    load_weights(model, swin.state_dict(), verbose=False)
    dim = 24 * 2**stage
    x = 3 + 2 * torch.randn(2, 8, 6, dim)
    with torch.no_grad():
        merged = nn.functional.layer_norm(merging(x), (2 * dim,))
        ours = model.stages[stage].downsample(x.permute(0, 3, 1, 2))
    # The norms' epsilons weigh differently before and after.
    torch.testing.assert_close(ours, merged, rtol=1e-3, atol=1e-3)


# Another resolution


def test_both_kinds_of_bias_tables_are_resized_from_224_to_384() -> None:
    source, model = small(), small(seed=1, img_size=384, window_size=12)
    tables = [name for name in source.state_dict() if name.endswith("bias_table")]
    for name, table in source.named_parameters():
        if name in tables:
            nn.init.constant_(table, 0.375)
    report = load_weights(model, source.state_dict(), verbose=False)
    assert report.resized == tables
    assert len(tables) == 8
    assert sizes(report) == [len(source.state_dict()) - 8, 8, 0, 0]
    now = model.state_dict()
    assert now["stages.0.blocks.0.attn.bias_table"].shape == (23**2, 1)
    assert now["stages.2.blocks.1.attn.bias_table"].shape == (4, 47, 47)
    for name in tables:
        torch.testing.assert_close(now[name], torch.full_like(now[name], 0.375))
    assert model(torch.zeros(1, 3, 384, 384)).isfinite().all()


def test_resized_tables_keep_their_axes_and_heads_apart() -> None:
    y = torch.arange(5.0).view(5, 1).expand(5, 5)
    window = torch.stack((y.flatten(), 10 * y.t().flatten()), dim=1)  # (25, heads)
    resized = resize_bias_table(window, torch.Size((81, 2))).view(9, 9, 2)
    deformable = resize_bias_table(torch.stack((y, 10 * y.t())), torch.Size((2, 9, 7)))
    for first, second in (resized.unbind(-1), deformable.unbind(0)):
        assert (first.diff(dim=0) > 0).all()
        assert first.diff(dim=1).abs().max() < 1e-4
        assert (second.diff(dim=1) > 0).all()
        assert second.diff(dim=0).abs().max() < 1e-4
        assert first[4].mean() == pytest.approx(2)
        assert second.mean() == pytest.approx(20, rel=1e-4)


def test_weights_of_another_img_size_score_almost_alike() -> None:
    source, model = small().eval(), small(seed=1, img_size=256).eval()
    load_weights(model, source.state_dict(), verbose=False)
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        difference = array(source(x)) - array(model(x))
    assert abs(difference).max() < 1e-3


# Without fresh weights


def test_a_model_built_empty_becomes_the_one_whose_weights_it_takes() -> None:
    source = small(window_size=3).eval()
    with EmptyWeights():
        model = EAT(**SMALL, stages=("LS", "LS", "LE", "DE"), window_size=3)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert all(not buffer.is_meta for buffer in model.buffers())
    load_weights(model, copy(source) | {"head.bias": source.head.bias.double()}, verbose=False)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    x = torch.randn(1, 3, 96, 96)
    assert torch.equal(model.eval()(x), source(x))


def test_a_model_built_empty_takes_nothing_less_than_all_weights() -> None:
    with EmptyWeights():
        model = EAT(**SMALL, num_outputs=1)
    state = EAT(**SMALL, num_outputs=10).state_dict()
    with pytest.raises(WeightsError, match=r"2 weights are missing, the first is 'head\.weight'"):
        load_weights(model, state)
