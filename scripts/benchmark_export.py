"""Speed of exported files beside PyTorch's own, on one machine in one run.

    python scripts/benchmark_export.py --out results/export

All have the same random weights. Within a round the runtimes take turns, so that a machine whose
speed drifts slows them all: images/s is the median over the rounds, and x the median of the rounds'
ratios to PyTorch in fp32. Each is told by the images of a batch. Writes export.csv and export.md.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from stated import state

from eat.checkpoint import CheckpointInfo, ModelSpec
from eat.data.registry import DATASETS
from eat.data.transforms import Preprocessing
from eat.sharing.formats import OnnxFile, TorchFile, quantised
from eat.sharing.graph import Rater
from eat.system.heap import keep_heap

FIRST = "PyTorch"


class Runtime:
    """A way to compute a model, the size of its file, and its seconds an image by round."""

    def __init__(self, name: str, run: Callable[[Any], Any], size: int | None = None) -> None:
        self.name, self.run = name, run
        self.size = "-" if size is None else f"{size / 1e6:.1f}"
        self.seconds: list[float] = []


def onnx_runtime(name: str, model: Any) -> Runtime:
    """ONNX by onnxruntime, with as many threads as PyTorch has."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    content = model.SerializeToString()
    session = InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return Runtime(name, lambda images: session.run(None, {"images": images}), len(content))


def runtimes_of(name: str, side: int, seed: int) -> list[Runtime]:
    """PyTorch itself, then what a model is exported as."""
    torch.manual_seed(seed)
    ava = DATASETS["ava"]
    spec = ModelSpec(name, 10, (side, side))
    model = spec.build()
    model.use_own_points()
    info = CheckpointInfo(spec, ava.name, ava.title, ava.scale, Preprocessing(side))
    rater = Rater(model, info, info.scales)
    file, onnx = TorchFile(rater, quantise=False), OnnxFile(rater, quantise=False)
    return [
        Runtime(FIRST, rater.rate),
        Runtime("torch-export", file.runner(), len(file.content({}))),
        onnx_runtime("onnxruntime", onnx.model),
        onnx_runtime("onnxruntime, int8", quantised(onnx.model)),
    ]


def measure(name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each runtime of a model."""
    runtimes = runtimes_of(name, args.side, args.seed)
    rows = [{"model and runtime": f"{name}, {one.name}", "MB": one.size} for one in runtimes]
    for batch in args.batch:
        images = torch.randn(batch, 3, args.side, args.side).numpy()
        for runtime in runtimes:
            runtime.seconds.clear()
            runtime.run(images)  # does not count
        for _ in range(args.rounds):
            for runtime in runtimes:
                start = time.perf_counter()
                runtime.run(images)
                runtime.seconds.append((time.perf_counter() - start) / batch)
        first = runtimes[0].seconds
        for row, runtime in zip(rows, runtimes, strict=True):
            row[f"images/s by {batch}"] = f"{1 / statistics.median(runtime.seconds):.2f}"
            row[f"x by {batch}"] = f"{_ratio(first, runtime.seconds):.2f}"
    return rows


def _ratio(first: list[float], own: list[float]) -> float:
    return statistics.median(f / o for f, o in zip(first, own, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("results/export"))
    parser.add_argument("--models", nargs="+", default=["eat_tiny", "eat_base"])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    keep_heap()
    measured = pd.DataFrame([row for name in args.models for row in measure(name, args)])
    settings = {"seed": args.seed, "side": args.side, "onnxruntime": version("onnxruntime")}
    state(measured, args.out, "Exported files", settings)


if __name__ == "__main__":
    main()
