"""Threads that spin for long, briefly, never, or are alone: one run, two at once, and scoring.

    python scripts/benchmark_threads.py --out results/threads

Each figure is the best of some rounds, in which the settings take turns: what else the machine does
only adds to it. Training is the second epoch of a small model on drawn images, with its processes
that load images, and the mean of both where there are two runs. Scoring is the second time that
the same folder is scored.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from stated import state

from eat.config import DataConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig
from eat.sample.make import make_sample
from eat.system.cores import SPINS

SETTINGS: dict[str, dict[str, str]] = {
    "as PyTorch has it": {},
    "as eat has it": {"GOMP_SPINCOUNT": SPINS},
    "PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
CASES = {"one run": ("train", 1), "each of two runs": ("train", 2), "eat score": ("score", 1)}
MODEL = "model"  # folder of a run, whose checkpoint scores


def train(folder: Path, name: str) -> float:
    """Train a small model for two epochs; seconds of the second."""
    from eat.training.trainer import train

    sample = folder / "sample"
    config = TrainConfig(
        data=DataConfig("sample", labels=str(sample), images=str(sample / "images")),
        model=ModelConfig("eat_nano", settings={"anchor_points": True}),
        optim=OptimConfig(epochs=2, batch_size=32),
        run=RunConfig(str(folder / name), device="cpu"),
    )
    train(config)
    return float(pd.read_json(folder / name / "metrics.jsonl", lines=True)["seconds"].iloc[-1])


def score(folder: Path) -> float:
    """Score the sample twice; seconds of the second time."""
    from eat.scoring import Scorer

    scorer = Scorer(str(folder / MODEL / "checkpoints" / "best.safetensors"), device="cpu")
    for _ in range(2):
        start = time.perf_counter()
        list(scorer(folder / "sample" / "images"))
    return time.perf_counter() - start


def run(folder: Path, work: str, names: list[str], setting: dict[str, str]) -> float:
    """This script as one process or several at once; their mean seconds."""
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))
    }
    words = [sys.executable, __file__, "--work", work, "--folder", str(folder), "--name"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([*words, name], env=own | setting, **pipes) for name in names]
    told = [process.communicate() for process in started]
    for process, (_, error) in zip(started, told, strict=True):
        if process.returncode:
            sys.exit(error)
    return sum(float(out.splitlines()[-1]) for out, _ in told) / len(told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", default="results/threads")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=480, help="to train on")
    parser.add_argument("--work", choices=["train", "score"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        print(train(args.folder, args.name) if args.work == "train" else score(args.folder))
        return
    found = {case: dict.fromkeys(SETTINGS, float("inf")) for case in CASES}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_sample(folder / "sample", train=args.images, test=args.images // 2)
        run(folder, "train", [MODEL], SETTINGS["one thread"])
        for turn in range(args.rounds):
            for case, (work, count) in CASES.items():
                for setting, variables in SETTINGS.items():
                    names = [f"{turn}-{case}-{setting}-{number}" for number in range(count)]
                    seconds = run(folder, work, names, variables)
                    print(f"{case}, {setting}: {seconds:.2f} s", file=sys.stderr, flush=True)
                    found[case][setting] = min(found[case][setting], seconds)
    rows = [{"seconds": case} | {name: f"{seconds:.2f}" for name, seconds in times.items()}
            for case, times in found.items()]  # fmt: skip
    settings = {"seed": 0, "images": args.images, "rounds": args.rounds}
    state(pd.DataFrame(rows), Path(args.out), "Threads beside those of other processes", settings)


if __name__ == "__main__":
    main()
