"""Training steps on several processes beside one: their losses, their speed, and what is lost.

    python scripts/benchmark_processes.py --model eat_nano --size 96 --batch 32

Every process has one thread, so that n processes have n times the cores of one. The efficiency is
the time of one process over n times that of n processes, for the same batch. Beside it stand a
process that computes its share alone (what the smaller batch costs), and n of them that compute
without speaking (what sharing the machine costs); the rest is what speaking costs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from eat.config import OptimConfig, RunConfig
from eat.data.loading import share
from eat.models import create_model
from eat.training.losses import LOSSES
from eat.training.setup import make_accelerator
from eat.training.step import MicroBatch, TrainStep

ROOT = Path(__file__).parents[1]


def work(args: argparse.Namespace) -> None:
    """Steps of one process on made-up images; prints losses and the median step time."""
    torch.set_num_threads(1)
    run = RunConfig(device="cpu", precision=args.precision)
    accelerator = make_accelerator(run)
    torch.manual_seed(0)
    model = create_model(args.model, 10, args.size)
    images = torch.randint(0, 256, (args.batch, 3, args.size, args.size), dtype=torch.uint8)
    votes = torch.rand(args.batch, 10).softmax(-1)
    trained = TrainStep(model, LOSSES["emd"], OptimConfig(lr=1e-4), run, accelerator, args.steps)
    first, count = share(args.batch, accelerator.num_processes, accelerator.process_index)
    rows = slice(first, first + count)
    trained.model.train()
    losses, times = [], []
    for step in range(args.steps):
        start = time.perf_counter()
        micro_batch = MicroBatch(images[rows], votes[rows], first, count)
        losses.append(trained.gradients([micro_batch], args.batch, seed=step).loss)
        trained.update()
        times.append(time.perf_counter() - start)
    if accelerator.is_main_process:
        seconds = statistics.median(times[1:])
        Path(args.result).write_text(json.dumps({"losses": losses, "seconds": seconds}))


def start(args: argparse.Namespace, batch: int, processes: int, place: int) -> subprocess.Popen:
    """This script as a worker, or as several that train together."""
    here = [__file__, "--result", f"{args.result}.{place}", "--batch", str(batch)]
    here += ["--model", args.model, "--size", str(args.size), "--steps", str(args.steps)]
    here += ["--precision", args.precision]
    together = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(together if processes > 1 else []), *here]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})


def finished(args: argparse.Namespace, *started: subprocess.Popen) -> list[dict]:
    results = []
    for place, process in enumerate(started):
        if process.wait():
            sys.exit(f"a process failed with exit code {process.returncode}")
        file = Path(f"{args.result}.{place}")
        results.append(json.loads(file.read_text()))
        file.unlink()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="eat_nano")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=32, help="images a step, of all processes")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--result", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.result:
        work(args)
        return
    args.result = str(Path(os.environ.get("TMPDIR", "/tmp")) / f"processes-{os.getpid()}")
    count, part = args.processes, args.batch // args.processes
    (one,) = finished(args, start(args, args.batch, 1, 0))
    (alone,) = finished(args, start(args, part, 1, 0))
    apart = finished(args, *(start(args, part, 1, place) for place in range(count)))
    (many,) = finished(args, start(args, args.batch, count, 0))
    slowest = max(result["seconds"] for result in apart)
    gap = max(abs(a - b) / a for a, b in zip(one["losses"], many["losses"], strict=True))
    print(f"{args.model}, {args.size} pixels, {args.precision}, torch {torch.__version__}, "
          f"one thread a process, median of {args.steps - 1} steps")  # fmt: skip
    print(f"{'':44}{'ms a step':>10}{'efficiency':>12}")
    for name, seconds in (
        (f"1 process, batch {args.batch}", one["seconds"]),
        (f"1 process, batch {part}, alone", alone["seconds"]),
        (f"{count} processes, batch {part} each, apart", slowest),
        (f"{count} processes, batch {args.batch}, together", many["seconds"]),
    ):
        share_of = "" if seconds == one["seconds"] else f"{one['seconds'] / count / seconds:12.2f}"
        print(f"{name:44}{1000 * seconds:10.1f}{share_of}")
    print(f"losses of {args.steps} steps, 1 process and {count}: {one['losses'][0]:.6f} ... "
          f"{one['losses'][-1]:.6f}, largest relative difference {gap:.1e}")  # fmt: skip


if __name__ == "__main__":
    main()
