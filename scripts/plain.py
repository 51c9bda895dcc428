"""The plain formulation: the same network and weights, computed as its equations are written.

It is the baseline of the benchmarks, and stands for how the authors' release computes, from the
facts that are known of it:

- maps stay (B, C, H, W); a norm over channels permutes there and back;
- q, k, v and the output of deformable attention are 1x1 convolutions, of windows linear layers;
- drop path multiplies branches by a mask, so that those left out are computed too;
- attention is two einsums around a softmax, whose weights are materialised, as are the logits, the
  logits with bias and, in shifted windows, the logits with mask;
- the window bias is gathered from its table, the query grid is built and the reference points are
  repeated for every group in each forward pass;
- index tables and shift masks of the usual size are buffers, made once, as in the release.

Nothing is made slower than that: sampling takes all groups in one call, and no tensor is copied
without a reason in the layout.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eat.models import EAT
from eat.models.attention import WindowAttention, shift_mask
from eat.models.backbone import Block, PatchConv
from eat.models.deformable import DeformableAttention, InterestPoints, Offsets, guide_offsets
from eat.models.noise import DropPath


def channel_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """LayerNorm over the channels of (B, C, H, W)."""
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def tokenwise(layer: nn.Linear, x: Tensor) -> Tensor:
    """A linear layer on (..., C), as ``torch.nn.Linear`` computes it."""
    return F.linear(x, layer.weight, layer.bias)


def pointwise(layer: nn.Linear, x: Tensor) -> Tensor:
    """A linear layer as the 1x1 convolution of (B, C, H, W)."""
    return F.conv2d(x, layer.weight[:, :, None, None], layer.bias)


def kept_mask(drop_path: DropPath, x: Tensor) -> Tensor:
    """What a branch is multiplied by: (B, 1, 1, 1)."""
    if not drop_path.training or drop_path.rate == 0:
        return x.new_ones(())
    return drop_path.kept(len(x), x.device).to(x.dtype).view(-1, 1, 1, 1) / (1 - drop_path.rate)


def window_attention(module: WindowAttention, x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W), in windows of w x w."""
    B, C, H, W = x.shape
    w, heads = module.window_size, module.num_heads
    rows, cols = -(-H // w), -(-W // w)
    x = F.pad(x, (0, cols * w - W, 0, rows * w - H))
    shifts = tuple(module.shift if side > 1 else 0 for side in (rows, cols))
    x = x.roll((-shifts[0], -shifts[1]), dims=(2, 3))
    x = x.view(B, C, rows, w, cols, w).permute(0, 2, 4, 3, 5, 1).reshape(-1, w * w, C)
    qkv = tokenwise(module.qkv, x).view(-1, w * w, 3, heads, C // heads).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.flatten(1, 2)  # (B * windows * heads, w^2, d)
    q = q * (C // heads) ** -0.5
    attention = torch.einsum("bmc,bnc->bmn", q, k).view(-1, heads, w * w, w * w)
    bias = module.bias_table[module.bias_index.flatten()].view(w * w, w * w, heads)
    attention = attention + bias.permute(2, 0, 1)[None]
    if any(shifts):
        size = rows * w, cols * w
        usual = size == module.feature_size
        mask = module.mask if usual else shift_mask(*size, w, shifts, x.device)
        attention = attention.view(B, rows * cols, heads, w * w, w * w)
        attention = attention + mask[None, :, None].to(attention.dtype)
    attention = attention.softmax(dim=-1).view(-1, w * w, w * w)
    x = torch.einsum("bmn,bnc->bmc", attention.to(v.dtype), v)
    x = x.view(-1, heads, w * w, C // heads).transpose(1, 2).flatten(2)
    x = tokenwise(module.proj, x)
    x = x.view(B, rows, cols, w, w, C).permute(0, 5, 1, 3, 2, 4).reshape(B, C, rows * w, cols * w)
    return x.roll(shifts, dims=(2, 3))[:, :, :H, :W]


def interest_points(module: InterestPoints, x: Tensor) -> Tensor:
    """Eq. 4: (B, C, H, W) -> (B or 1, Hin, Win, 2)."""
    points = module.conv(x).float() if x.dtype != torch.float64 else module.conv(x)
    if module.average:
        points = points.mean(dim=0, keepdim=True)
    return points.tanh().permute(0, 2, 3, 1)


def offsets(module: Offsets, q: Tensor) -> Tensor:
    """Eq. 5: (B, C, H, W) queries -> (B * groups, Hin, Win, 2)."""
    B, C, H, W = q.shape
    x = module.conv(q.reshape(B * module.num_groups, C // module.num_groups, H, W))
    x = module.act(channel_norm(module.norm, x))
    x = F.conv2d(x, module.proj.weight[:, :, None, None])
    x = (x if x.dtype == torch.float64 else x.float()).tanh()
    if module.range_factor is not None:
        sides = torch.tensor([1 / x.shape[2], 1 / x.shape[3]], device=x.device).view(1, 2, 1, 1)
        x = x * sides * module.range_factor
    return x.permute(0, 2, 3, 1)


def deformable_attention(module: DeformableAttention, x: Tensor) -> Tensor:
    """Eqs. 1 and 4 to 10: (B, C, H, W) -> (B, C, H, W)."""
    B, C, H, W = x.shape
    g, heads = module.num_groups, module.num_heads
    d = C // heads
    q = pointwise(module.q, x)
    points = interest_points(module.interest, x)
    angle = module.rotation(points[:, None], B)
    points = points[:, None].repeat(B // len(points), g, 1, 1, 1).flatten(0, 1)
    if angle is not None:
        angle = angle.repeat(1, g, 1, 1).flatten(0, 1)
    positions = points + guide_offsets(offsets(module.offset, q), points, module.eta, angle)
    if module.bound_positions:
        positions = positions.tanh()
    N = positions.shape[1] * positions.shape[2]

    maps = x.reshape(B * g, C // g, H, W).to(positions.dtype)
    sampled = F.grid_sample(maps, positions[..., (1, 0)], align_corners=True)
    sampled = sampled.reshape(B, C, 1, N).to(x.dtype)
    q = q.reshape(B * heads, d, H * W) * d**-0.5
    k = pointwise(module.k, sampled).reshape(B * heads, d, N)
    v = pointwise(module.v, sampled).reshape(B * heads, d, N)
    attention = torch.einsum("bcm,bcn->bmn", q, k)

    y = (torch.arange(H, dtype=positions.dtype, device=x.device) + 0.5) / H * 2 - 1
    z = (torch.arange(W, dtype=positions.dtype, device=x.device) + 0.5) / W * 2 - 1
    queries = torch.stack(torch.meshgrid(y, z, indexing="ij"), dim=-1).view(1, H * W, 1, 2)
    displacement = (queries - positions.reshape(B * g, 1, N, 2)) * 0.5
    table = module.bias_table[None].expand(B, -1, -1, -1)
    table = table.reshape(B * g, heads // g, *module.bias_table.shape[1:]).to(displacement.dtype)
    bias = F.grid_sample(table, displacement[..., (1, 0)], align_corners=True)
    attention = (attention + bias.reshape(B * heads, H * W, N)).softmax(dim=2)
    x = torch.einsum("bmn,bcn->bcm", attention.to(v.dtype), v)
    return pointwise(module.proj, x.reshape(B, C, H, W))


def patch_conv(module: PatchConv, x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, dim, H / patch, W / patch); sides are multiples of the patch."""
    return channel_norm(module.norm, module.conv(x))


class Plain(nn.Module):
    """An EAT of window and enhanced blocks, computed plainly; the weights are the model's own.

    Args:
        model: whose weights and settings are used; image sides must be multiples of 32.
    """

    def __init__(self, model: EAT) -> None:
        super().__init__()
        self.model = model

    def _block(self, block: Block, x: Tensor) -> Tensor:
        windows = isinstance(block.attn, WindowAttention)
        attention = window_attention if windows else deformable_attention
        mask = kept_mask(block.drop_path, x)
        x = x + attention(block.attn, channel_norm(block.norm1, x)) * mask
        mask = kept_mask(block.drop_path, x)
        tokens = channel_norm(block.norm2, x).flatten(2).transpose(1, 2)
        tokens = block.mlp.act(tokenwise(block.mlp.fc1, tokens))
        tokens = tokenwise(block.mlp.fc2, tokens)
        return x + tokens.transpose(1, 2).reshape(x.shape) * mask

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, num_outputs)."""
        x = patch_conv(self.model.patch_embed, x)
        for stage in self.model.stages:
            for block in stage.blocks:
                x = self._block(block, x)
            if stage.downsample is not None:
                x = patch_conv(stage.downsample, x)
        return self.model.forward_head(self.model.norm(x.permute(0, 2, 3, 1)))
