"""Precisions of scoring on a CPU: images/s beside timm's Swin, and the SRCC of a trained model.

    python scripts/benchmark_precision.py CHECKPOINT --out results/precision

Speed is that of forward passes of ``--model`` with fresh weights, made ready as by ``eat score``;
Swin runs as timm gives it, under autocast to bf16. All live in one process with the heap of
``eat``, and take turns. images/s is the median over the rounds, and a ratio the median of the
rounds' ratios. SRCC is that of ``eat evaluate CHECKPOINT --precision ...``.

``--isa AVX512_CORE_BF16`` has oneDNN do without AMX, and so measures products as on processors that
have none (``ONEDNN_MAX_CPU_ISA``).
"""

import argparse
import copy
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from stated import state

PEER = "swin_base_patch4_window7_224"
PRECISIONS = "fp32", "bf16", "int8"
WARM_UP = 2  # rounds


def models(name: str, size: int) -> dict[str, Callable[[int], float]]:
    """By name, what measures the seconds of a forward pass of so many images."""
    import timm
    import torch

    import eat
    from eat.checkpoint.precision import make_ready
    from eat.data.transforms import Preprocessing
    from eat.system.device import autocast

    cpu = torch.device("cpu")

    def pass_of(model: torch.nn.Module, precision: str) -> Callable[[int], float]:
        def seconds(batch: int) -> float:
            pixels = torch.randn(batch, 3, size, size)
            with torch.inference_mode(), autocast(cpu, precision):
                model(pixels)
                start = time.perf_counter()
                model(pixels)
                return time.perf_counter() - start

        return seconds

    torch.manual_seed(0)
    trained = eat.create_model(name, num_outputs=10, img_size=size).eval()
    found = {}
    for precision in PRECISIONS:
        model = make_ready(copy.deepcopy(trained), Preprocessing(size), precision, cpu)
        found[f"{name} {precision}"] = pass_of(model, precision)
    peer = timm.create_model(PEER, num_classes=10, img_size=size).eval()
    return found | {f"Swin {precision}": pass_of(peer, precision) for precision in PRECISIONS[:2]}


def evaluated(checkpoint: str, precision: str) -> float:
    """SRCC of a checkpoint on its own test split."""
    from eat.config.commands import EvaluateOptions
    from eat.evaluation.evaluate import evaluate_checkpoint

    with tempfile.TemporaryDirectory() as out:
        options = EvaluateOptions(device="cpu", precision=precision, samples=0, out=out)
        return evaluate_checkpoint(checkpoint, options).metrics["srcc"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint", help="of a run whose labels and images are there")
    parser.add_argument("--model", default="eat_base")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10, help=f"beside {WARM_UP} to warm up")
    parser.add_argument("--isa", help="the most that oneDNN may use of the processor")
    parser.add_argument("--out", default="results/precision")
    args = parser.parse_args()
    if args.isa:
        os.environ["ONEDNN_MAX_CPU_ISA"] = args.isa
    from eat.system.cores import spin_briefly
    from eat.system.heap import keep_heap

    spin_briefly()
    keep_heap()
    try:
        scores = {p: f"{evaluated(args.checkpoint, p):.4f}" for p in PRECISIONS}
    except (ValueError, OSError) as error:
        parser.error(str(error))
    passes = models(args.model, args.size)
    times: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(WARM_UP + args.rounds):
        for name, seconds in passes.items():
            times[name].append(seconds(args.batch))
    times = {name: values[WARM_UP:] for name, values in times.items()}

    def ratio(name: str, base: str) -> str:
        pairs = zip(times[base], times[name], strict=True)
        return f"{statistics.median(a / b for a, b in pairs):.2f}"

    rows = []
    for name, values in times.items():
        row = {"forward": name, "images/s": f"{args.batch / statistics.median(values):.2f}"}
        row |= {f"x {args.model} bf16": ratio(name, f"{args.model} bf16")}
        rows.append(row | {"x Swin bf16": ratio(name, "Swin bf16")})
    for row in rows:
        model, _, precision = row["forward"].partition(" ")
        row["SRCC of the checkpoint"] = scores[precision] if model == args.model else "-"
    settings = {"seed": 0, "batch": args.batch, "rounds": args.rounds, "isa": args.isa or "all"}
    state(pd.DataFrame(rows), Path(args.out), "Precisions of scoring on a CPU", settings)


if __name__ == "__main__":
    main()
