"""Weights of other code under our names: the authors' releases, DAT, timm's Swin and PS-ViT."""

import re
from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

from eat.models.base import AestheticModel
from eat.models.timm_backbone import TimmModel, is_ours

State = dict[str, Tensor]


class WeightsError(ValueError):
    """Weights that cannot be read, are not safe to read, or do not fit the model.

    The message is cut, because the names that it quotes may be of any length.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message if len(message) <= 1000 else f"{message[:1000]} ...")


# One rule a line: pattern of a foreign name, and our name; None drops it.
Rule = tuple[str, str | Callable[[re.Match[str]], str] | None]
_ATTN = r"stages\.(\d)\.attns\.(\d+)\."
_OURS = r"stages.\1.blocks.\2.attn."
_WB = r"(weight|bias)"
RELEASE_RULES: list[Rule] = [
    (rf"patch_proj\.0\.{_WB}", r"patch_embed.conv.\1"),
    (rf"patch_proj\.1\.norm\.{_WB}", r"patch_embed.norm.\1"),
    (
        rf"stages\.(\d)\.layer_norms\.(\d{{1,4}})\.norm\.{_WB}",
        lambda m: f"stages.{m[1]}.blocks.{int(m[2]) // 2}.norm{int(m[2]) % 2 + 1}.{m[3]}",
    ),
    (rf"{_ATTN}proj_qkv\.{_WB}", rf"{_OURS}qkv.\3"),
    (rf"{_ATTN}proj_(q|k|v)\.{_WB}", rf"{_OURS}\3.\4"),
    (rf"{_ATTN}proj_out\.{_WB}", rf"{_OURS}proj.\3"),
    (rf"{_ATTN}conv_offset\.0\.{_WB}", rf"{_OURS}offset.conv.\3"),
    (rf"{_ATTN}conv_offset\.1\.norm\.{_WB}", rf"{_OURS}offset.norm.\3"),
    (rf"{_ATTN}conv_offset\.3\.weight", rf"{_OURS}offset.proj.weight"),
    (rf"{_ATTN}ref_point14\.{_WB}", rf"{_OURS}interest.conv.\3"),
    (rf"{_ATTN}(?:relative_position_bias_table|rpe_table)", rf"{_OURS}bias_table"),
    (rf"{_ATTN}(?:relative_position_index|attn_mask)", None),
    (
        rf"stages\.(\d)\.mlps\.(\d+)\.chunk\.linear([12])\.{_WB}",
        r"stages.\1.blocks.\2.mlp.fc\3.\4",
    ),
    (r"down_projs\.(\d)\.0\.weight", r"stages.\1.downsample.conv.weight"),
    (rf"down_projs\.(\d)\.1\.norm\.{_WB}", r"stages.\1.downsample.norm.\2"),
    (rf"cls_norm\.norm\.{_WB}", r"norm.\1"),
    (rf"cls_head\.{_WB}", r"head.\1"),
]
DET_RULES: list[Rule] = [
    (rf"{_ATTN}ref_gate\.{_WB}", rf"{_OURS}gate.conv.\3"),
    (rf"hst_head\.{_WB}", r"histogram.coordinates.\1"),
    (r"hist_feature\.bin_centers_conv\.bias", r"histogram.shifts"),
    (r"hist_feature\.bin_widths_conv\.weight", r"histogram.slopes"),
    # An alias, what the convolution had before its centres were set, and two constants.
    (r"hist_feature\.(widths|centers|bin_centers_conv\.weight|bin_widths_conv\.bias)", None),
    (rf"cls_head\.{_WB}", None),  # not used
    (rf"class_head\.{_WB}", r"head.\1"),
    *RELEASE_RULES,
]
_TIMM_BLOCK = r"layers\.(\d)\.blocks\.(\d+)\."
_OUR_BLOCK = r"stages.\1.blocks.\2."
TIMM_SWIN_RULES: list[Rule] = [
    (rf"patch_embed\.proj\.{_WB}", r"patch_embed.conv.\1"),
    (rf"patch_embed\.norm\.{_WB}", r"patch_embed.norm.\1"),
    (rf"{_TIMM_BLOCK}norm([12])\.{_WB}", rf"{_OUR_BLOCK}norm\3.\4"),
    (rf"{_TIMM_BLOCK}attn\.(qkv|proj)\.{_WB}", rf"{_OUR_BLOCK}attn.\3.\4"),
    (rf"{_TIMM_BLOCK}attn\.relative_position_bias_table", rf"{_OUR_BLOCK}attn.bias_table"),
    (rf"{_TIMM_BLOCK}attn\.relative_position_index|{_TIMM_BLOCK}attn_mask", None),
    (rf"{_TIMM_BLOCK}mlp\.fc([12])\.{_WB}", rf"{_OUR_BLOCK}mlp.fc\3.\4"),
    (
        r"layers\.([123])\.downsample\.reduction\.weight",
        lambda m: f"stages.{int(m[1]) - 1}.downsample.conv.weight",
    ),
    (rf"norm\.{_WB}", r"norm.\1"),
    (rf"head\.(?:fc\.)?{_WB}", r"head.\1"),
]
_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
PS_VIT_RULES: list[Rule] = [
    (r"stem\.0\.weight", "stem.conv.weight"),
    (rf"stem\.1\.{_NORM}", r"stem.norm.\1"),
    (r"stem\.([45])\.(.*)", lambda m: f"stem.blocks.{int(m[1]) - 4}.{m[2]}"),
    (r"ps_layers\.(\d+)\.transformer_layer\.(.*)", r"ps_layers.\1.\2"),
    (rf"ps_layers\.(\d+)\.offset_layer\.{_WB}", r"offset_layers.\1.\2"),
    (rf"ps_layers\.\d+\.position_layer\.{_WB}", None),  # pos_layer, shared by all layers
    (r"point_coord", None),
    (r"(cls_token|(?:pos_layer|trans_layers|norm|head)\..*)", r"\1"),
]

TANET_RULES: list[Rule] = [
    (r"res365_last\.(.+)", r"theme.scenes.\1"),
    (rf"hypernet\.last_out_w\.{_WB}", r"theme.target.hyper_weight.\1"),
    (rf"hypernet\.last_out_b\.{_WB}", r"theme.target.hyper_bias.\1"),
    (rf"tygertnet\.fc1\.{_WB}", r"theme.target.fc.\1"),
    (r"tygertnet\.bn1\.(.+)", r"theme.target.norm.\1"),
    (r"tygertnet\.relu1\.weight", r"theme.target.act.weight"),
    (r"tygertnet\.relu7\.weight", r"theme.target.column_act.weight"),
    (r"mobileNet\.base_model\.0\.(.+)", r"mobile.features.\1"),
    (rf"mobileNet\.head\.2\.{_WB}", r"mobile.head.\1"),
    (rf"head_rgb\.2\.{_WB}", r"colour.head.\1"),
    (rf"head\.2\.{_WB}", r"head.\1"),
]
# Of every family of ours, a name.
OURS = "patch_embed.conv.weight", "stem.conv.weight", "theme.target.fc.weight"


def misfit(source: str, name: str, value: Tensor, why: str) -> WeightsError:
    """The error of a weight whose shape the model has no use for."""
    return WeightsError(
        f"{source}: another architecture: {name!r} has shape {tuple(value.shape)}, {why}"
    )


def rename(state: State, rules: list[Rule], source: str) -> tuple[State, dict[str, str]]:
    """Translate foreign names: the weights under our names, and the foreign name of each.

    Raises:
        WeightsError: a name matches no rule, or two stand for the same weight.
    """
    weights: State = {}
    origin: dict[str, str] = {}
    for name, value in state.items():
        for pattern, ours in rules:
            match = re.fullmatch(pattern, name)
            if match is None:
                continue
            if ours is not None:
                ours = ours(match) if callable(ours) else match.expand(ours)
                if ours in weights:
                    both = f"{origin[ours]!r} and {name!r}"
                    raise WeightsError(f"{source}: {both} stand for the same weight")
                weights[ours] = value
                origin[ours] = name
            break
        else:
            raise WeightsError(
                f"{source}: {name!r} {tuple(value.shape)} has no place in this family of models; "
                "the file holds another architecture"
            )
    return weights, origin


def _join_det_heads(state: State, source: str) -> State:
    """DeT's heads, one a target, as one, and the slopes of its bins as a vector.

    Raises:
        WeightsError: a constant of the histogram is not 1, or the heads are not alike.
    """
    state = dict(state)
    for name in ("hist_feature.bin_centers_conv.weight", "hist_feature.bin_widths_conv.bias"):
        if name in state and not bool((state[name] == 1).all()):
            raise misfit(source, name, state[name], "and is not the constant 1")
    slopes = "hist_feature.bin_widths_conv.weight"
    if slopes in state:
        state[slopes] = state[slopes].flatten()
    for kind in ("weight", "bias"):
        name = f"class_head2.{kind}"
        first, second = state.get(f"class_head.{kind}"), state.pop(name, None)
        if first is None or second is None:
            continue
        if first.shape != second.shape or not first.ndim:
            raise misfit(source, name, second, f"and 'class_head.{kind}' has {tuple(first.shape)}")
        state[f"class_head.{kind}"] = torch.cat([first, second])
    return state


def _fold_patch_merging(state: State, source: str) -> State:
    """Swin's step down as ours: norm over four tokens then linear, as a 2 x 2 convolution.

    The norm's centring and weight go into the convolution; its division by the deviation is made
    up for by our norm after the convolution, and its bias is dropped.
    """
    state = dict(state)
    for name in [n for n in state if n.endswith("downsample.reduction.weight")]:
        norm = name.replace("reduction", "norm")
        weight, scale = state[name], state.pop(norm, torch.ones(()))
        state.pop(norm.replace("weight", "bias"), None)
        if weight.ndim != 2 or weight.shape[1] % 4 or scale.shape not in ((), weight.shape[1:]):
            raise misfit(source, name, weight, f"which {norm!r} {tuple(scale.shape)} does not fit")
        weight = weight * scale
        weight = weight - weight.mean(dim=1, keepdim=True)
        # timm concatenates the tokens (0, 0), (1, 0), (0, 1), (1, 1) of each 2 x 2 patch.
        state[name] = rearrange(weight, "out (x y c) -> out c y x", x=2, y=2)
    return state


def _split_qkv(weights: State, origin: dict[str, str], model: AestheticModel, source: str) -> None:
    """Give a joint projection to the q, k and v of a deformable block in its place.

    They have biases. Where the joint one has none, theirs are zero.
    """
    own, foreign_names = model.state_dict(), set(origin.values())
    for name in [n for n in weights if ".attn.qkv." in n and n not in own]:
        foreign, joint = origin.pop(name), weights.pop(name)
        if joint.ndim == 0 or len(joint) % 3:
            raise misfit(source, foreign, joint, "expected queries, keys and values in one")
        for letter, part in zip("qkv", joint.chunk(3), strict=True):
            ours = name.replace(".qkv.", f".{letter}.")
            weights[ours], origin[ours] = part, foreign
            bias = ours.replace("weight", "bias")
            if foreign.replace("weight", "bias") not in foreign_names:
                weights[bias], origin[bias] = part.new_zeros(len(part)), foreign


def _check_points(state: State, model: AestheticModel, source: str) -> None:
    """Refuse PS-ViT's weights of another number of points, which have the same shapes.

    So are those refused whose copies of the shared layer differ.
    """
    points, own = state.get("point_coord"), getattr(model, "points", None)
    if points is not None and own is not None and points.shape != (1, own**2, 2):
        raise misfit(
            source, "point_coord", points, f"the model has {own} x {own} points: set points"
        )
    for name, value in state.items():
        shared = re.sub(r"^ps_layers\.\d+\.position_layer\.", "pos_layer.", name)
        if shared in state and not torch.equal(state[shared], value):
            raise WeightsError(f"{source}: {name!r} and {shared!r} differ, and are to be one")


def convert(state: State, model: AestheticModel, source: str) -> tuple[str, State, dict[str, str]]:
    """Recognise the family of names and translate it: (format, weights, foreign name of each)."""
    if isinstance(model, TimmModel):
        try:
            return "eat" if is_ours(state) else "timm", *model.adapt(state)
        except Exception as error:  # timm expects names and shapes of its own
            reason = f"timm cannot convert it to {model.arch} ({type(error).__name__}: {error})"
            raise WeightsError(f"{source}: another architecture: {reason}") from error
    if "hst_head.weight" in state:
        return "released DeT", *rename(_join_det_heads(state, source), DET_RULES, source)
    if "patch_proj.0.weight" in state:
        return "DAT or released EAT", *rename(state, RELEASE_RULES, source)
    if "patch_embed.proj.weight" in state and any(n.startswith("layers.") for n in state):
        weights, origin = rename(_fold_patch_merging(state, source), TIMM_SWIN_RULES, source)
        _split_qkv(weights, origin, model, source)
        return "timm Swin", weights, origin
    if "tygertnet.fc1.weight" in state:
        return "released TANet", *rename(state, TANET_RULES, source)
    if "pos_layer.weight" in state and "stem.0.weight" in state:
        _check_points(state, model, source)
        weights, origin = rename(state, PS_VIT_RULES, source)
        _split_qkv(weights, origin, model, source)
        return "PS-ViT", weights, origin
    if any(name in state for name in (*OURS, next(iter(model.state_dict())))):
        return "eat", state, {name: name for name in state}
    raise WeightsError(
        f"{source}: none of the known families of names (eat, the releases, DAT, timm's Swin, "
        f"PS-ViT); its first names are {list(state)[:3]}"
    )
