"""Cost and speed of well-known backbones beside eat_base, on one machine in one run.

    python scripts/benchmark_backbones.py --out results/backbones

All have random weights and a head of 10 outputs. Multiply-adds of convolutions and matrix products
are counted (``eat.models.cost``). The models take turns, so that a machine whose speed drifts slows
them all: images/s is the median over the rounds, and a ratio the median of the rounds' ratios to
eat_base. A turn runs twice and the second time counts. Writes backbones.csv and backbones.md.
"""

import argparse
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from stated import state

import eat
from eat.models import AestheticModel
from eat.models.cost import count_macs, without_content
from eat.system.device import autocast
from eat.system.heap import keep_heap

FIRST = "eat_base"
MODELS = {  # sides in pixels: 224, or the nearest that a model takes
    FIRST: 224,
    "timm/resnet50": 224,
    "timm/convnext_base": 224,
    "timm/vit_base_patch16_224": 224,
    "timm/vit_base_patch16_dinov3": 224,
    "timm/vit_base_patch16_siglip_224": 224,
    "timm/swin_base_patch4_window7_224": 224,
    "timm/swinv2_base_window8_256": 256,
    "timm/maxvit_base_tf_224": 224,
}


class Runner:
    """A model with random weights, and its seconds an image by round."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        self.name, self.side = name, MODELS[name]
        self.macs = count_macs(*without_content(self.build))
        self.model = self.build().to(args.device).eval()
        self.images = torch.randn(args.batch, 3, self.side, self.side, device=args.device)
        self.seconds: list[float] = []

    def build(self) -> AestheticModel:
        return eat.create_model(self.name, 10, self.side)

    def turn(self, precision: str) -> None:
        """Time the second of two forward passes."""
        with torch.no_grad(), autocast(self.images.device, precision):
            for _ in range(2):
                start = time.perf_counter()
                self.model(self.images)
                if self.images.is_cuda:
                    torch.cuda.synchronize()
        self.seconds.append((time.perf_counter() - start) / len(self.images))


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each model."""
    runners = [Runner(name, args) for name in MODELS]
    for done in range(args.warm_up + args.rounds):
        for runner in runners:
            if done == args.warm_up:
                runner.seconds.clear()
            runner.turn(args.precision)
    first = runners[0].seconds
    return [
        {
            "model": runner.name,
            "side": runner.side,
            "parameters (M)": f"{sum(p.numel() for p in runner.model.parameters()) / 1e6:.2f}",
            "multiply-adds (G)": f"{runner.macs / 1e9:.2f}",
            "images/s": f"{1 / statistics.median(runner.seconds):.2f}",
            "x eat_base": f"{_ratio(first, runner.seconds):.2f}",
        }
        for runner in runners
    ]


def _ratio(first: list[float], own: list[float]) -> float:
    return statistics.median(f / o for f, o in zip(first, own, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("results/backbones"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--warm-up", type=int, default=2, help="rounds that do not count")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    keep_heap()
    settings = {"seed": args.seed, "batch": args.batch, "precision": args.precision}
    settings |= {"timm": version("timm")}
    state(pd.DataFrame(measure(args)), args.out, "Backbones", settings)


if __name__ == "__main__":
    main()
