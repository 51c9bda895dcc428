"""Weights: foreign names to ours, other sizes to ours, files that cannot be trusted to errors."""

import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from eat.models.backbone import EAT

State = dict[str, Tensor]
TRAINED_ON = "trained_on"  # a list of images that our checkpoints hold beside the weights


class WeightsError(ValueError):
    """Weights that cannot be read, are not safe to read, or do not fit the model."""


@dataclass
class LoadReport:
    """What became of each weight. Names are the model's; those left out, the source's."""

    source: str
    format: str
    loaded: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        def some(names: list[str]) -> str:
            shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
            return f"{len(names)}" + (f" ({shown})" if names else "")

        return (
            f"{self.source} ({self.format}): loaded {len(self.loaded)}, "
            f"resized {some(self.resized)}, left out {some(self.left_out)}, "
            f"missing {some(self.missing)}"
        )


def read_state(path: str | Path) -> State:
    """Read a safetensors or PyTorch file as a flat state dict, without running code from it.

    Raises:
        WeightsError: the file is absent, damaged, would run code, or holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise WeightsError(f"{path}: truncated or not safetensors ({error})") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
        if foreign:
            raise WeightsError(
                f"{path}: refused, because it holds more than tensors ({foreign[1]}) and reading "
                "that could run code; save its state dict alone"
            ) from error
        raise WeightsError(f"{path}: truncated or not a PyTorch file") from error
    except Exception as error:  # on junk the unpickler fails with whatever it trips over
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise WeightsError(f"{path}: truncated or not a PyTorch file ({reason})") from error
    return unwrap(content, str(path))


def unwrap(content: object, source: str) -> State:
    """The state dict inside the wrappings that training scripts put around it."""
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{source}: expected a state dict, found {type(content).__name__}")
    odd = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if odd:
        raise WeightsError(
            f"{source}: expected tensors, found {type(content[odd[0]]).__name__} under {odd[0]!r}"
        )
    return {name.removeprefix("module."): value for name, value in content.items()}


def _linear(weight: Tensor) -> Tensor:
    """A 1 x 1 convolution (out, in, 1, 1) as a linear layer (out, in)."""
    return weight.flatten(1) if weight.ndim == 4 else weight


def _same(weight: Tensor) -> Tensor:
    return weight


# One rule a line: pattern of a foreign name, our name (None: dropped), and what is done to it.
Rule = tuple[str, str | Callable[[re.Match[str]], str] | None, Callable[[Tensor], Tensor]]
_ATTN = r"stages\.(\d)\.attns\.(\d+)\."
_OURS = r"stages.\1.blocks.\2.attn."
_WB = r"(weight|bias)"
RELEASE_RULES: list[Rule] = [
    (rf"patch_proj\.0\.{_WB}", r"patch_embed.conv.\1", _same),
    (rf"patch_proj\.1\.norm\.{_WB}", r"patch_embed.norm.\1", _same),
    (
        rf"stages\.(\d)\.layer_norms\.(\d+)\.norm\.{_WB}",
        lambda m: f"stages.{m[1]}.blocks.{int(m[2]) // 2}.norm{int(m[2]) % 2 + 1}.{m[3]}",
        _same,
    ),
    (rf"{_ATTN}proj_qkv\.{_WB}", rf"{_OURS}qkv.\3", _same),
    (rf"{_ATTN}proj_(q|k|v)\.{_WB}", rf"{_OURS}\3.\4", _linear),
    (rf"{_ATTN}proj_out\.{_WB}", rf"{_OURS}proj.\3", _linear),
    (rf"{_ATTN}conv_offset\.0\.{_WB}", rf"{_OURS}offset.conv.\3", _same),
    (rf"{_ATTN}conv_offset\.1\.norm\.{_WB}", rf"{_OURS}offset.norm.\3", _same),
    (rf"{_ATTN}conv_offset\.3\.weight", rf"{_OURS}offset.proj.weight", _linear),
    (rf"{_ATTN}ref_point14\.{_WB}", rf"{_OURS}interest.conv.\3", _same),
    (rf"{_ATTN}(?:relative_position_bias_table|rpe_table)", rf"{_OURS}bias_table", _same),
    (rf"{_ATTN}(?:relative_position_index|attn_mask)", None, _same),
    (
        rf"stages\.(\d)\.mlps\.(\d+)\.chunk\.linear([12])\.{_WB}",
        r"stages.\1.blocks.\2.mlp.fc\3.\4",
        _same,
    ),
    (r"down_projs\.(\d)\.0\.weight", r"stages.\1.downsample.conv.weight", _same),
    (rf"down_projs\.(\d)\.1\.norm\.{_WB}", r"stages.\1.downsample.norm.\2", _same),
    (rf"cls_norm\.norm\.{_WB}", r"norm.\1", _same),
    (rf"cls_head\.{_WB}", r"head.\1", _same),
]
_TIMM_BLOCK = r"layers\.(\d)\.blocks\.(\d+)\."
_OUR_BLOCK = r"stages.\1.blocks.\2."
TIMM_SWIN_RULES: list[Rule] = [
    (rf"patch_embed\.proj\.{_WB}", r"patch_embed.conv.\1", _same),
    (rf"patch_embed\.norm\.{_WB}", r"patch_embed.norm.\1", _same),
    (rf"{_TIMM_BLOCK}norm([12])\.{_WB}", rf"{_OUR_BLOCK}norm\3.\4", _same),
    (rf"{_TIMM_BLOCK}attn\.(qkv|proj)\.{_WB}", rf"{_OUR_BLOCK}attn.\3.\4", _same),
    (
        rf"{_TIMM_BLOCK}attn\.relative_position_bias_table",
        rf"{_OUR_BLOCK}attn.bias_table",
        _same,
    ),
    (rf"{_TIMM_BLOCK}attn\.relative_position_index|{_TIMM_BLOCK}attn_mask", None, _same),
    (rf"{_TIMM_BLOCK}mlp\.fc([12])\.{_WB}", rf"{_OUR_BLOCK}mlp.fc\3.\4", _same),
    (
        r"layers\.([123])\.downsample\.reduction\.weight",
        lambda m: f"stages.{int(m[1]) - 1}.downsample.conv.weight",
        _same,
    ),
    (rf"norm\.{_WB}", r"norm.\1", _same),
    (rf"head\.(?:fc\.)?{_WB}", r"head.\1", _same),
]

# What fresh weights may stand in for: the head, and what one kind of attention has and another
# lacks. The release's norm after a step down has no counterpart in Swin.
OPTIONAL = re.compile(r"head\.|.*\.attn\.(interest|offset)\.|.*\.attn\.bias_table$")
OPTIONAL_FROM_SWIN = re.compile(OPTIONAL.pattern + r"|.*\.downsample\.norm\.")


def rename(state: State, rules: list[Rule], source: str) -> tuple[State, dict[str, str]]:
    """Translate foreign names.

    Returns:
        The weights under our names, and for each of them its foreign name.

    Raises:
        WeightsError: a name matches no rule.
    """
    weights: State = {}
    origin: dict[str, str] = {}
    for name, value in state.items():
        for pattern, ours, change in rules:
            match = re.fullmatch(pattern, name)
            if match is None:
                continue
            if ours is not None:
                ours = ours(match) if callable(ours) else match.expand(ours)
                weights[ours] = change(value)
                origin[ours] = name
            break
        else:
            raise WeightsError(
                f"{source}: {name!r} {tuple(value.shape)} has no place in this family of models; "
                "the file holds another architecture"
            )
    return weights, origin


def _fold_patch_merging(state: State) -> State:
    """Swin's step down as ours: norm over four tokens then linear, as a 2 x 2 convolution.

    The norm's centring and weight go into the convolution; its division by the deviation is made
    up for by our norm after the convolution, and its bias is dropped.
    """
    state = dict(state)
    for name in [n for n in state if n.endswith("downsample.reduction.weight")]:
        norm = name.replace("reduction", "norm")
        weight, scale = state[name], state.pop(norm, torch.ones(()))
        state.pop(norm.replace("weight", "bias"), None)
        weight = weight * scale
        weight = weight - weight.mean(dim=1, keepdim=True)
        out, channels = weight.shape[0], weight.shape[1] // 4
        # timm concatenates the tokens (0, 0), (1, 0), (0, 1), (1, 1) of each 2 x 2 patch.
        state[name] = weight.view(out, 2, 2, channels).permute(0, 3, 2, 1)
    return state


def _split_qkv(weights: State, origin: dict[str, str], model: EAT) -> None:
    """Give Swin's joint projection to the q, k and v of a deformable block in its place."""
    own = model.state_dict()
    for name in [n for n in weights if ".attn.qkv." in n and n not in own]:
        foreign = origin.pop(name)
        for letter, part in zip("qkv", weights.pop(name).chunk(3), strict=True):
            ours = name.replace(".qkv.", f".{letter}.")
            weights[ours], origin[ours] = part, foreign


def convert(state: State, model: EAT, source: str) -> tuple[str, State, dict[str, str]]:
    """Recognise the family of names and translate it: (format, weights, foreign name of each)."""
    if "patch_proj.0.weight" in state:
        return "DAT or released EAT", *rename(state, RELEASE_RULES, source)
    if "patch_embed.proj.weight" in state and any(n.startswith("layers.") for n in state):
        weights, origin = rename(_fold_patch_merging(state), TIMM_SWIN_RULES, source)
        _split_qkv(weights, origin, model)
        return "timm Swin", weights, origin
    if "patch_embed.conv.weight" in state:
        weights = {name: value for name, value in state.items() if name != TRAINED_ON}
        return "eat", weights, {name: name for name in weights}
    raise WeightsError(
        f"{source}: none of the known families of names (eat, the release, DAT, timm's Swin); "
        f"its first names are {list(state)[:3]}"
    )


def resize_bias_table(table: Tensor, shape: torch.Size) -> Tensor | None:
    """Resize either kind of bias table bicubically; None if it is not a matter of resolution."""
    if table.ndim == 3 == len(shape) and table.shape[0] == shape[0]:  # deformable: (heads, h, w)
        return _bicubic(table, shape[1:])
    if table.ndim == 2 == len(shape) and table.shape[1] == shape[1]:  # window: (side^2, heads)
        old, new = round(table.shape[0] ** 0.5), round(shape[0] ** 0.5)
        if old**2 == table.shape[0]:
            resized = _bicubic(table.t().reshape(-1, old, old), (new, new))
            return resized.flatten(1).t()
    return None


def _bicubic(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    resized = F.interpolate(maps[None].float(), size=size, mode="bicubic", align_corners=False)
    return resized[0].to(maps.dtype)


def load_weights(
    model: EAT, weights: str | Path | Mapping[str, Tensor], *, verbose: bool = True
) -> LoadReport:
    """Load weights of ours, the authors' release, DAT or timm's Swin into a model.

    Bias tables of another resolution are resized bicubically. A head of another width is left out,
    and so are offset and interest networks and bias tables that the model's profile shapes
    otherwise. Nothing is changed if anything else does not fit.

    Args:
        model: the model to fill.
        weights: a ``.safetensors`` file, a PyTorch file (read with ``weights_only=True``), or a
            state dict.
        verbose: print the report.

    Returns:
        What was loaded, resized, left out and missing.

    Raises:
        WeightsError: the file is truncated or would run code, or it holds another architecture.
    """
    from_file = isinstance(weights, str | Path)
    source = str(weights) if from_file else "state dict"
    state = read_state(weights) if from_file else unwrap(weights, source)
    kind, converted, origin = convert(state, model, source)
    report = LoadReport(source, kind)
    optional = OPTIONAL_FROM_SWIN if kind == "timm Swin" else OPTIONAL
    own = model.state_dict()
    fitted: State = {}
    for name, value in converted.items():
        want = own[name].shape if name in own else None
        if value.shape == want:
            fitted[name] = value
            report.loaded.append(name)
        elif (
            want
            and name.endswith("bias_table")
            and ((resized := resize_bias_table(value, want)) is not None)
        ):
            fitted[name] = resized
            report.resized.append(name)
        elif optional.match(name):
            report.left_out.append(origin[name])
        else:
            expected = f"expected {tuple(want)}" if want else "which the model does not have"
            raise WeightsError(
                f"{source}: another architecture: {origin[name]!r} has shape "
                f"{tuple(value.shape)}, {expected}"
            )
    report.missing = [name for name in own if name not in fitted]
    needed = [name for name in report.missing if not optional.match(name)]
    if needed:
        raise WeightsError(
            f"{source}: another architecture, or part of one: {len(needed)} weights are missing, "
            f"the first is {needed[0]!r}"
        )
    model.load_state_dict(fitted, strict=False)
    if verbose:
        print(report)
    return report
