"""Steps of ``gpu.sh train``: short runs on the sample in each precision, killed and resumed too."""

import csv
import json
import multiprocessing
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import filelock
import torch
from gpu_step import DEVICE, OUT, SCRATCH, TINY, main

from eat.config import DataConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig
from eat.sample.make import make_sample
from eat.training.state import state_files
from eat.training.trainer import train

EPOCHS = 2 if TINY else 6
PARTS: dict[str, Any] = {"accumulation_steps": 4, "grad_checkpointing": True}
RUNS: dict[str, dict[str, Any]] = {  # options of the run; "_parts" adds a moving average
    "fp32": {"precision": "fp32"},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "bf16_parts": {"precision": "bf16", **PARTS},
    "fp32_compiled": {"precision": "fp32", "compile": True},
    "bf16_compiled": {"precision": "bf16", "compile": True},
    "fp16_compiled": {"precision": "fp16", "compile": True},
    "bf16_parts_compiled": {"precision": "bf16", "compile": True, **PARTS},
}
# Largest difference of a run's mean loss of an epoch to fp32's, as a share of that.
TOLERANCE = 0.1
# Sums of atomic additions differ from run to run on a GPU; on a CPU a run is the same to the bit.
RESUMED = 0.0 if TINY else 0.02


def sample() -> Path:
    """The sample data, made by the first step that needs it."""
    folder = SCRATCH / "sample"
    with filelock.FileLock(SCRATCH / "sample.lock"):
        if not folder.exists():
            counts = (32, 16) if TINY else (1200, 200)
            make_sample(folder, train=counts[0], test=counts[1], size=96)
    return folder


def options(name: str, **run: Any) -> TrainConfig:
    """Of the sample's usual run, shorter."""
    data, small = sample(), {"dims": [16, 32, 32, 64], "heads": [1, 1, 2, 4]}
    settings: dict[str, Any] = small | {"stages": ["L", "S", "LE", "E"]} if TINY else {}
    return TrainConfig(
        data=DataConfig(
            name="sample",
            labels=str(data),
            images=str(data / "images"),
            size=64 if TINY else 96,
            workers=0 if TINY else 2,
        ),
        model=ModelConfig(name="eat_nano", settings=settings | {"anchor_points": True}),
        optim=OptimConfig(
            epochs=EPOCHS,
            batch_size=32 if not TINY else 12,
            lr=5e-4,
            optimizer="adamw",
            weight_decay=0.05,
            ema=0.9 if "parts" in name else None,
        ),
        run=RunConfig(
            folder=str(SCRATCH / name), device="cpu" if DEVICE.type == "cpu" else "auto", **run
        ),
    )


def epochs(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def one_run(name: str) -> list[dict[str, Any]]:
    """A run; a row an epoch."""
    if TINY and RUNS[name]["precision"] == "fp16":
        print("fp16 needs a GPU")
        return []
    config = options(name, **RUNS[name])
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    train(config)
    peak = torch.cuda.max_memory_allocated() if DEVICE.type == "cuda" else 0
    kept = ("epoch", "train_loss", "srcc", "images_per_second", "skipped_steps", "fp16_overflows")
    rows = [{"run": name} | {key: row[key] for key in kept} for row in epochs(SCRATCH / name)]
    print(f"peak memory {peak / 2**30:.2f} GiB")
    return [row | {"peak_gib": round(peak / 2**30, 3)} for row in rows]


def resume() -> list[dict[str, Any]]:
    """A run killed twice between two states, against one that was not: a row an epoch."""
    whole, killed = (options(name, save_steps=1) for name in ("whole", "killed"))
    killed.run.resume = "auto"
    spawn = multiprocessing.get_context("spawn")
    train(whole)
    folder = SCRATCH / "killed"
    for goal in (2, 4):
        process = spawn.Process(target=train, args=(killed,))
        process.start()
        while process.is_alive() and steps(folder) < goal:
            time.sleep(0.01)
        process.kill()
        process.join()
        print(f"killed with exit code {process.exitcode} after step {steps(folder)}")
    train(killed)
    rows = []
    for once, again in zip(epochs(SCRATCH / "whole"), epochs(folder), strict=True):
        losses = once["train_loss"], again["train_loss"]
        ok = abs(losses[0] - losses[1]) <= RESUMED * losses[0]
        rows.append({"epoch": once["epoch"], "whole": losses[0], "resumed": losses[1], "ok": ok})
        print(rows[-1])
    return rows


def steps(folder: Path) -> int:
    """Of the newest state in a run's folder."""
    files = state_files(folder / "checkpoints")
    return int(files[0].name.split("-")[1]) if files else 0


def curves() -> list[dict[str, Any]]:
    """Losses of all runs in losses.csv and losses.png; a row a run."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    found = {
        name: epochs(SCRATCH / name) for name in RUNS if (SCRATCH / name / "result.json").is_file()
    }
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    rows, usual = [], [row["train_loss"] for row in found.get("fp32", [])]
    with (OUT / "losses.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["run", "epoch", "train_loss", "srcc"])
        for name, lines in found.items():
            table.writerows([name, n["epoch"], n["train_loss"], n["srcc"]] for n in lines)
            losses = [line["train_loss"] for line in lines]
            axes.plot(range(1, len(losses) + 1), losses, label=name)
            pairs = zip(losses, usual, strict=False)
            apart = max((abs(loss / other - 1) for loss, other in pairs), default=float("nan"))
            rows.append({"run": name, "from_fp32": apart, "ok": apart <= TOLERANCE})
            print(f"{name:22}{'  '.join(f'{loss:.4f}' for loss in losses)}  {apart:.1%} from fp32")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch", ylabel="training loss")
    axes.legend()
    figure.savefig(OUT / "losses.png", dpi=150)
    return rows


if __name__ == "__main__":
    # As many processes as there are runs share the cores.
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 5))
    runs = {name: partial(one_run, name) for name in RUNS}
    main(runs | {"resume": resume, "curves": curves})
