"""Speed of EAT beside timm's Swin, forward and training step, on one machine in one run.

    python scripts/benchmark_model.py --batch 8

The models take turns, so that a machine whose speed drifts slows them all; each figure is the
median over the rounds.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import timm
import torch
from torch import nn

import eat

PEER = "swin_base_patch4_window7_224"


def step(model: nn.Module, images: torch.Tensor, bf16: bool, train: bool) -> Callable[[], None]:
    """A function that runs one forward pass, or one training step with Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-6) if train else None

    def run() -> None:
        model.train(train)
        device = images.device.type
        cast = torch.autocast(device, torch.bfloat16) if bf16 else nullcontext()
        with torch.set_grad_enabled(train), cast:
            loss = model(images).float().square().mean()
        if train:
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return run


def seconds(run: Callable[[], None], device: torch.device) -> float:
    """Wall time of one call, the device's work included."""
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["eat_base", "eat_base_released"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    images = torch.randn(args.batch, 3, 224, 224, device=device)
    names = [PEER, *args.models]
    where = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "CPU"
    print(
        f"torch {torch.__version__}, timm {timm.__version__}, {where}, "
        f"{torch.get_num_threads()} threads, batch {args.batch}, {args.rounds} rounds"
    )
    print(f"{'':36}{'images/s':>10}{'x peer':>8}")
    for train in (False, True):
        for bf16 in (False, True):
            runs = {}
            for name in names:
                outputs = {"num_classes": 10} if name == PEER else {"num_outputs": 10}
                build = timm.create_model if name == PEER else eat.create_model
                runs[name] = step(build(name, **outputs).to(device), images, bf16, train)
                seconds(runs[name], device)  # warm-up
            times = {name: [] for name in names}
            for _ in range(args.rounds):
                for name in names:
                    times[name].append(seconds(runs[name], device))
            kind = f"{'train' if train else 'forward'} {'bf16' if bf16 else 'fp32'}"
            for name in names:
                rate = args.batch / statistics.median(times[name])
                gain = statistics.median(
                    p / t for p, t in zip(times[PEER], times[name], strict=True)
                )
                print(f"{kind:14}{name[:22]:22}{rate:10.2f}{gain:8.2f}")


if __name__ == "__main__":
    main()
