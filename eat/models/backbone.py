"""The backbone: four stages of blocks, each block one of four attention kinds (spec: Figure 4)."""

import math
import reprlib
from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from eat.models.attention import TokenAttention, WindowAttention
from eat.models.base import AestheticModel, Record, check_pixels, init_linear, open_record
from eat.models.deformable import DeformableAttention
from eat.models.kernels import Linear
from eat.models.limits import check_settings
from eat.models.noise import DropPath, Subset

BLOCK_LETTERS = {
    "L": "window attention",
    "S": "shifted-window attention",
    "D": "deformable attention on a uniform grid (DAT)",
    "E": "enhanced attention on interest points (EAT)",
}


# What torch.fx takes as one step of its graph, beside the modules that timm_entries names to timm.
torch.fx.wrap("check_pixels")
torch.fx.wrap("open_record")


class PatchConv(nn.Module):
    """Non-overlapping convolution, then LayerNorm over channels.

    Embeds patches and halves maps between stages. A map that the patch does not divide is
    zero-padded at the bottom and right.
    """

    def __init__(self, in_dim: int, dim: int, patch: int, *, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_dim, dim, patch, stride=patch, bias=bias)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, H / patch, W / patch, dim), sides rounded up."""
        patch = self.conv.stride[0]
        rows, cols = -x.shape[2] % patch, -x.shape[3] % patch
        if rows or cols:
            x = F.pad(x, (0, cols, 0, rows))
        return self.norm(self.conv(x).permute(0, 2, 3, 1))


class Block(nn.Module):
    """Pre-norm block: attention, then MLP, each with a residual connection and drop path."""

    def __init__(
        self,
        dim: int,
        attn: WindowAttention | DeformableAttention | TokenAttention,
        *,
        mlp_ratio: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim)
        hidden = int(dim * mlp_ratio)
        layers = {"fc1": Linear(dim, hidden), "act": nn.GELU(), "fc2": Linear(hidden, dim)}
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, record: dict[str, Tensor] | None = None) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C); ``record`` as in the attention's forward."""

        def attention(x: Tensor, subset: Subset | None) -> Tensor:
            return self.attn(self.norm1(x), record, subset)

        def mlp(x: Tensor, subset: Subset | None) -> Tensor:
            return self.mlp(self.norm2(x))

        needs_all = self.attn.mixes_images or record is not None  # a record is of all images
        # drop_path(f, x) is drop path of f(x), with f computed only for the images that keep it.
        x = x + self.drop_path(attention, x, needs_all=needs_all)
        return x + self.drop_path(mlp, x)


def run_block(
    block: nn.Module, x: Tensor, record: dict[str, Tensor] | None, *, recompute: bool
) -> Tensor:
    """A block's output; with ``recompute`` it is computed again in the backward pass."""
    # A block that records keeps its activations: its record must not be filled twice.
    if recompute and record is None:
        # The state of the random generators is kept, so that drop path and rotation are drawn
        # again as they were.
        return checkpoint(block, x, use_reentrant=False)
    return block(x, record)


class Stage(nn.Module):
    """Blocks of one resolution, then the step down to the next (absent in the last stage)."""

    def __init__(self, blocks: Sequence[Block], downsample: PatchConv | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample
        self.grad_checkpointing = False

    def attend(self, x: Tensor, records: Sequence[dict[str, Tensor] | None]) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C) by the blocks."""
        for block, record in zip(self.blocks, records, strict=True):
            x = run_block(block, x, record, recompute=self.grad_checkpointing and self.training)
        return x

    def step_down(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H / 2, W / 2, C'); the last stage leaves it as it is."""
        return x if self.downsample is None else self.downsample(x.permute(0, 3, 1, 2))

    def forward(self, x: Tensor, records: Sequence[dict[str, Tensor] | None]) -> Tensor:
        """(B, H, W, C) -> (B, H / 2, W / 2, C'), or (B, H, W, C) in the last stage."""
        return self.step_down(self.attend(x, records))


class EAT(AestheticModel):
    """Swin-like backbone whose later stages attend to interest points; with a rating head.

    The defaults are the paper's EAT-Base. Named settings live in ``eat.models.variants``.

    Args:
        num_outputs: 10 for a distribution over the scores 1..10 (AVA), 1 for a score.
        img_size: side in pixels, or (height, width), of the usual input. Other sizes work too; this
            one sets the size of the deformable bias tables, and its masks are kept ready.
        stages: four strings of block letters, see ``BLOCK_LETTERS``.
        dims: channels of each stage.
        heads: attention heads of each stage.
        groups: offset groups of each stage, for the letters D and E; None takes a quarter of the
            heads, at least one.
        window_size: side of the attention windows in tokens.
        shift: cyclic shift of letter S in tokens; None takes window_size // 2 (Swin).
        interest_kernels: k_in of each stage (Eq. 4).
        offset_kernels: k_of of letter E in each stage; None takes ``interest_kernels``, as the
            paper's k_of = k_in (Eq. 5).
        grid_offset_kernels: odd kernel of letter D's offsets in each stage.
        pad_offsets: zero-pad letter E's offset convolution by k_of // 2.
        range_factor: bound of letter E's offsets in point spacings; None for [-1, 1].
        grid_range_factor: the same for letter D.
        average_points: average interest points over the batch (released profile).
        anchor_points: interest points stay near a uniform grid's, P = grid + tanh / 2, instead of
            Eq. 4's P = tanh, which training tends to draw onto one spot.
        gate_points: a gate of each point leaves its position or moves it to the centre (DeT).
        interest: take interest points; False puts a uniform grid of as many in their place
            (Table 5).
        offsets: move the points by offsets (Table 5).
        eta: quadrant weight of Eq. 7; 1 for none.
        rotate: rotate offsets at random while training (Eqs. 8, 9).
        bound_positions: tanh over point plus offset (Eq. 10); a plain grid stays as it is.
        mlp_ratio: hidden channels of the MLP over its input's.
        drop_path_rate: drop path of the last block; grows linearly from 0.
        softmax: end in a softmax over outputs; None does so if there are several.

    Raises:
        ValueError: a setting is out of range or does not fit another, or a letter is unknown.
    """

    poolings: tuple[str, ...] = ("avg", "")

    def __init__(
        self,
        *,
        num_outputs: int = 10,
        img_size: int | tuple[int, int] = 224,
        stages: Sequence[str] = ("LS", "LS", "LE" * 9, "LE"),
        dims: Sequence[int] = (128, 256, 512, 1024),
        heads: Sequence[int] = (4, 8, 16, 32),
        groups: Sequence[int] | None = None,
        window_size: int = 7,
        shift: int | None = None,
        interest_kernels: Sequence[int] = (50, 22, 8, 1),
        offset_kernels: Sequence[int] | None = None,
        grid_offset_kernels: Sequence[int] = (9, 7, 5, 3),
        pad_offsets: bool = False,
        range_factor: float | None = None,
        grid_range_factor: float | None = 2.0,
        average_points: bool = False,
        anchor_points: bool = False,
        gate_points: bool = False,
        interest: bool = True,
        offsets: bool = True,
        eta: float = 0.25,
        rotate: bool = True,
        bound_positions: bool = True,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.5,
        softmax: bool | None = None,
    ) -> None:
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.img_size = (height, width)
        groups = groups or [max(1, count // 4) for count in heads]
        offset_kernels = offset_kernels or interest_kernels
        check_settings(
            {
                "num_outputs": num_outputs,
                "img_size": self.img_size,
                "stages": stages,
                "dims": dims,
                "heads": heads,
                "groups": groups,
                "window_size": window_size,
                "interest_kernels": interest_kernels,
                "offset_kernels": offset_kernels,
                "grid_offset_kernels": grid_offset_kernels,
                "range_factor": range_factor,
                "grid_range_factor": grid_range_factor,
                "mlp_ratio": mlp_ratio,
                "drop_path_rate": drop_path_rate,
            }
        )

        def attention(
            letter: str, s: int, size: tuple[int, int]
        ) -> WindowAttention | DeformableAttention:
            if letter in "LS":
                shifted = window_size // 2 if shift is None else shift
                by = shifted if letter == "S" else 0
                return WindowAttention(
                    dims[s], heads[s], feature_size=size, window_size=window_size, shift=by
                )
            if letter == "D":
                return DeformableAttention(
                    dims[s],
                    heads[s],
                    num_groups=groups[s],
                    feature_size=size,
                    interest=False,
                    offset_kernel=grid_offset_kernels[s],
                    pad_offsets=True,
                    range_factor=grid_range_factor,
                )
            return DeformableAttention(
                dims[s],
                heads[s],
                num_groups=groups[s],
                feature_size=size,
                interest=interest,
                interest_kernel=interest_kernels[s],
                average_points=average_points,
                anchor_points=anchor_points,
                gate_points=gate_points,
                offsets=offsets,
                offset_kernel=offset_kernels[s],
                pad_offsets=pad_offsets,
                range_factor=range_factor,
                eta=eta,
                rotate=rotate,
                bound_positions=bound_positions,
            )

        unknown = sorted(set("".join(stages)) - set(BLOCK_LETTERS))
        if unknown or not all(stages):
            raise ValueError(
                f"stages {reprlib.repr(stages)}: each needs at least one letter, and "
                f"{unknown[:4] or 'none'} are unknown; letters: {BLOCK_LETTERS}"
            )
        depth = sum(map(len, stages))
        drop_paths = iter([drop_path_rate * i / max(depth - 1, 1) for i in range(depth)])
        self.patch_embed = PatchConv(3, dims[0], 4, bias=True)
        self.stages = nn.ModuleList()
        size = -(-height // 4), -(-width // 4)  # rounded up, as PatchConv pads
        for s, letters in enumerate(stages):
            blocks = [
                Block(
                    dims[s],
                    attention(letter, s, size),
                    mlp_ratio=mlp_ratio,
                    drop_path=next(drop_paths),
                )
                for letter in letters
            ]
            last = s == len(stages) - 1
            down = None if last else PatchConv(dims[s], dims[s + 1], 2, bias=False)
            self.stages.append(Stage(blocks, down))
            size = -(-size[0] // 2), -(-size[1] // 2)
        self.block_names = [
            [f"stages.{s}.blocks.{b}" for b in range(len(letters))]
            for s, letters in enumerate(stages)
        ]
        # The maps before each step down, as timm describes those of its models.
        self.output_fmt = "NHWC"
        self.feature_info = [
            {"num_chs": dims[s], "reduction": 4 * 2**s, "module": names[-1]}
            for s, names in enumerate(self.block_names)
        ]
        self.num_features = dims[-1]
        self.norm = nn.LayerNorm(self.num_features)
        self.softmax = softmax
        self.apply(init_linear)
        self.build_head(num_outputs)

    def map_blocks(self) -> list[str]:
        return [name for names in self.block_names for name in names]

    def map_side(self, block: str, size: int) -> int:
        return math.ceil(size / 4 / 2 ** int(block.split(".")[1]))

    def build_head(self, num_outputs: int) -> None:
        """Make all that turns features into outputs: the classifier, in another family more."""
        self.reset_classifier(num_outputs)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        for module in self.modules():
            if isinstance(module, Stage):
                module.grad_checkpointing = enable

    def forward_features(self, x: Tensor, record: Record | None = None) -> Tensor:
        """Features before pooling.

        Args:
            x: (B, 3, H, W) normalised pixels, H and W at least 64.
            record: a dict to be filled with what each block attended to. A key such as
                ``stages.2.blocks.1`` maps to the tensors listed at the attention's ``forward``.
                Put the wanted names into it with empty dicts, or leave it empty for all blocks.

        Returns:
            (B, H / 32, W / 32, C), sides rounded up.

        Raises:
            KeyError: ``record`` names a block that the model does not have.
        """
        check_pixels(x)
        kept = open_record(record, self.map_blocks())
        x = self.patch_embed(x)
        for stage, names in zip(self.stages, self.block_names, strict=True):
            x = stage(x, [kept.get(name) for name in names])
        return self.norm(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Maps before each step down, under timm's name and keywords.

        Args:
            x: (B, 3, H, W) normalised pixels, H and W at least 64.
            indices: of stages; a number takes the last so many, None all.
            norm: normalise the last stage's map, as the features are.
            stop_early: as ``intermediates_only``, which leaves out what is not wanted.
            output_fmt: NCHW or NHWC, of the maps.
            intermediates_only: return the maps alone.

        Returns:
            Features as of ``forward_features``, and the maps.

        Raises:
            ValueError: the format is another.
            IndexError: there is no such stage.
        """
        if output_fmt not in ("NCHW", "NHWC"):
            raise ValueError(f"output_fmt is {output_fmt!r:.50}: expected NCHW or NHWC")
        check_pixels(x)
        count = len(self.stages)
        if indices is None or isinstance(indices, int):
            indices = range(-count if indices is None else -indices, 0)
        wanted = {range(count)[index] for index in indices}
        maps = []
        x = self.patch_embed(x)
        for index, stage in enumerate(self.stages):
            assert isinstance(stage, Stage)
            if intermediates_only and index > max(wanted, default=-1):
                break
            x = stage.attend(x, [None] * len(stage.blocks))
            if index in wanted:
                kept = self.norm(x) if norm and stage.downsample is None else x
                maps.append(kept.permute(0, 3, 1, 2) if output_fmt == "NCHW" else kept)
            x = stage.step_down(x)
        return maps if intermediates_only else (self.norm(x), maps)

    def pool(self, x: Tensor) -> Tensor:
        """(B, h, w, C) -> (B, C)."""
        return x.mean(dim=(1, 2)) if self.global_pool else x
