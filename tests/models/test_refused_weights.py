"""Files and dictionaries that do not fit, or that must not be trusted."""

import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from minis import copy, same, small
from parity import FIXTURES, read_case, release_state, released_model
from safetensors.torch import save_file
from torch import Tensor

from eat.models.backbone import EAT
from eat.models.weights import WeightsError, load_weights


class RunsCode:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


def refused(model: EAT, weights: Any, message: str) -> None:
    before = copy(model)
    with pytest.raises(WeightsError, match=message):
        load_weights(model, weights)
    assert same(model, before)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"weights.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(small().state_dict(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refused(small(), path, rf"weights\.{suffix}: truncated or not")


JUNK = [b"<!DOCTYPE html><html>404</html>" * 100, b"abc", b"\x80"]


@pytest.mark.parametrize("junk", JUNK, ids=["html", "text", "one byte"])
def test_a_safetensors_file_of_something_else_is_refused(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "weights.safetensors").write_bytes(junk)
    refused(small(), tmp_path / "weights.safetensors", "truncated or not safetensors")


@pytest.mark.parametrize("junk", JUNK, ids=["html", "text", "one byte"])
def test_a_pytorch_file_of_something_else_is_refused(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "weights.pth").write_bytes(junk)
    refused(small(), tmp_path / "weights.pth", "truncated or not a PyTorch file")


def test_a_refusal_names_what_would_run_and_does_not_advise_to_run_it(tmp_path: Path) -> None:
    torch.save({"extra": RunsCode(tmp_path / "made")}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="mkdir") as error:
        load_weights(small(), tmp_path / "weights.pth")
    assert "will likely succeed" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    refused(small(), tmp_path / "nothing.pth", r"nothing\.pth: no such file")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_would_run_code_is_refused_and_does_not(tmp_path: Path, legacy: bool) -> None:
    path, folder = tmp_path / "weights.pth", tmp_path / "made by the pickle"
    content = {"model": small().state_dict(), "extra": RunsCode(folder)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    refused(small(), path, "refused, because it holds more than tensors")
    assert not folder.exists()
    pickle.loads(pickle.dumps(RunsCode(folder)))
    assert folder.exists()  # the bait works


def test_weights_of_another_family_are_refused() -> None:
    state = timm.create_model("resnet18", pretrained=False).state_dict()
    refused(small(), state, r"none of the known families of names .* \['conv1\.weight'")


def test_weights_of_another_size_are_refused() -> None:
    refused(small(), small(dims=(8, 16, 48, 64)).state_dict(), "another architecture: 'stages")


def test_weights_of_another_depth_are_refused() -> None:
    deep = small(stages=("LS", "LS", "LELE", "DE"))
    refused(small(), deep.state_dict(), "which the model does not have")
    refused(deep, small().state_dict(), "weights are missing")


def test_foreign_names_without_a_rule_are_refused() -> None:
    case, _ = read_case(FIXTURES / "mini_AVA")
    state = release_state(case["keys"]) | {"stages.0.attns.0.gate.weight": torch.zeros(3)}
    message = r"'stages\.0\.attns\.0\.gate\.weight' \(3,\) has no place"
    refused(released_model(case["config"]), state, message)


@pytest.mark.parametrize("family", ["eat", "release"])
@pytest.mark.parametrize("half", ["first", "second"])
def test_half_a_state_dict_is_refused(family: str, half: str) -> None:
    case, _ = read_case(FIXTURES / "mini_AVA")
    model = released_model(case["config"])
    state = release_state(case["keys"]) if family == "release" else model.state_dict()
    names = list(state)
    middle = len(names) // 2
    kept = names[:middle] if half == "first" else names[middle:]
    message = "weights are missing" if half == "first" else "none of the known families"
    refused(model, {name: state[name] for name in kept}, message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "expected a state dict, found dict"),
        ({"model": [1, 2]}, "expected tensors, found list under 'model'"),
        ({"epoch": 3}, "expected tensors, found int under 'epoch'"),
    ],
)
def test_a_dict_without_tensors_is_refused(content: dict[str, Any], message: str) -> None:
    refused(small(), content, message)


def test_integer_keys_are_refused(tmp_path: Path) -> None:
    torch.save({0: torch.zeros(3), 1: torch.zeros(3)}, tmp_path / "keys.pth")
    refused(small(), tmp_path / "keys.pth", r"keys\.pth: expected names of weights, found 0")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("family", ["eat", "release"])
def test_weights_that_are_not_finite_are_refused_and_the_first_is_named(
    family: str, bad: float
) -> None:
    case, _ = read_case(FIXTURES / "mini_AVA")
    model = released_model(case["config"])
    state = copy(model) if family == "eat" else release_state(case["keys"])
    floats = [name for name in state if state[name].numel() > 4]
    for name in (floats[7], floats[3]):
        state[name].view(-1)[4] = bad
    refused(model, state, f"'{re.escape(floats[3])}' holds NaN or infinite values")


def test_weights_of_8_bits_are_loaded() -> None:
    model = small()
    bias = torch.full_like(model.head.bias, 0.5)
    load_weights(model, model.state_dict() | {"head.bias": bias.to(torch.float8_e5m2)})
    assert torch.equal(model.head.bias, bias)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("layers.1.downsample.reduction.weight", (16,)),
        ("layers.1.downsample.reduction.weight", (16, 30)),
        ("layers.1.downsample.norm.weight", (31,)),
        ("layers.0.blocks.0.attn.qkv.weight", (24,)),
        ("layers.2.blocks.1.attn.qkv.weight", (97, 32)),
        ("layers.2.blocks.1.attn.qkv.bias", ()),
        ("layers.0.blocks.0.attn.relative_position_bias_table", (0, 1)),
        ("layers.0.blocks.0.attn.relative_position_bias_table", (169,)),
        ("patch_embed.proj.weight", (8,)),
    ],
)
def test_timm_weights_of_an_odd_shape_are_refused(name: str, shape: tuple[int, ...]) -> None:
    settings = {"embed_dim": 8, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)}
    state = timm.create_model("swin_tiny_patch4_window7_224", **settings).state_dict()
    assert name in state
    optional = name.endswith("bias_table")
    state[name] = torch.zeros(shape)
    model = small()
    if optional:  # fresh tables take its place, and the report says so
        assert name in load_weights(model, state, verbose=False).left_out
    else:
        refused(model, state, r"'layers|'patch_embed\.proj\.weight' has shape")


def test_a_file_that_holds_a_list_is_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    refused(small(), tmp_path / "list.pth", "expected a state dict, found list")


# Weights of ours are complete

INTEREST = "stages.2.blocks.1.attn.interest.conv.weight"


@pytest.mark.parametrize(
    "name",
    [
        "head.weight",
        INTEREST,
        "stages.3.blocks.1.attn.offset.conv.bias",
        "stages.0.blocks.0.attn.bias_table",
    ],
)
def test_weights_of_ours_that_lack_one_are_refused(tmp_path: Path, name: str) -> None:
    state = copy(small(seed=1))
    del state[name]
    save_file(state, tmp_path / "part.safetensors")
    message = f"part.safetensors: .*: 1 weights are missing, the first is '{re.escape(name)}'"
    refused(small(), tmp_path / "part.safetensors", message)


@pytest.mark.parametrize("name", ["head.extra", "stages.0.blocks.9.attn.bias_table"])
def test_weights_of_ours_that_hold_others_are_refused(name: str) -> None:
    state = copy(small(seed=1)) | {name: torch.zeros(3)}
    refused(small(), state, f"'{name}' has shape .3,., which the model does not have")


def test_weights_of_ours_start_a_model_with_another_attention() -> None:
    grid, points = small(seed=1, stages=("LS", "LS", "LD", "DD")), small()
    report = load_weights(points, grid.state_dict(), verbose=False)
    assert [name for name in report.missing if ".interest." not in name] == report.left_out
    assert torch.equal(points.norm.weight, grid.norm.weight)
    back = load_weights(grid, points.state_dict(), verbose=False)
    assert INTEREST in back.left_out


# Tensors that are no weights


@pytest.mark.parametrize("name", ["norm.weight", INTEREST])
@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64])
def test_weights_that_are_no_floating_point_numbers_are_refused(
    name: str, dtype: torch.dtype
) -> None:
    state = copy(small())
    state[name] = state[name].to(dtype)
    refused(small(), state, f"'{name}' is of {dtype}: expected floating point")


def test_a_number_that_is_finite_only_in_double_precision_is_refused() -> None:
    state = copy(small())
    state["norm.weight"] = state["norm.weight"].double() * 1e300
    refused(small(), state, "'norm.weight' holds NaN or infinite values")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(64).to_sparse(), "is sparse or has no data"),
        (torch.zeros(64, device="meta"), "is sparse or has no data"),
        (torch.zeros(()).expand(2**40), "has shape .1099511627776,., larger than any weight"),
    ],
)
def test_tensors_of_odd_kinds_are_refused(tensor: Tensor, message: str) -> None:
    refused(small(), copy(small()) | {"norm.weight": tensor}, f"'norm.weight' {message}")


def test_two_names_of_one_weight_are_refused() -> None:
    case, _ = read_case(FIXTURES / "mini_AVA")
    state = release_state(case["keys"])
    table = "stages.2.attns.1.rpe_table"
    other = table.replace("rpe_table", "relative_position_bias_table")
    model = released_model(case["config"])
    refused(model, state | {other: state[table]}, "stand for the same weight")
    twice = copy(small()) | {"module.norm.weight": torch.zeros(64)}
    refused(small(), twice, "holds weights twice, with and without the prefix 'module.'")


def test_a_message_about_an_endless_name_is_cut() -> None:
    with pytest.raises(WeightsError) as caught:
        load_weights(small(), copy(small()) | {"x" * 10**6: torch.zeros(3)})
    assert len(str(caught.value)) < 1100


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_pipe_and_a_device_are_refused(tmp_path: Path, suffix: str) -> None:
    os.mkfifo(tmp_path / f"pipe.{suffix}")
    (tmp_path / f"zero.{suffix}").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        refused(small(), tmp_path / f"{name}.{suffix}", f"{name}.{suffix}: a pipe, socket or dev")
