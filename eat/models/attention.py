"""Window attention, and what it shares with deformable attention."""

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from eat.models.kernels import Linear, biased_softmax
from eat.models.noise import Subset

MASKED = -100.0  # added to the logits of token pairs that only the shift made neighbours


def attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, record: dict[str, Any] | None
) -> Tensor:
    """Scaled dot product attention with an additive bias, if there is one (Eq. 1).

    Args:
        q: (B, heads, N, d) queries.
        k: (B, heads, M, d) keys.
        v: (B, heads, M, d) values.
        bias: broadcastable to (B, heads, N, M).
        record: receives ``attention``, the weights (B, heads, N, M), if it is a dict.

    Returns:
        (B, heads, N, d).
    """
    if record is None and q.is_cuda:
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=None if bias is None else bias.to(q.dtype)
        )
    # On a CPU two matrix products beat the fused kernel at these sizes, twofold in bf16.
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    attention = logits.softmax(dim=-1) if bias is None else biased_softmax(logits, bias)
    if record is not None:
        record["attention"] = attention
    return attention @ v


class TokenAttention(nn.Module):
    """Attention among all tokens (ViT).

    Args:
        dim: number of channels C.
        num_heads: number of heads; divides ``dim``.
        qkv_bias: whether queries, keys and values have biases.
    """

    mixes_images = False

    def __init__(self, dim: int, num_heads: int, *, qkv_bias: bool = True) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim ({dim}) must be a multiple of num_heads ({num_heads})")
        self.num_heads = num_heads
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)

    def forward(
        self, x: Tensor, record: dict[str, Any] | None = None, subset: Subset | None = None
    ) -> Tensor:
        """(B, ..., C) tokens -> (B, ..., C).

        ``record`` receives ``attention``: (B, heads, N, N). Nothing is drawn here, so ``subset``
        does not matter.
        """
        qkv = self.qkv(x.flatten(1, -2))
        q, k, v = rearrange(qkv, "b n (three h d) -> three b h n d", three=3, h=self.num_heads)
        tokens = attend(q, k, v, None, record)
        return self.proj(rearrange(tokens, "b h n d -> b n (h d)")).view_as(x)


def relative_position_index(window: int) -> Tensor:
    """Rows of the bias table for each (query, key) pair of a window: (window^2, window^2)."""
    y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    y, x = y.flatten(), x.flatten()
    dy = y[:, None] - y[None, :] + window - 1
    dx = x[:, None] - x[None, :] + window - 1
    return dy * (2 * window - 1) + dx


def shift_mask(
    height: int,
    width: int,
    window: int,
    shifts: tuple[int, int],
    device: torch.device | None = None,
) -> Tensor:
    """Mask that keeps parts of a cyclically shifted map apart: (windows, window^2, window^2)."""

    def region(size: int, shift: int) -> Tensor:
        at = torch.arange(size, device=device)
        return (at >= size - window).long() + (at >= size - shift).long() if shift else 0 * at

    regions = 3 * region(height, shifts[0])[:, None] + region(width, shifts[1])[None, :]
    regions = rearrange(regions, "(r u) (c v) -> (r c) (u v)", u=window, v=window)
    return MASKED * (regions[:, :, None] != regions[:, None, :]).float()


class WindowAttention(nn.Module):
    """Attention within windows, optionally shifted (Swin; block letters L and S).

    Maps that the window does not divide are zero-padded at the bottom and right, as Swin does. An
    axis that a single window covers is not shifted.

    Args:
        dim: number of channels C.
        num_heads: number of heads; divides ``dim``.
        feature_size: (H, W) of the usual input, whose mask is kept ready.
        window_size: side of a window, in tokens.
        shift: cyclic shift in tokens; 0 is plain window attention.
    """

    mixes_images = False
    bias_index: Tensor
    mask: Tensor | None

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        feature_size: tuple[int, int],
        window_size: int = 7,
        shift: int = 0,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim ({dim}) must be a multiple of num_heads ({num_heads})")
        if not 0 <= shift < max(window_size, 1):
            raise ValueError(f"shift must lie in [0, {window_size - 1}], got {shift}")
        self.num_heads = num_heads
        self.window_size = window_size
        self.shift = shift
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.bias_table = nn.Parameter(torch.empty((2 * window_size - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.bias_table, std=0.02)
        self.feature_size = self._padded(*feature_size)
        self.init_non_persistent_buffers()

    def init_non_persistent_buffers(self) -> None:
        """Make what no checkpoint holds; timm and transformers call it on models built empty."""
        device, shifts = self.bias_table.device, self._shifts(*self.feature_size)
        index = relative_position_index(self.window_size).to(device)
        self.register_buffer("bias_index", index, persistent=False)
        mask = None
        if any(shifts):
            mask = shift_mask(*self.feature_size, self.window_size, shifts, device)
        self.register_buffer("mask", mask, persistent=False)

    def _padded(self, height: int, width: int) -> tuple[int, int]:
        window = self.window_size
        return height + -height % window, width + -width % window

    def _shifts(self, height: int, width: int) -> tuple[int, int]:
        return (
            self.shift if height > self.window_size else 0,
            self.shift if width > self.window_size else 0,
        )

    def window_tokens(self, height: int, width: int, device: torch.device | None = None) -> Tensor:
        """Places of each window's tokens in an H x W map, y * W + x: (windows, window^2).

        They come in the order of the recorded attention. H * W stands for padding.
        """
        places = torch.arange(height * width, device=device).view(height, width)
        rows, cols = self._padded(height, width)
        places = F.pad(places, (0, cols - width, 0, rows - height), value=height * width)
        shifts = self._shifts(rows, cols)
        places = places.roll((-shifts[0], -shifts[1]), dims=(0, 1))
        axes = {"u": self.window_size, "v": self.window_size}
        return rearrange(places, "(r u) (c v) -> (r c) (u v)", **axes)

    def _bias(self, height: int, width: int, shifts: tuple[int, int]) -> Tensor:
        """Position bias plus shift mask: (1, windows * heads, window^2, window^2)."""
        # Unlike indexing, this sums up gradients in parallel.
        bias = F.embedding(self.bias_index, self.bias_table).permute(2, 0, 1)  # (heads, N, N)
        if any(shifts):
            mask = self.mask
            if mask is None or (height, width) != self.feature_size:
                mask = shift_mask(height, width, self.window_size, shifts, bias.device)
            bias = bias[None] + mask.to(bias.dtype)[:, None]  # (windows, heads, N, N)
        else:
            windows = (height // self.window_size) * (width // self.window_size)
            bias = bias.expand(windows, -1, -1, -1)
        return bias.flatten(0, 1)[None]

    def _pad_and_shift(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """A map (B, H, W, C) that windows divide, shifted by what is returned with it."""
        H, W = x.shape[1:3]
        height, width = self._padded(H, W)
        if (height, width) != (H, W):
            x = F.pad(x, (0, 0, 0, width - W, 0, height - H))
        shifts = self._shifts(height, width)
        return (x.roll((-shifts[0], -shifts[1]), dims=(1, 2)) if any(shifts) else x), shifts

    def to_windows(self, x: Tensor) -> Tensor:
        """A map (B, H, W, C) as the windows see it, padded by zeros: (B, windows, window^2, C)."""
        x, _ = self._pad_and_shift(x)
        axes = {"u": self.window_size, "v": self.window_size}
        return rearrange(x, "b (r u) (c v) d -> b (r c) (u v) d", **axes)

    def forward(
        self, x: Tensor, record: dict[str, Any] | None = None, subset: Subset | None = None
    ) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C).

        ``record`` receives ``attention``: (B, windows * heads, window^2, window^2). Nothing is
        drawn here, so ``subset`` does not matter.
        """
        H, W = x.shape[1:3]
        x, shifts = self._pad_and_shift(x)
        height, width = x.shape[1:3]

        # r x c windows of u x v tokens. Split before they are copied into windows, q, k and v have
        # their gradients copied once less.
        axes = {"u": self.window_size, "v": self.window_size, "h": self.num_heads}
        qkv = rearrange(
            self.qkv(x), "b (r u) (c v) (three h d) -> three b r u c v h d", three=3, **axes
        )
        q, k, v = (rearrange(part, "b r u c v h d -> b (r c h) (u v) d") for part in qkv)
        x = attend(q, k, v, self._bias(height, width, shifts), record)
        rows = height // self.window_size
        x = rearrange(x, "b (r c h) (u v) d -> b (r u) (c v) (h d)", r=rows, **axes)

        x = self.proj(x)
        if any(shifts):
            x = x.roll(shifts, dims=(1, 2))
        return x[:, :H, :W]
