"""Cost against image size: a fixed number of interest points, and a fixed kernel k_in.

    python scripts/benchmark_cost.py

GMACs are counted; Eq. 12 is summed over the enhanced blocks, beside the same sum as we count it.
"""

import argparse
import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

import eat
from eat.models import EAT
from eat.models.cost import enhanced_attention_macs, eq12, kernel_for


def enhanced_sums(size: int, kernels: tuple[int, ...], dims: tuple[int, ...]) -> tuple[int, int]:
    """Eq. 12 and our count, over the enhanced blocks of a base model: 9 in stage 3, 1 in 4."""
    printed = counted = 0
    for stage, blocks in ((2, 9), (3, 1)):
        side = -(-size // (4 * 2**stage))
        points = side - kernels[stage] + 1
        kernel = {"k_in": kernels[stage], "k_of": kernels[stage]}
        shape = (side, side, dims[stage], points, points)
        printed += blocks * eq12(*shape, **kernel)
        counted += blocks * enhanced_attention_macs(*shape, **kernel)
    return printed, counted


def measure(model: EAT, images: torch.Tensor, rounds: int) -> tuple[float, int]:
    """Seconds of a forward pass (the median), and its multiply-adds."""
    times = []
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            model(images)
        for _ in range(rounds):
            start = time.perf_counter()
            model(images)
            if images.is_cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
    return statistics.median(times), counter.get_total_flops() // 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 320, 448, 640])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    dims = (128, 256, 512, 1024)
    print(f"eat_base, one image, fp32, {args.device}")
    print(f"{'':16}{'size':>6}{'k_in':>8}{'ms':>8}{'GMACs':>8}{'Eq. 12':>8}{'counted':>9}")
    for rule in ("49 points", "k_in = 8, 1"):
        for size in args.sizes:
            sides = size // 16, size // 32
            fixed = tuple(kernel_for(side, 7) for side in sides)
            kernels = (50, 22, *(fixed if rule == "49 points" else (8, 1)))
            model = eat.create_model("eat_base", img_size=size, interest_kernels=kernels)
            images = torch.randn(1, 3, size, size, device=args.device)
            seconds, macs = measure(model.to(args.device).eval(), images, args.rounds)
            printed, counted = enhanced_sums(size, kernels, dims)
            print(
                f"{rule:16}{size:6}{f'{kernels[2]}, {kernels[3]}':>8}{seconds * 1e3:8.0f}"
                f"{macs / 1e9:8.2f}{printed / 1e9:8.2f}{counted / 1e9:9.2f}"
            )


if __name__ == "__main__":
    main()
