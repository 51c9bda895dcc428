"""Enhanced attention in the transformers of timm and in our own, from the weights that are there.

The paper puts its module into other transformers (Table 8). Here it replaces attention modules of a
model that exists, and starts from their queries, keys, values and output projections.
"""

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy, deepcopy
from math import ceil, log
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from eat.config.run import EnhanceConfig
from eat.models.attention import attend
from eat.models.base import Record, init_linear
from eat.models.deformable import (
    DeformableAttention,
    position_bias,
    sample_features,
    token_grid,
)
from eat.models.kernels import Linear
from eat.models.noise import Subset
from eat.system.schema import check_range, typed

# Attention modules that can be replaced, and the method of their block that takes a map. A block
# without one hands over the map or the tokens themselves.
KINDS = {
    "eat.models.attention.WindowAttention": None,
    "timm.layers.attention.Attention": None,
    "timm.layers.attention.AttentionRope": None,
    "timm.models.eva.EvaAttention": None,
    "timm.models.swin_transformer.WindowAttention": "_attn",
    "timm.models.swin_transformer_v2.WindowAttention": "_attn",
    "timm.models.maxxvit.AttentionCl": "_partition_attn",
    "timm.models.maxxvit.Attention2d": "_partition_attn",
}
MAX_LOGIT_SCALE = log(100)  # of cosine attention, as in Swin V2


class MapSize:
    """Rows and columns of a plain transformer's map of tokens; a hook of its patch embedding.

    Copies of a model have their own, which a closure would not be.
    """

    def __init__(self, rows: int, cols: int) -> None:
        self.size = rows, cols

    def __call__(self, embedding: Any, images: tuple[Tensor, ...]) -> None:
        self.size = embedding.dynamic_feat_size(images[0].shape[-2:])


class Place(NamedTuple):
    """An attention module of a model.

    Attributes:
        name: in the model.
        block: the module whose ``attn`` it is.
        feature_size: (H, W) of the map at the usual image size.
    """

    name: str
    block: nn.Module
    feature_size: tuple[int, int]

    @property
    def attn(self) -> Any:
        return self.block.attn


def projections(attn: Any) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Weights (C', C) and biases (C') of an attention module's queries, keys, values and output."""
    names = ("q", "k", "v", "proj")
    proj = attn.proj.weight.flatten(1), attn.proj.bias  # flattened, as of a 1 x 1 convolution
    if attn.qkv is None:
        layers = (attn.q_proj, attn.k_proj, attn.v_proj)
        return dict(zip(names, (*((one.weight, one.bias) for one in layers), proj), strict=True))
    order = "(h three d) ... -> three (h d) ..."  # of MaxViT
    if not getattr(attn, "head_first", False):
        order = "(three h d) ... -> three (h d) ..."
    sizes = {"three": 3, "h": attn.num_heads}
    weights = rearrange(attn.qkv.weight.flatten(1), order, **sizes)
    biases: Any = (None, None, None)
    if attn.qkv.bias is not None:
        biases = rearrange(attn.qkv.bias, order, **sizes)
    elif getattr(attn, "q_bias", None) is not None:  # of EVA and Swin V2, whose keys have none
        biases = attn.q_bias, None, attn.v_bias
    return dict(zip(names, (*zip(weights, biases, strict=True), proj), strict=True))


def linear_of(weight: Tensor, bias: Tensor | None) -> Linear:
    """A layer with copies of a weight and a bias."""
    layer = Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer


def rotary_at(rope: Tensor, positions: Tensor, height: int, width: int) -> Tensor:
    """Rotary position embedding between tokens.

    Its angles grow linearly along rows and columns. So the embedding of the nearest token is
    rotated on by the rest of the way, which gives a token's own at its centre.

    Args:
        rope: ([heads,] H * W, 2 d), sines and cosines of each token.
        positions: (B, heads, N, 2) as (y, x).
        height: H.
        width: W.

    Returns:
        (B, heads, N, 2 d).
    """
    sin, cos = rope.to(positions.dtype).unflatten(-2, (height, width)).chunk(2, dim=-1)

    def angle(row: int, col: int) -> Tensor:
        """From the first token to another: (..., 1, d)."""
        (s, c), (s0, c0) = (
            (sin[..., y, x, None, :], cos[..., y, x, None, :]) for y, x in ((row, col), (0, 0))
        )
        return torch.atan2(s * c0 - c * s0, c * c0 + s * s0)

    y, x = (positions[..., 0] + 1) / 2 * (height - 1), (positions[..., 1] + 1) / 2 * (width - 1)
    row, col = y.detach().round().clamp(0, height - 1), x.detach().round().clamp(0, width - 1)
    down, right = angle(min(1, height - 1), 0), angle(0, min(1, width - 1))
    turn = (y - row)[..., None] * down + (x - col)[..., None] * right
    index = (row * width + col).nan_to_num().long()[..., None].expand(turn.shape)
    sin, cos = (
        table.flatten(-3, -2).expand(*index.shape[:2], -1, -1).gather(2, index)
        for table in (sin, cos)
    )
    return torch.cat(
        (sin * turn.cos() + cos * turn.sin(), cos * turn.cos() - sin * turn.sin()), dim=-1
    )


def most_groups(heads: int) -> int:
    """Offset groups: a quarter of the heads at most, as in EAT, and a divisor of them."""
    return max((n for n in range(1, heads // 4 + 1) if heads % n == 0), default=1)


class EnhancedAttention(DeformableAttention):
    """Enhanced attention that starts from the weights of another attention module.

    Class and register tokens, which are on no map, ask and are asked as before, beside what is
    sampled.

    Args:
        place: the module that is replaced.
        options: settings; those that choose modules are not looked at.
        tokens: where the map among tokens gets its size from; None for a module that takes maps.
        prefix: class and register tokens, before those of the map.

    Raises:
        ValueError: the module computes something else, such as dropout.
    """

    def __init__(
        self, place: Place, options: EnhanceConfig, tokens: MapSize | None, prefix: int
    ) -> None:
        old, side = place.attn, min(place.feature_size)
        weights = projections(old)
        dim = weights["q"][0].shape[1]
        if any(weight.shape != (dim, dim) for weight, _ in weights.values()):
            shapes = {name: tuple(weight.shape) for name, (weight, _) in weights.items()}
            raise ValueError(f"{place.name} has projections {shapes}: expected {dim} x {dim}")
        dropout = [n for n in ("attn_drop", "proj_drop") if getattr(getattr(old, n, None), "p", 0)]
        if dropout or getattr(old, "gate", None) is not None:
            found = " and ".join(dropout) or "a gate of its own"
            raise ValueError(f"{place.name} has {found}: expected attention without")
        kernel = side - min(options.points or side, side) + 1
        super().__init__(
            dim,
            old.num_heads,
            num_groups=most_groups(old.num_heads),
            feature_size=place.feature_size,
            interest=options.interest,
            interest_kernel=kernel,
            anchor_points=options.anchor_points,
            offsets=options.offsets,
            offset_kernel=kernel,
            pad_offsets=False,
            range_factor=options.range_factor,
            eta=options.eta,
            rotate=options.rotate,
            bound_positions=options.bound_positions,
            grid=token_grid,
        )
        self.apply(init_linear)
        nn.init.zeros_(self.bias_table)
        if not options.bias:
            self.register_parameter("bias_table", None)
        self.q, self.k, self.v, self.proj = (linear_of(*pair) for pair in weights.values())
        self.q_norm, self.k_norm, self.norm = (
            deepcopy(getattr(old, name, nn.Identity())) for name in ("q_norm", "k_norm", "norm")
        )
        self.logit_scale = deepcopy(getattr(old, "logit_scale", None))
        self.rotate_half = getattr(old, "rotate_half", False)
        self.channels_first = isinstance(old.proj, nn.Conv2d)
        self.tokens, self.prefix = tokens, prefix
        self.kept_record: dict[str, Any] | None = None
        self.original: nn.Module | None = None
        self.method = KINDS[kind_of(old)] or "__call__"
        if options.gate:
            self.original = original_branch(place)
            self.output_gate = nn.Parameter(torch.zeros(dim))
        if not self.q.weight.is_meta:
            self.to(self.q.weight)
        self.train(old.training)

    def forward(
        self,
        x: Tensor,
        record: dict[str, Any] | None = None,
        subset: Subset | None = None,
        **others: Any,
    ) -> Tensor:
        """A map, or tokens, as the original takes them -> the same shape.

        ``record`` and ``subset`` are those of ``DeformableAttention.forward``; timm's blocks pass
        none, and ``recording`` sets the record there. Attention is that of the map's tokens to what
        is sampled: that to class and register tokens is left out. ``others`` are what timm's blocks
        pass, of which ``rope`` is carried on to the positions.
        """
        if others.get("attn_mask") is not None or others.get("is_causal"):
            raise ValueError("enhanced attention takes no mask")
        record = self.kept_record if record is None else record
        if self.tokens is not None:
            y = self.among_tokens(x, self.tokens.size, others.get("rope"), record, subset)
        else:
            maps = x.permute(0, 2, 3, 1) if self.channels_first else x
            height, width = maps.shape[1:3]
            y = self.among_tokens(maps.flatten(1, 2), (height, width), None, record, subset)
            y = y.view_as(maps)
        if self.original is not None:
            y = y * self.output_gate
        if self.channels_first:
            y = y.permute(0, 3, 1, 2)
        return y if self.original is None else getattr(self.original, self.method)(x, **others) + y

    def among_tokens(
        self,
        tokens: Tensor,
        size: tuple[int, int],
        rope: Tensor | None,
        record: dict[str, Any] | None,
        subset: Subset | None,
    ) -> Tensor:
        """Tokens (B, prefix + H * W, C), H and W being ``size``, -> the same."""
        height, width = size
        if tokens.shape[1] != self.prefix + height * width:
            raise ValueError(
                f"{tokens.shape[1]} tokens: expected {self.prefix} and a map of {height} x {width}"
            )
        x = tokens[:, self.prefix :].unflatten(1, (height, width))
        q = self.q(tokens)
        on_map = q[:, self.prefix :].unflatten(1, (height, width))
        positions = self.locate(x, on_map, record, subset)
        sampled = sample_features(x, positions)
        if self.prefix:
            sampled = torch.cat((tokens[:, : self.prefix], sampled), dim=1)
        q, k, v = (
            rearrange(part, "b n (h d) -> b h n d", h=self.num_heads)
            for part in (q, self.k(sampled), self.v(sampled))
        )
        q, k = self.q_norm(q), self.k_norm(k)
        if self.logit_scale is not None:
            scale = self.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp() * q.shape[-1] ** 0.5
            q, k = F.normalize(q, dim=-1) * scale, F.normalize(k, dim=-1)
        if rope is not None:
            own = positions.repeat_interleave(self.num_heads // self.num_groups, dim=1)
            q = self.rotated(q, rope)
            k = self.rotated(k, rotary_at(rope, own, height, width))
        bias = None
        if self.bias_table is not None:
            bias = position_bias(self.bias_table, positions, height, width, self.grid)
            bias = F.pad(bias, (self.prefix, 0, self.prefix, 0))
        y = attend(q, k, v, bias, record)
        if record is not None:
            record["attention"] = record["attention"][:, :, self.prefix :, self.prefix :]
        return self.proj(self.norm(rearrange(y, "b h n d -> b n (h d)")))

    def rotated(self, x: Tensor, rope: Tensor) -> Tensor:
        """Queries or keys (B, heads, prefix + N, d) with a rotary embedding of the last N."""
        from timm.layers import apply_rot_embed_cat

        fixed, x = x.tensor_split((self.prefix,), dim=2)
        return torch.cat((fixed, apply_rot_embed_cat(x, rope, half=self.rotate_half)), dim=2)


def original_branch(place: Place) -> nn.Module:
    """The original attention, with what its block does around it: windows, shifts, masks.

    For a block with a method of its own, that is the block with nothing but its attention.
    """
    if KINDS[kind_of(place.attn)] is None:
        return place.attn
    shell = copy(place.block)
    shell._modules = {"attn": place.attn}
    shell._buffers = dict(place.block._buffers)
    return shell


def kind_of(module: object) -> str:
    """The full name of a module's class."""
    return f"{type(module).__module__}.{type(module).__name__}"


def attention_blocks(name: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules within one that have attention, in their order, by their names in the model."""
    return [
        (inner, block)
        for inner, block in module.named_modules(prefix=name)
        if isinstance(getattr(block, "attn", None), nn.Module)
    ]


def places_in_blocks(model: Any, options: EnhanceConfig) -> list[Place]:
    """What options choose in a plain transformer."""
    if options.stages != EnhanceConfig().stages:
        raise ValueError("stages is for transformers with stages: choose blocks of this one")
    depth = len(model.blocks)
    chosen = options.blocks
    if chosen is None:
        chosen = list(range(depth // 2, depth))[options.every - 1 :: options.every]
    check_range("blocks", chosen, 0, depth - 1)
    return [
        Place(name, block, model.patch_embed.grid_size)
        for i in chosen
        for name, block in attention_blocks(f"blocks.{i}", model.blocks[i])
    ]


def places_in_stages(model: Any, options: EnhanceConfig) -> list[Place]:
    """What options choose in a transformer with stages."""
    if options.blocks is not None:
        raise ValueError("blocks is for plain transformers: choose stages of this one")
    layers = "layers" if hasattr(model, "layers") else "stages"
    stages = getattr(model, layers, ())
    embedding = getattr(model, "patch_embed", None)
    sides = getattr(model, "img_size", None) or getattr(embedding, "img_size", None)
    if not stages or sides is None:
        raise ValueError(
            f"{type(model).__name__} has neither blocks nor stages of a transformer that enhance "
            "knows"
        )
    check_range("stages", options.stages, 0, len(stages) - 1)
    height, width = sides
    steps = {info["module"]: info["reduction"] for info in getattr(model, "feature_info", ())}
    found = []
    for s in options.stages:
        step = steps.get(f"{layers}.{s}", 4 * 2**s)  # ours, which do not say, start with 4
        size = ceil(height / step), ceil(width / step)
        blocks = attention_blocks(f"{layers}.{s}", stages[s])
        found += [
            Place(name, block, size) for name, block in blocks[options.every - 1 :: options.every]
        ]
    return found


def enhance(model: nn.Module, **settings: Any) -> dict[str, nn.Module]:
    """Replace attention modules of a transformer by enhanced attention (section 4.1), in place.

    It starts from the queries, keys, values and output projections of what it replaces; cosine
    attention, normalised queries and keys, and rotary position embedding stay. Position biases of
    windows do not. Swin, Swin V2, MaxViT and our own have stages. In a plain transformer of timm
    (ViT, DeiT, EVA, DINOv2 and v3, SigLIP) patch tokens are the map; class and register tokens stay
    keys beside what is sampled.

    Args:
        model: of timm, or of ours.
        **settings: those of ``eat.config.run.EnhanceConfig``, such as ``stages=(2, 3)``,
            ``every=2``, ``blocks=range(6, 12)``, ``gate=True``.

    Returns:
        What was replaced, by its name in the model.

    Raises:
        ValueError: a setting is unknown, ill-typed or out of range, or chooses no attention module
            or one of a kind that cannot be replaced.
    """
    settings = {n: list(v) if isinstance(v, range) else v for n, v in settings.items()}
    options: EnhanceConfig = typed(EnhanceConfig, settings, "enhance")
    check_range("every", options.every, 1, 256)
    check_range("points", options.points, 1, 64)
    check_range("range_factor", options.range_factor, 0, 1e3)
    for name, chosen in (("stages", options.stages), ("blocks", options.blocks or [])):
        if len({*chosen}) < len(chosen):
            raise ValueError(f"{name} is {reprlib.repr(chosen)}: expected each once")
    if any(isinstance(module, EnhancedAttention) for module in model.modules()):
        raise ValueError("the model is enhanced already: enhance the original once")
    inner: Any = getattr(model, "net", model)
    tokens, prefix = None, 0
    grid = getattr(getattr(inner, "patch_embed", None), "grid_size", None)
    if hasattr(inner, "blocks") and grid is not None:
        places = places_in_blocks(inner, options)
        tokens, prefix = MapSize(*grid), getattr(inner, "num_prefix_tokens", 0)
    else:
        places = places_in_stages(inner, options)
    if not places:
        raise ValueError(f"{type(inner).__name__} has no attention module that the settings choose")
    for place in places:
        if kind_of(place.attn) not in KINDS:
            raise ValueError(
                f"{place.name}.attn is a {kind_of(place.attn)}, which enhance does not know: "
                f"expected one of {', '.join(KINDS)}"
            )
        method = KINDS[kind_of(place.attn)]
        if method is not None and not hasattr(place.block, method):
            raise ValueError(
                f"{place.name} is a {kind_of(place.block)}, which enhance does not know"
            )
    made = [EnhancedAttention(place, options, tokens, prefix) for place in places]
    replaced = {f"{'' if inner is model else 'net.'}{p.name}.attn": p.attn for p in places}
    for place, attn in zip(places, made, strict=True):
        method = KINDS[kind_of(place.attn)]
        place.block.attn = attn
        if method is not None:  # on the block itself, where it wins over that of its class
            vars(place.block)[method] = attn
    if tokens is not None:
        inner.patch_embed.register_forward_pre_hook(tokens)
    return replaced


@contextmanager
def recording(model: nn.Module, record: Record) -> Iterator[None]:
    """Let enhanced attention of timm's blocks fill a record, by names of the blocks, meanwhile."""
    attns: list[Any] = [model.get_submodule(f"{name}.attn") for name in record]
    for attn, kept in zip(attns, record.values(), strict=True):
        attn.kept_record = kept
    try:
        yield
    finally:
        for attn in attns:
            attn.kept_record = None
