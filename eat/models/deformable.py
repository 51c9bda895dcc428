"""Deformable attention: DAT's, on a uniform grid, and EAT's, on interest points (section 4.1).

Points, offsets and positions are stored as (y, x), in the coordinates of ``grid_sample`` with
``align_corners=True``: (-1, -1) is the centre of the top left token, (1, 1) of the bottom right.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from eat.models.attention import attend
from eat.models.kernels import (
    Linear,
    at_least_float32,
    convolve,
    convolve_depthwise,
    grid_sample,
)
from eat.models.noise import PerImageNoise, Subset


def uniform_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Centres of pixels that fill [-1, 1], (i + 0.5) / size * 2 - 1, as (y, x): (H, W, 2)."""

    def centres(size: int) -> Tensor:
        return (torch.arange(size, dtype=like.dtype, device=like.device) + 0.5) * (2 / size) - 1

    y, x = centres(height), centres(width)
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1)


def token_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Centres of the tokens of a map, from -1 to 1, as (y, x): (H, W, 2)."""

    def centres(size: int) -> Tensor:
        steps = torch.arange(size, dtype=like.dtype, device=like.device)
        return (2 * steps - (size - 1)) / max(size - 1, 1)

    return torch.stack(torch.meshgrid(centres(height), centres(width), indexing="ij"), dim=-1)


Grid = Callable[[int, int, Tensor], Tensor]


@lru_cache(maxsize=32)
def _grid(make: Grid, height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # it may serve in training later
        return make(height, width, torch.empty(0, dtype=dtype, device=device))


def kept_grid(height: int, width: int, like: Tensor, make: Grid = uniform_grid) -> Tensor:
    """A grid, made once for all blocks and steps; not to be written to."""
    if torch.compiler.is_compiling():  # a part of the graph there
        return make(height, width, like)
    return _grid(make, height, width, like.dtype, like.device)


def point_spacing(height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(1 / height, 1 / width), made on the device without waiting for the host."""
    rows = torch.full((), 1 / height, dtype=dtype, device=device)
    cols = torch.full((), 1 / width, dtype=dtype, device=device)
    return torch.stack((rows, cols))


def guide_offsets(offsets: Tensor, points: Tensor, eta: float, angle: Tensor | None) -> Tensor:
    """Refine offsets by quadrant weight and rotation (Eqs. 6-8).

    Args:
        offsets: (..., 2) offsets O as (y, x).
        points: (..., 2) interest points P as (y, x), broadcastable to ``offsets``.
        eta: weight of an offset that does not point into its point's quadrant (Eq. 7), in (0, 1].
        angle: (...) rotation alpha in radians (Eq. 8), or None for none.

    Returns:
        (..., 2) guided offsets. No gradient flows through the weight.
    """
    if eta != 1:
        same_quadrant = (offsets * points > 0).all(dim=-1, keepdim=True)
        offsets = torch.where(same_quadrant, offsets, eta * offsets)
    if angle is not None:
        y, x = offsets.unbind(-1)
        cos, sin = angle.cos(), angle.sin()
        offsets = torch.stack((y * cos + x * sin, x * cos - y * sin), dim=-1)
    return offsets


def sample_features(x: Tensor, positions: Tensor) -> Tensor:
    """Bilinear sampling of each channel group at its own positions, zeros outside (Eq. 10).

    Args:
        x: (B, H, W, C) features.
        positions: (B, groups, N, 2) as (y, x).

    Returns:
        (B, N, C).
    """
    groups = positions.shape[1]
    maps = rearrange(x.to(positions.dtype), "b h w (g c) -> (b g) h w c", g=groups)
    # Maps are transposed, and so the grid may stay (y, x): grid_sample takes the last axis first.
    # Channels stay innermost in memory: read so, they need no slow copy.
    maps = rearrange(maps, "n h w c -> n c w h")
    grid = rearrange(positions, "b g n yx -> (b g) 1 n yx")
    sampled = grid_sample(maps, grid).to(x.dtype)
    sampled = rearrange(sampled, "(b g) c 1 n -> b n (g c)", g=groups)
    return sampled.contiguous()  # or else a product copies weights for every image


def position_bias(
    table: Tensor, positions: Tensor, height: int, width: int, grid: Grid = uniform_grid
) -> Tensor:
    """Continuous relative position bias: the table at (query centre - position) / 2 (Eq. 1).

    Args:
        table: (heads, 2H-1, 2W-1).
        positions: (B, groups, N, 2) as (y, x); ``groups`` divides ``heads``.
        height: number of query rows.
        width: number of query columns.
        grid: of the query centres.

    Returns:
        (B, heads, height * width, N).
    """
    B, groups, N, _ = positions.shape
    # (queries - positions) / 2, with y and x of all positions in one long row, which is faster.
    queries = (
        (kept_grid(height, width, positions, grid) / 2).view(1, height * width, 2).repeat(1, 1, N)
    )
    displacement = queries - (positions / 2).reshape(B * groups, 1, N * 2)
    displacement = displacement.view(B * groups, height * width, N, 2)
    # Transposed, as in sample_features. Not by einops: given a parameter, it makes torch.compile
    # compile the model twice.
    tables = table.transpose(1, 2).unflatten(0, (groups, -1)).to(displacement.dtype)
    tables = tables.expand(B, -1, -1, -1, -1).flatten(0, 1)
    bias = grid_sample(tables, displacement)
    return rearrange(bias, "(b g) h q n -> b (g h) q n", g=groups)


def pad_to_kernel(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Zero-pad a map (B, C, H, W) that is smaller than the kernel up to the kernel's size."""
    rows = max(conv.kernel_size[0] - x.shape[-2], 0)
    cols = max(conv.kernel_size[1] - x.shape[-1], 0)
    if not rows and not cols:
        return x
    return F.pad(x, (cols // 2, cols - cols // 2, rows // 2, rows - rows // 2))


class PointConv(nn.Module):
    """A convolution that gives a few numbers a point.

    Args:
        dim: number of channels C.
        outputs: numbers a point.
        kernel_size: k_in; an H x W map gives (H - k_in + 1) x (W - k_in + 1) points.
        average: average over the batch, so that every image gets the same numbers. The authors'
            releases do this; the scores of an image then depend on its batch.
    """

    def __init__(self, dim: int, outputs: int, kernel_size: int, *, average: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, outputs, kernel_size)
        self.average = average

    def convolve(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B or 1, 1, Hin, Win, outputs); one group stands for all."""
        x = pad_to_kernel(x.permute(0, 3, 1, 2), self.conv).permute(0, 2, 3, 1)
        # From here on in float32: a position of 8 bits would not tell neighbouring tokens apart.
        y = at_least_float32(convolve(self.conv, x))
        if self.average:
            y = y.mean(dim=0, keepdim=True)
        return y[:, None]


class InterestPoints(PointConv):
    """Interest Generation Module: one convolution and tanh give the points P (Eq. 4).

    Args:
        anchored: keep each point near its place in a grid, P = grid + tanh / 2.
        grid: of anchored points.

    The other settings are those of ``PointConv``.
    """

    def __init__(
        self,
        dim: int,
        kernel_size: int,
        *,
        average: bool = False,
        anchored: bool = False,
        grid: Grid = uniform_grid,
    ) -> None:
        super().__init__(dim, 2, kernel_size, average=average)
        self.anchored = anchored
        self.grid = grid

    def forward(self, x: Tensor, record: dict[str, Any] | None = None) -> Tensor:
        """(B, H, W, C) -> (B or 1, 1, Hin, Win, 2), in [-1, 1]; one group stands for all.

        Anchored points lie in [-1.5, 1.5]. ``record`` receives the ``moves``, the tanh.
        """
        moves = self.convolve(x).tanh()
        if record is not None:
            record["moves"] = moves
        if not self.anchored:
            return moves
        height, width = moves.shape[2:4]
        return kept_grid(height, width, moves, self.grid) + moves / 2


class PointGate(PointConv):
    """DeT's gate, which leaves each position or moves it to the centre of the image.

    It is so steep that it almost never has a gradient.
    """

    STEEPNESS = 99999

    def __init__(self, dim: int, kernel_size: int, *, average: bool = False) -> None:
        super().__init__(dim, 1, kernel_size, average=average)

    def forward(self, x: Tensor, record: dict[str, Any] | None = None) -> Tensor:
        """(B, H, W, C) -> (B or 1, 1, Hin, Win, 1), practically 0 or 1.

        ``record`` receives the ``gate`` before the sigmoid: it is closed where that is positive.
        """
        gate = self.convolve(x)
        if record is not None:
            record["gate"] = gate
        return (-self.STEEPNESS * gate).sigmoid()


class Offsets(nn.Module):
    """Offset Generation Module: a depthwise convolution per channel group (Eq. 5).

    Args:
        dim: number of channels C.
        num_groups: channel groups, which share the weights.
        kernel_size: k_of.
        pad: zero-pad by k_of // 2, so that every token gets an offset.
        range_factor: multiply the offsets by this many point spacings, (1 / Hin, 1 / Win);
            None leaves them in [-1, 1].
    """

    # EAT's golden numbers come from a release that rounds the spacing to float32 in float64 too.
    round_spacing = True

    def __init__(
        self, dim: int, num_groups: int, kernel_size: int, *, pad: bool, range_factor: float | None
    ) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.range_factor = range_factor
        channels = dim // num_groups
        padding = kernel_size // 2 if pad else 0
        self.conv = nn.Conv2d(channels, channels, kernel_size, padding=padding, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.act = nn.GELU()
        self.proj = nn.Linear(channels, 2, bias=False)

    def forward(self, q: Tensor) -> Tensor:
        """(B, H, W, C) queries -> (B, groups, Hin, Win, 2) offsets as (y, x)."""
        # Groups go into the batch, channels last: depthwise convolutions run fastest so.
        x = rearrange(q, "b h w (g c) -> (b g) h w c", g=self.num_groups).permute(0, 3, 1, 2)
        if not self.conv.padding[0]:
            x = pad_to_kernel(x, self.conv)
        x = convolve_depthwise(self.conv, x).permute(0, 2, 3, 1)
        x = at_least_float32(self.proj(self.act(self.norm(x)))).tanh()
        height, width = x.shape[1:3]
        if self.range_factor is not None:
            dtype = torch.float32 if self.round_spacing else x.dtype
            x = x * (self.range_factor * point_spacing(height, width, x.device, dtype))
        return rearrange(x, "(b g) h w yx -> b g h w yx", g=self.num_groups)


class DeformableAttention(PerImageNoise):
    """Attention from every token to features sampled at points plus offsets.

    With interest points it is EAT's enhanced attention (block letter E), otherwise DAT's attention
    around a uniform grid (block letter D).

    Args:
        dim: number of channels C.
        num_heads: number of heads; divides ``dim``.
        num_groups: channel groups with offsets of their own; divides ``num_heads``.
        feature_size: (H, W) of the usual input; the bias table has 2H-1 by 2W-1 entries a head.
        interest_kernel: k_in (Eq. 4), which sets the number of points.
        offset_kernel: k_of (Eq. 5).
        grid: of points that are anchored or not of interest, and of the queries' centres.

    The other settings are those of ``eat.models.EAT``, for one layer.

    Raises:
        ValueError: dim, heads and groups do not divide, eta is out of range, a gate has no interest
            points, or points and offsets would differ in number.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        num_groups: int,
        feature_size: tuple[int, int],
        interest: bool = True,
        interest_kernel: int = 1,
        average_points: bool = False,
        anchor_points: bool = False,
        gate_points: bool = False,
        offsets: bool = True,
        offset_kernel: int,
        pad_offsets: bool,
        range_factor: float | None,
        eta: float = 1.0,
        rotate: bool = False,
        bound_positions: bool = False,
        grid: Grid = uniform_grid,
    ) -> None:
        super().__init__()
        if dim % num_heads or num_heads % num_groups:
            raise ValueError(
                f"num_heads ({num_heads}) must divide dim ({dim}), and num_groups ({num_groups}) "
                "must divide num_heads"
            )
        if not 0 < eta <= 1:
            raise ValueError(f"eta must lie in (0, 1], got {eta}")
        if offsets and pad_offsets and offset_kernel % 2 == 0:
            raise ValueError(f"a padded offset kernel must be odd, got {offset_kernel}")
        if gate_points and not interest:
            raise ValueError("gate_points needs interest points: expected interest true, got false")
        lost = 0 if pad_offsets else offset_kernel - 1  # tokens a side that get no offset
        if interest and offsets and interest_kernel - 1 != lost:
            raise ValueError(
                f"an interest kernel of {interest_kernel} and an offset kernel of "
                f"{offset_kernel} {'with' if pad_offsets else 'without'} padding give "
                "different numbers of points"
            )
        self.num_heads = num_heads
        self.num_groups = num_groups
        self.eta = eta
        self.rotate = rotate
        self.grid = grid
        self.feature_size = feature_size
        self.bound_positions = bound_positions and (interest or offsets)
        # The uniform grid's side falls short of the map's by this much, as that of the points does.
        self.shrink = lost if offsets else interest_kernel - 1
        self.interest = self.gate = self.offset = None
        if interest:
            self.interest = InterestPoints(
                dim, interest_kernel, average=average_points, anchored=anchor_points, grid=grid
            )
        if gate_points:
            self.gate = PointGate(dim, interest_kernel, average=average_points)
        if offsets:
            self.offset = Offsets(
                dim, num_groups, offset_kernel, pad=pad_offsets, range_factor=range_factor
            )
        self.q, self.k, self.v, self.proj = (Linear(dim, dim) for _ in range(4))
        height, width = feature_size
        self.bias_table = nn.Parameter(torch.empty(num_heads, 2 * height - 1, 2 * width - 1))
        nn.init.trunc_normal_(self.bias_table, std=0.01)
        self.exploration: Tensor
        self.init_non_persistent_buffers()

    def init_non_persistent_buffers(self) -> None:
        """Make what no checkpoint holds; timm and transformers call it on models built empty."""
        # A tensor, so that a compiled model sees a new value rather than a new constant.
        exploration = torch.ones((), device=next(self.parameters()).device)
        self.register_buffer("exploration", exploration, persistent=False)

    @property
    def mixes_images(self) -> bool:
        """Whether the points of an image depend on the rest of its batch."""
        return self.interest is not None and self.interest.average

    def points(self, x: Tensor, record: dict[str, Any] | None = None) -> Tensor:
        """Reference points of a map (B, H, W, C): (B or 1, 1, Hin, Win, 2)."""
        if self.interest is not None:
            return self.interest(x, record)
        height, width = (max(side - self.shrink, 1) for side in x.shape[1:3])
        like = torch.empty(0, dtype=at_least_float32(x[:0]).dtype, device=x.device)
        return kept_grid(height, width, like, self.grid)[None, None]

    def rotation(self, points: Tensor, batch: int, subset: Subset | None = None) -> Tensor | None:
        """Random angles (batch, 1, Hin, Win), one per point and image (Eq. 9); None if unused."""
        if not (self.rotate and self.training):
            return None
        height, width = points.shape[2:4]
        dtype, device = points.dtype, points.device

        def uniform(n: int) -> Tensor:
            return torch.rand(n, 1, height, width, dtype=dtype, device=device)

        draw = self.draw(batch, uniform, subset)
        return self.exploration.to(dtype) * math.pi * (draw - 0.5)

    def forward(
        self, x: Tensor, record: dict[str, Any] | None = None, subset: Subset | None = None
    ) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C).

        Args:
            x: features.
            record: receives, in (y, x) order: ``points`` and, of interest points, the tanh
                ``moves``, (B or 1, 1, Hin, Win, 2), and ``gate``, (B or 1, 1, Hin, Win, 1);
                ``offsets``, as guided, and ``positions``, (B, groups, Hin, Win, 2); and
                ``attention``, (B, heads, H * W, Hin * Win).
            subset: which images of the batch these are, where others dropped the branch; random
                angles are drawn for all of them.
        """
        H, W = x.shape[1:3]
        q = self.q(x)
        positions = self.locate(x, q, record, subset)
        sampled = sample_features(x, positions)  # (B, N, C)
        q = rearrange(q, "b y x (h d) -> b h (y x) d", h=self.num_heads)
        k = rearrange(self.k(sampled), "b n (h d) -> b h n d", h=self.num_heads)
        v = rearrange(self.v(sampled), "b n (h d) -> b h n d", h=self.num_heads)
        bias = position_bias(self.bias_table, positions, H, W, self.grid)
        x = attend(q, k, v, bias, record)
        return self.proj(rearrange(x, "b h (y x) d -> b y x (h d)", y=H))

    def locate(
        self, x: Tensor, q: Tensor, record: dict[str, Any] | None, subset: Subset | None
    ) -> Tensor:
        """Where to sample, from a map and its queries (B, H, W, C): (B, groups, N, 2).

        The other arguments are those of ``forward``.
        """
        B = x.shape[0]
        points = self.points(x, record)
        positions = points.expand(B, self.num_groups, -1, -1, -1)
        if self.offset is not None:
            angle = self.rotation(points, B, subset)
            offsets = guide_offsets(self.offset(q), points, self.eta, angle)
            positions = points + offsets
            if record is not None:
                record["offsets"] = offsets
        if self.gate is not None:
            positions = positions * self.gate(x, record)
        if self.bound_positions:
            positions = positions.tanh()
        if record is not None:
            record.update(points=points, positions=positions)

        return rearrange(positions, "b g h w yx -> b g (h w) yx")
