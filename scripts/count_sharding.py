"""Bytes of sharded training, counted from the shapes of a model's weights; nothing is computed.

    python scripts/count_sharding.py timm/vit_so400m_patch14_siglip_378 --enhance --processes 2

Weights, gradients, Adam's two moments and a moving average in float32, of which each process keeps
its rows; and the largest unit, whole for as long as it computes. Activations come on top.
"""

import argparse

import torch
from torch import nn

from eat.models import create_model
from eat.models.enhance import enhance

GIB = 2**30
KINDS = {"weights": 1, "gradients": 1, "Adam's moments": 2, "average (optim.ema)": 1}


def shard_size(module: nn.Module, processes: int) -> int:
    """Bytes of a process's shards of a module's weights: its rows of each, with padding."""
    rows = ((p.shape[0], p.shape[1:].numel() * p.itemsize) for p in module.parameters())
    return sum(-(-count // processes) * size for count, size in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--enhance", action="store_true", help="with gates, beside its attention")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    with torch.device("meta"):
        model = create_model(args.model, 10, None)
        replaced = enhance(model, gate=True) if args.enhance else {}
    whole, shard = shard_size(model, 1), shard_size(model, args.processes)
    units = [shard_size(model.get_submodule(name), 1) for name in model.repeated_blocks()]
    count = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{args.model}, {count:.1f} M parameters, {len(replaced)} modules of attention enhanced")
    print(f"{'GiB':<22}{'1 process':>12}{f'1 of {args.processes}':>12}")
    for kind, times in KINDS.items():
        print(f"{kind:<22}{times * whole / GIB:>12.2f}{times * shard / GIB:>12.2f}")
    total = sum(KINDS.values())
    print(f"{'all of them':<22}{total * whole / GIB:>12.2f}{total * shard / GIB:>12.2f}")
    largest, rest = max(units, default=0) / GIB, (whole - sum(units)) / GIB
    print(
        f"units: {len(units)} blocks of up to {largest:.3f} GiB, and {rest:.3f} GiB outside of them"
    )


if __name__ == "__main__":
    main()
