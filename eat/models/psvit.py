"""PS-ViT: a vision transformer whose tokens are sampled at points that move from layer to layer.

Yue et al., Vision Transformer with Progressive Sampling, ICCV 2021; a second deformable transformer
that the paper puts its attention into (Table 8).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eat.models.attention import TokenAttention
from eat.models.backbone import Block, run_block
from eat.models.base import AestheticModel, Record, check_pixels, init_linear, open_record
from eat.models.deformable import DeformableAttention
from eat.models.kernels import at_least_float32
from eat.models.limits import check_ranges, check_totals


def _pixels(x: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """Pixels of a map (B, H, W, C) at all pairs of rows and columns (B, N, 2): (B, N, 2, 2, C)."""
    B, H, W, _ = x.shape
    images = torch.arange(B, device=x.device).view(B, 1, 1, 1)
    # Unlike indexing, this sums up gradients in parallel.
    return F.embedding((images * H + rows[..., :, None]) * W + cols[..., None, :], x.flatten(0, 2))


def _weighted(pixels: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """Sum of pixels (B, N, 2, 2, C) by weights (B, N, 2) of their rows and columns: (B, N, C)."""
    return (pixels * (rows[..., :, None] * cols[..., None, :])[..., None]).sum(dim=(2, 3))


def _neighbours(at: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The two pixels around each place (B, N) of an axis, and their weights: (B, N, 2) each."""
    first = at.detach().floor()
    places = torch.stack((first, first + 1), dim=-1)
    weights = torch.stack((1 - (at - first), at - first), dim=-1)
    inside = (places >= 0) & (places < size) & (at > -1)[..., None]  # -1 is outside already
    return places.clamp(0, size - 1).long(), weights * inside


def sample_pixels(x: Tensor, positions: Tensor) -> Tensor:
    """Bilinear sampling in units of pixels, zeros outside.

    At a whole pixel the derivative is the forward difference, to the next pixel. ``grid_sample``
    rounds its normalised positions and takes either side; all points of a fresh model are whole.

    Args:
        x: (B, H, W, C) map.
        positions: (B, N, 2) as (y, x); 2.0 is the centre of the third pixel.

    Returns:
        (B, N, C).
    """
    rows, row_weights = _neighbours(positions[..., 0], x.shape[1])
    cols, col_weights = _neighbours(positions[..., 1], x.shape[2])
    return _weighted(_pixels(x, rows, cols), row_weights, col_weights).to(x.dtype)


def sample_with_released_gradient(x: Tensor, positions: Tensor) -> Tensor:
    """``sample_pixels`` with the backward pass of the authors' CUDA kernel.

    It differs from the derivative within a pixel of the map's border. There the border pixel gets
    the input's gradient in full. Positions above row 0 get a gradient from the unclamped distances
    to rows 0 and 1; those below row H - 1 get none (columns alike).
    """
    at, sizes = positions.detach(), x.shape[1:3]
    inside = ((at > -1).all(-1) & (at[..., 0] < sizes[0]) & (at[..., 1] < sizes[1]))[..., None]
    places, weights, distances = [], [], []
    for place, size in zip(at.unbind(-1), sizes, strict=True):
        within = place.clamp(0, size - 1)
        first = within.floor()
        second = (first + 1).clamp(max=size - 1)
        places.append(torch.stack((first, second), dim=-1).long())
        weights.append(torch.stack((1 - (within - first), within - first), dim=-1))
        distances.append(torch.stack((second - place, place - first), dim=-1))
    pixels = _pixels(x, *places)
    step = torch.stack((-torch.ones_like(at), torch.ones_like(at)), dim=-1)
    down = _weighted(pixels.detach(), step[..., 0, :], distances[1])
    right = _weighted(pixels.detach(), distances[0], step[..., 1, :])
    # A sum of the right derivatives, of which nothing but these is taken.
    slope = _weighted(pixels, *weights) + down * positions[..., :1] + right * positions[..., 1:]
    slope = slope * inside
    return sample_pixels(x.detach(), at) + (slope - slope.detach()).to(x.dtype)


class Bottleneck(nn.Module):
    """Residual block of ResNet: convolutions of 1x1, 3x3 and 1x1, at one resolution."""

    def __init__(self, in_dim: int, inner: int, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_dim, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, dim, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(dim)
        self.downsample: nn.Module = nn.Identity()
        if in_dim != dim:
            conv = nn.Conv2d(in_dim, dim, 1, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        return (self.bn3(self.conv3(y)) + self.downsample(x)).relu()


class Stem(nn.Module):
    """The first layers of ResNet, to a map of a quarter of the image's sides."""

    def __init__(self, width: int, middle: int, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.blocks = nn.Sequential(
            Bottleneck(width, width, middle), Bottleneck(middle, width, dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, H / 4, W / 4, C), sides rounded up."""
        x = self.pool(self.norm(self.conv(x)).relu())
        return self.blocks(x).permute(0, 2, 3, 1)


class PSViT(AestheticModel):
    """Progressive sampling, then a plain transformer with a class token; with a rating head.

    The defaults are PS-ViT-B/14. Dropout, which its authors use on ImageNet, is not offered.

    Args:
        num_outputs: 10 for a distribution over the scores 1..10 (AVA), 1 for a score.
        img_size: side in pixels, or (height, width), of the usual input. Other sizes work too: the
            points spread over any map.
        points: points along a side of their grid, n.
        dim: channels.
        heads: attention heads.
        depths: layers that sample, and layers after them.
        stem_dims: channels of the stem's first convolution, and after its first bottleneck.
        mlp_ratio: hidden channels of the MLP over its input's.
        gamma: factor of the offsets where they are sampled, but not where points move on to.
        released_gradient: sample with the gradient of the authors' kernel, which is not the
            derivative near the map's border.
        enhanced: the layers that sample have enhanced attention on the n x n map of their tokens.
        interest_kernel: k_in and k_of of enhanced attention (Eqs. 4, 5).
        eta: its quadrant weight (Eq. 7); 1 for none.
        rotate: whether it rotates offsets at random while training (Eqs. 8, 9).
        drop_path_rate: drop path of the last layer; grows linearly from 0.
        softmax: end in a softmax over outputs; None does so if there are several.

    Raises:
        ValueError: a setting is out of range or does not fit another.
    """

    first_conv = "stem.conv"

    def __init__(
        self,
        *,
        num_outputs: int = 10,
        img_size: int | tuple[int, int] = 224,
        points: int = 14,
        dim: int = 384,
        heads: int = 6,
        depths: tuple[int, int] = (4, 10),
        stem_dims: tuple[int, int] = (64, 256),
        mlp_ratio: float = 3.0,
        gamma: float = 1.0,
        released_gradient: bool = False,
        enhanced: bool = False,
        interest_kernel: int = 8,
        eta: float = 0.25,
        rotate: bool = True,
        drop_path_rate: float = 0.1,
        softmax: bool | None = False,
    ) -> None:
        super().__init__()
        self.img_size = (img_size, img_size) if isinstance(img_size, int) else img_size
        check_ranges(
            {
                "num_outputs": num_outputs,
                "img_size": self.img_size,
                "points": points,
                "dim": dim,
                "heads": heads,
                "depths": depths,
                "stem_dims": stem_dims,
                "mlp_ratio": mlp_ratio,
                "gamma": gamma,
                "interest_kernel": interest_kernel,
                "drop_path_rate": drop_path_rate,
            }
        )
        check_totals(
            weights=sum(depths) * (4 + 2 * mlp_ratio) * dim**2 + 18 * max(stem_dims) ** 2,
            attention=heads * (points**2 + 1) ** 2,
        )
        self.points = points
        self.gamma = gamma
        self.sample = sample_with_released_gradient if released_gradient else sample_pixels
        self.softmax = softmax
        self.num_features = dim
        self.grad_checkpointing = False

        def attention(layer: int) -> TokenAttention | DeformableAttention:
            if not enhanced or layer >= depths[0]:
                return TokenAttention(dim, heads, qkv_bias=False)
            return DeformableAttention(
                dim,
                heads,
                num_groups=max(1, heads // 4),
                feature_size=(points, points),
                interest_kernel=interest_kernel,
                offset_kernel=interest_kernel,
                pad_offsets=False,
                range_factor=None,
                eta=eta,
                rotate=rotate,
                bound_positions=True,
            )

        count = sum(depths)
        layers = [
            Block(
                dim,
                attention(i),
                mlp_ratio=mlp_ratio,
                drop_path=drop_path_rate * i / max(count - 1, 1),
            )
            for i in range(count)
        ]
        self.stem = Stem(*stem_dims, dim)
        self.pos_layer = nn.Linear(2, dim)
        self.ps_layers = nn.ModuleList(layers[: depths[0]])
        self.offset_layers = nn.ModuleList(nn.Linear(dim, 2) for _ in range(depths[0] - 1))
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.trans_layers = nn.ModuleList(layers[depths[0] :])
        self.norm = nn.LayerNorm(dim)
        self.apply(init_linear)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        for layer in self.offset_layers:
            nn.init.zeros_(layer.get_parameter("weight"))
        self.reset_classifier(num_outputs)

    def repeated_blocks(self) -> list[str]:
        parts = {"ps_layers": self.ps_layers, "trans_layers": self.trans_layers}
        return [f"{part}.{i}" for part, layers in parts.items() for i in range(len(layers))]

    def map_blocks(self) -> list[str]:
        """Those of the layers that sample: maps of the points' grid, wherever points have moved."""
        return [f"ps_layers.{i}" for i in range(len(self.ps_layers))]

    def sampling_blocks(self) -> list[str]:
        return self.map_blocks()

    def map_side(self, block: str, size: int) -> int:
        return self.points if block in self.enhanced_blocks() else -(-size // 4)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        return super().no_weight_decay() | {"cls_token"}

    def grid(self, x: Tensor) -> Tensor:
        """Points p_0 on a map (B, H, W, C), a uniform grid in pixels as (y, x): (1, n, n, 2)."""
        like = at_least_float32(x[:0])
        steps = torch.arange(self.points, dtype=like.dtype, device=x.device) + 0.5
        rows, cols = (steps * size / self.points for size in x.shape[1:3])
        return torch.stack(torch.meshgrid(rows, cols, indexing="ij"), dim=-1)[None]

    def forward_features(self, x: Tensor, record: Record | None = None) -> Tensor:
        """Class token and tokens after the last layer and its norm.

        Args:
            x: (B, 3, H, W) normalised pixels, H and W at least 64.
            record: as in :meth:`EAT.forward_features`. Layers that sample record ``points``,
                ``offsets`` and ``positions``, (B or 1, 1, n, n, 2) as (y, x) on the stem's map,
                where -1 and 1 are its outermost pixels; enhanced ones those of their attention, on
                the map of their tokens. ``attention`` is (B, heads, N, N), from token to token.

        Returns:
            (B, 1 + n * n, C), the class token first.

        Raises:
            KeyError: ``record`` names a block that the model does not have.
        """
        check_pixels(x)
        kept = open_record(record, self.repeated_blocks())
        recompute = self.grad_checkpointing and self.training
        tokens = self.progressive_sampling(self.stem(x), kept, recompute)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), tokens.flatten(1, 2)), dim=1)
        for i, block in enumerate(self.trans_layers):
            x = run_block(block, x, kept.get(f"trans_layers.{i}"), recompute=recompute)
        return self.norm(x)

    def progressive_sampling(self, features: Tensor, kept: Record, recompute: bool) -> Tensor:
        """Tokens at points that each layer moves: (B, H, W, C) -> (B, n, n, C).

        Args:
            features: the stem's map.
            kept: records by block.
            recompute: compute blocks again in the backward pass.
        """
        points = self.grid(features).expand(features.shape[0], -1, -1, -1)
        size = torch.stack([points.new_full((), side) for side in features.shape[1:3]])
        offsets, tokens = torch.zeros_like(points), torch.zeros_like(features[:, :1, :1])
        for i, block in enumerate(self.ps_layers):
            positions = points + self.gamma * offsets
            record = kept.get(f"ps_layers.{i}")
            if record is not None:
                scale = 2 / (size - 1)
                places = {"points": points * scale - 1, "offsets": offsets * scale}
                places["positions"] = positions * scale - 1
                record.update({name: place[:, None] for name, place in places.items()})
            sampled = self.sample(features, positions.flatten(1, 2)).unflatten(1, points.shape[1:3])
            points = (points + offsets).detach()
            tokens = sampled + self.pos_layer((points / size).to(features.dtype)) + tokens
            tokens = run_block(block, tokens, record, recompute=recompute)
            if i < len(self.offset_layers):
                offsets = at_least_float32(self.offset_layers[i](tokens))
        return tokens

    def pool(self, x: Tensor) -> Tensor:
        """(B, 1 + n * n, C) -> the class token, (B, C)."""
        return x[:, 0]
