"""Where attention and gradients go: the share of them that a mask covers."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from eat.evaluation.saliency import Score, score_gradients, share_on_mask
from eat.models import EAT
from eat.models.attention import WindowAttention
from eat.models.base import Record
from eat.models.deformable import sample_features


def share_at_positions(attention: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
    """Share of a deformable block's attention that a mask covers.

    The mask is read as features are: bilinearly, and what lies outside of the map does not count.

    Args:
        attention: (B, heads, queries, N), as recorded.
        positions: (B, groups, Hin, Win, 2) of N = Hin * Win samples, as recorded.
        mask: (B, H, W) of the block's tokens, in 0..1.

    Returns:
        (B,), in 0..1.
    """
    groups = positions.shape[1]
    mass = attention.float().mean(dim=2)
    mass = rearrange(mass, "b (g h) n -> b g h n", g=groups).mean(dim=2).flatten(0, 1)
    places = rearrange(positions, "b g h w yx -> (b g) 1 (h w) yx").float()
    maps = torch.stack((mask, torch.ones_like(mask)), dim=-1).repeat_interleave(groups, dim=0)
    covered, inside = sample_features(maps, places).unbind(-1)  # (B * groups, N)
    sums = [(mass * part).unflatten(0, (-1, groups)).sum((1, 2)) for part in (covered, inside)]
    return sums[0] / sums[1]


def share_in_windows(attention: Tensor, mask: Tensor, layer: WindowAttention) -> Tensor:
    """Share of a window block's attention that a mask covers: (B,), in 0..1.

    Padded tokens do not count, neither as queries nor as keys.

    Args:
        attention: (B, windows * heads, window^2, window^2), as recorded.
        mask: (B, H, W) of the block's tokens, in 0..1.
        layer: that recorded it.
    """
    maps = torch.stack((mask, torch.ones_like(mask)), dim=-1)
    covered, inside = layer.to_windows(maps).unbind(-1)  # (B, windows, tokens)
    heads = rearrange(attention.float(), "b (w h) q k -> b w h q k", h=layer.num_heads)
    mass = torch.einsum("bwqk,bwq->bwk", heads.mean(dim=2), inside)
    return (mass * covered).sum((1, 2)) / (mass * inside).sum((1, 2))


def looking_blocks(model: EAT) -> dict[str, int]:
    """Blocks of the last two stages in which models of other letters differ, with their stage.

    They are all but those of plain window attention.
    """
    found = {}
    for stage, names in enumerate(model.block_names[2:], start=2):
        for name in names:
            layer = model.get_submodule(f"{name}.attn")
            if not isinstance(layer, WindowAttention) or layer.shift:
                found[name] = stage
    return found


@torch.inference_mode()
def attention_on_masks(model: EAT, batches: Iterable[Tensor], masks: Tensor) -> dict[str, float]:
    """Share of attention that falls on masks, the mean over images, by ``looking_blocks``.

    Args:
        model: in evaluation mode.
        batches: (B, 3, S, S) normalised pixels, of N images in all.
        masks: (N, S, S) in 0..1, in the order of the images.
    """
    layers = looking_blocks(model)
    shares: dict[str, list[Tensor]] = {name: [] for name in layers}
    for pixels in batches:
        record: Record = {name: {} for name in layers}
        model.forward(pixels, record)
        own, masks = masks[: len(pixels)], masks[len(pixels) :]
        for name, stage in layers.items():
            layer = model.get_submodule(f"{name}.attn")
            side = -(-own.shape[-1] // (4 * 2**stage))
            tokens = F.adaptive_avg_pool2d(own[:, None], side)[:, 0]
            attention = record[name]["attention"]
            if isinstance(layer, WindowAttention):
                shares[name].append(share_in_windows(attention, tokens, layer))
            else:
                positions = record[name]["positions"]
                shares[name].append(share_at_positions(attention, positions, tokens))
    return {name: torch.cat(parts).mean().item() for name, parts in shares.items()}


def gradient_on_masks(
    model: EAT, batches: Iterable[Tensor], masks: Tensor, score: Score
) -> dict[str, float]:
    """Share of the score's gradient that falls on masks, the mean over images, by block.

    Its size is taken at each token that a block of ``looking_blocks`` attends to, after ``norm1``.

    Args:
        model: as ``batches`` and ``masks`` those of ``attention_on_masks``.
        score: of the model's outputs.
    """
    layers = [f"{name}.norm1" for name in looking_blocks(model)]
    shares: dict[str, list[Tensor]] = {name: [] for name in layers}
    for pixels in batches:
        own, masks = masks[: len(pixels)], masks[len(pixels) :]
        for name, sizes in score_gradients(model, pixels, layers, score).items():
            shares[name].append(share_on_mask(sizes, own))
    found = {name: torch.cat(parts).nanmean().item() for name, parts in shares.items()}
    return {name.removesuffix(".norm1"): share for name, share in found.items()}
