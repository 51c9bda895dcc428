"""Slow, obvious versions of the two attentions: numpy, one number at a time."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from eat.models.attention import WindowAttention
from eat.models.deformable import DeformableAttention

Array = NDArray[np.float64]

# On tensors this small, threads cost more than they give; on a busy machine, tenfold.
torch.set_num_threads(1)


def array(x: Tensor) -> Array:
    return x.detach().cpu().double().numpy()


def linear(x: Array, layer: nn.Linear) -> Array:
    y = x @ array(layer.weight).T
    return y if layer.bias is None else y + array(layer.bias)


def softmax(logits: list[float]) -> Array:
    e = np.exp(np.array(logits) - max(logits))
    return e / e.sum()


def pixel(image: Array, row: int, col: int) -> float:
    """One pixel of an image (H, W); 0 outside."""
    inside = 0 <= row < image.shape[0] and 0 <= col < image.shape[1]
    return float(image[row, col]) if inside else 0.0


def bilinear(image: Array, y: float, x: float) -> float:
    """An image (H, W) at (y, x), where -1 and 1 are the centres of the outermost pixels."""
    row, col = (y + 1) / 2 * (image.shape[0] - 1), (x + 1) / 2 * (image.shape[1] - 1)
    top, left = math.floor(row), math.floor(col)
    down, right = row - top, col - left
    return (
        (1 - down) * (1 - right) * pixel(image, top, left)
        + (1 - down) * right * pixel(image, top, left + 1)
        + down * (1 - right) * pixel(image, top + 1, left)
        + down * right * pixel(image, top + 1, left + 1)
    )


def patches(image: Array, kernel: int) -> list[list[Array]]:
    """Every kernel x kernel patch of (H, W, C)."""
    rows, cols = image.shape[0] - kernel + 1, image.shape[1] - kernel + 1
    return [[image[i : i + kernel, j : j + kernel] for j in range(cols)] for i in range(rows)]


def interest_points(module: DeformableAttention, x: Array) -> Array:
    """Eq. 4 for one image: (H, W, C) -> (Hin, Win, 2) as (y, x)."""
    weight, bias = array(module.interest.conv.weight), array(module.interest.conv.bias)
    windows = patches(x, weight.shape[-1])
    return np.array(
        [
            [
                [np.tanh((weight[c].transpose(1, 2, 0) * p).sum() + bias[c]) for c in (0, 1)]
                for p in row
            ]
            for row in windows
        ]
    )


def raw_offsets(module: DeformableAttention, q: Array) -> Array:
    """Eq. 5 for one image: queries (H, W, C) -> (groups, Hin, Win, 2) as (y, x)."""
    net, groups = module.offset, module.num_groups
    weight, bias = array(net.conv.weight)[:, 0], array(net.conv.bias)  # (C / groups, k, k)
    gain, shift = array(net.norm.weight), array(net.norm.bias)
    pad = net.conv.padding[0]
    out = []
    for channels in np.split(q, groups, axis=-1):
        channels = np.pad(channels, ((pad, pad), (pad, pad), (0, 0)))
        rows = []
        for row in patches(channels, weight.shape[-1]):
            points = []
            for patch in row:
                z = np.array([(weight[c] * patch[..., c]).sum() for c in range(len(bias))]) + bias
                z = (z - z.mean()) / np.sqrt(z.var() + net.norm.eps) * gain + shift
                z = np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in z])
                points.append(np.tanh(array(net.proj.weight) @ z))
            rows.append(points)
        out.append(rows)
    offsets = np.array(out)
    if net.range_factor is not None:
        offsets = offsets * net.range_factor / np.array(offsets.shape[1:3])
    return offsets


def attend_to(module: DeformableAttention, x: Array, positions: Array) -> Array:
    """Eq. 1 for one image: features (H, W, C), positions (groups, N, 2) -> (H, W, C)."""
    height, width, channels = x.shape
    heads, groups = module.num_heads, module.num_groups
    per_group, d = channels // groups, channels // heads
    sampled = np.array(
        [
            [bilinear(x[..., c], *positions[c // per_group, n]) for c in range(channels)]
            for n in range(positions.shape[1])
        ]
    )
    q, k, v = linear(x, module.q), linear(sampled, module.k), linear(sampled, module.v)
    table = array(module.bias_table)
    out = np.zeros_like(x)
    for i in range(height):
        for j in range(width):
            centre = (i + 0.5) / height * 2 - 1, (j + 0.5) / width * 2 - 1
            for h in range(heads):
                part = slice(h * d, (h + 1) * d)
                logits = []
                for n, key in enumerate(k):
                    y_n, x_n = positions[h // (heads // groups), n]
                    bias = bilinear(table[h], (centre[0] - y_n) / 2, (centre[1] - x_n) / 2)
                    logits.append(q[i, j, part] @ key[part] / math.sqrt(d) + bias)
                out[i, j, part] = softmax(logits) @ v[:, part]
    return linear(out, module.proj)


def plain_deformable(module: DeformableAttention, x: Tensor) -> Array:
    """Attention around learned points moved by unguided offsets: (B, H, W, C)."""
    out = []
    for image in array(x):
        points = interest_points(module, image)
        positions = points + raw_offsets(module, linear(image, module.q))
        if module.bound_positions:
            positions = np.tanh(positions)
        out.append(attend_to(module, image, positions.reshape(module.num_groups, -1, 2)))
    return np.array(out)


def window_attention(module: WindowAttention, x: Tensor) -> Array:
    """Windows that start at ``shift - window`` and are cut off by the map's edge: (B, H, W, C).

    Nothing is rolled and nothing masked: a token attends to the tokens of its own window.
    """
    w, heads = module.window_size, module.num_heads
    images = array(x)
    _, height, width, channels = images.shape
    images = np.pad(images, ((0, 0), (0, -height % w), (0, -width % w), (0, 0)))
    rows, cols = images.shape[1:3]
    shift_y, shift_x = (module.shift if side > w else 0 for side in (rows, cols))
    table, d = array(module.bias_table), channels // heads
    tokens = [(i, j) for i in range(rows) for j in range(cols)]
    window = {(i, j): ((i - shift_y) // w, (j - shift_x) // w) for i, j in tokens}
    out = np.zeros_like(images)
    for b, image in enumerate(images):
        q, k, v = np.split(linear(image, module.qkv), 3, axis=-1)
        for i, j in tokens:
            keys = [t for t in tokens if window[t] == window[i, j]]
            for h in range(heads):
                part = slice(h * d, (h + 1) * d)
                logits = [
                    q[i, j, part] @ k[t[0], t[1], part] / math.sqrt(d)
                    + table[(i - t[0] + w - 1) * (2 * w - 1) + j - t[1] + w - 1, h]
                    for t in keys
                ]
                out[b, i, j, part] = softmax(logits) @ np.array([v[t[0], t[1], part] for t in keys])
    return linear(out, module.proj)[:, :height, :width]
