"""Steps of ``gpu.sh speed``: matrix products, models, where a step goes, input, scoring."""

import math
import os
import shutil
import time
from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import gpu_ways
import torch
from benchmark_model import COMPILED, PEER, PLAIN, Bench, Runner, matrix_peak
from gpu_step import DEVICE, SCRATCH, TINY, Row, finish, main, precision, seconds, told, write

from eat.system.cores import available_cores

MODEL, SIDE = ("eat_nano", 96) if TINY else ("eat_base", 224)
BATCH = 2 if TINY else 128
# What ``models`` measures: names; passes; batch sizes by precision, of which the fastest counts;
# precisions of compiled models, at BATCH; rounds; seconds after which no more is compiled.
NAMES = ["eat_nano"] if TINY else ["eat_base", "eat_base_released"]
KINDS = ["forward"] if TINY else ["train", "forward"]
BATCHES = {"fp32": [64, 128], "bf16": [128, 256], "fp16": [128, 256]}
COMPILED_IN, ROUNDS, PATIENCE = ["bf16", "fp16", "fp32"], 3, 180
if TINY:
    BATCHES, COMPILED_IN, ROUNDS = {"fp32": [1], "bf16": [1]}, [], 1
AIMS = {"train": (3.0, 1.1, 0.4), "forward": (None, None, 0.5)}  # as the rows of ``aims``


def peak() -> list[Row]:
    """Matrix products in TFLOP/s, copies in GB/s, and milliseconds of an empty call."""
    side, rows = 256 if TINY else 8192, []
    for name in ("float32", "bfloat16") if TINY else ("float32", "bfloat16", "float16"):
        rate = 2 * matrix_peak(DEVICE, side, getattr(torch, name)) / 1e12
        rows.append({"what": f"{name} products", "tflops": rate})
    a = torch.empty(side * side * 16, dtype=torch.uint8, device=DEVICE)
    b = torch.empty_like(a)
    rows.append({"what": "copies", "gb_per_second": 2 * a.numel() / seconds(b.copy_, a) / 1e9})
    x = torch.zeros(1, device=DEVICE)
    rows.append({"what": "a call", "milliseconds": 1000 * seconds(x.add_, 1)})
    return told(rows)


def models() -> list[Row]:
    """Ours, the plain formulation and Swin, by the classes of scripts/benchmark_model.py.

    Eager models are measured while the others compile in bf16. The rows so far are written after
    these, and after each precision of the compiled ones.
    """
    start = time.perf_counter()
    # What compiles leaves cores to what is measured.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(max(1, available_cores() // 5)))
    products = matrix_peak(DEVICE, 256 if TINY else 8192)
    bench = Bench(
        Namespace(models=NAMES, compile=COMPILED_IN, alike=False, device=DEVICE.type, size=224)
    )
    compiled = [name for name in bench.pipes if name.endswith(COMPILED)]
    best: dict[str, dict] = {kind: {} for kind in KINDS}
    rows: list[Row] = []

    def measure(names: list[str], kind: str, dtype: str, batches: list[int]) -> None:
        best[kind] |= bench.measure(kind, [(name, dtype) for name in names], batches, ROUNDS)

    def begin(dtype: str) -> None:  # answered later
        for kind, name in product(KINDS, compiled):
            bench.pipes[name].send(("turn", kind, dtype, BATCH))

    if COMPILED_IN:
        begin(COMPILED_IN[0])
    for kind in KINDS:
        for dtype, batches in BATCHES.items():
            # The plain formulation is the baseline of fp32 and bf16.
            names = [name for name in bench.pipes if dtype != "fp16" or not name.startswith(PLAIN)]
            measure([name for name in names if name not in compiled], kind, dtype, batches)
    for dtype in ["", *COMPILED_IN]:  # first what there is without compiled ones
        if dtype in COMPILED_IN[1:]:
            if time.perf_counter() - start > PATIENCE:
                print(f"no time is left to compile in {dtype}")
                break
            begin(dtype)
        if dtype:
            for _, name in product(KINDS, compiled):
                bench.ask(name)
            for kind in KINDS:
                measure(compiled, kind, dtype, [BATCH])
        print(
            f"\n{'':51}{'batch':>6}{'images/s':>10}{'x plain':>9}{'x Swin':>8}{'of peak':>8}  GiB"
        )
        rows = [row for kind in KINDS for row in bench.report(kind, best[kind], products)]
        rows += told(aims(rows))
        write(rows)
    return rows


def aims(rows: list[Row]) -> list[Row]:
    """What our compiled models reach in bf16, beside the aims.

    They are: times the plain formulation in fp32, times Swin compiled alike, and the share of the
    matrix-product peak.
    """
    rates = {
        (row["kind"], row["model"], row["precision"]): row["images_per_second"] for row in rows
    }
    found: list[Row] = []
    for row in rows:
        kind, name = row["kind"], row["model"].removesuffix(COMPILED)
        if row["precision"] != "bf16" or row["model"] == name or name == PEER:
            continue
        # 0 where memory ran out.
        plain, swin = (
            rates[kind, other, dtype] or math.nan
            for other, dtype in ((PLAIN + name, "fp32"), (PEER + COMPILED, "bf16"))
        )
        own, reached = row["images_per_second"], {"of peak": row["of_peak"]}
        reached = {"x plain fp32": own / plain, "x Swin compiled": own / swin} | reached
        for (what, value), aim in zip(reached.items(), AIMS[kind], strict=True):
            found.append({"kind": kind, "model": name, "what": what, "found": value, "aim": aim})
    return found


def profile() -> list[Row]:
    """Where two training steps in bf16 go, eager and compiled."""
    rows, kinds = [], ("",) if TINY else ("", COMPILED)
    for kind in kinds:
        runner = Runner(MODEL + kind, Namespace(alike=False, device=DEVICE.type, size=SIDE))
        taken, memory = runner.turn("train", "bf16", BATCH)
        print(f"{MODEL}{kind}, bf16, batch {BATCH}, {taken:.4f} s a step")
        print(runner.spent("bf16", BATCH))
        rows.append({"model": MODEL + kind, "seconds": taken, "gib": memory / 2**30})
        del runner
    return told(rows)


def photos(count: int) -> list[Path]:
    """Drawn JPEGs of 640 x 360, in all cores' time."""
    from benchmark_input import draw_photos

    folder = SCRATCH / "photos"
    folder.mkdir(exist_ok=True)
    drawn = sorted(folder.iterdir())
    return drawn[:count] if len(drawn) >= count else draw_photos(folder, count, 640, 360)


def loader() -> list[Row]:
    """Images/s that the loader hands to the device, by decoder and number of processes."""
    import pandas as pd

    from eat.data.loading import TrainBatches, loaded, make_loader
    from eat.data.transforms import Preprocessing

    files = [str(file) for file in photos(8 if TINY else 200)]
    names = files * (1 if TINY else 40)
    table, target = pd.DataFrame({"image": names}), torch.zeros(len(names), 10)
    rows = []
    for decode in ("fast", "exact"):
        for workers in (0,) if TINY else (available_cores(), available_cores() // 2):
            batches = TrainBatches(len(names), 4 if TINY else BATCH, seed=0)
            pixels = Preprocessing(SIDE, decode=decode)
            given = make_loader(table, "", target, pixels, batches, workers, training=True)
            taken: list[float] = []
            start = time.perf_counter()
            for batch in loaded(given):
                pixels.normalise(batch["pixels"].to(DEVICE, non_blocking=True))
                taken.append(time.perf_counter() - start)
            finish()
            first = len(taken) // 4  # while processes start
            count = (len(taken) - 1 - first) * batches.batch_size
            rate = count / (taken[-1] - taken[first]) if count > 0 else float("nan")
            rows.append({"decode": decode, "workers": workers, "images_per_second": rate})
    return told(rows)


def nvjpeg() -> list[Row]:
    """Images/s from encoded bytes to pixels on the device: nvJPEG, and threads on the CPU."""
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms.v2.functional import resize

    from eat.data.transforms import Preprocessing

    files = photos(8 if TINY else 200)
    encoded = [torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8) for file in files]
    pixels, size, batch = Preprocessing(SIDE, decode="fast"), [SIDE, SIDE], 4 if TINY else 64
    groups = [slice(i, i + batch) for i in range(0, len(files), batch)]

    def on_device(group: slice) -> torch.Tensor:
        decoded = decode_jpeg(encoded[group], mode=ImageReadMode.RGB, device=DEVICE)
        return torch.stack([resize(image, size, antialias=True) for image in decoded])

    def whole(way: Callable[[slice], torch.Tensor]) -> None:
        for group in groups:
            way(group)

    with ThreadPoolExecutor(available_cores()) as pool:

        def on_cpu(group: slice) -> torch.Tensor:
            return torch.stack(list(pool.map(pixels.evaluation, files[group]))).to(DEVICE)

        rows: list[Row] = []
        for name, way in {f"{available_cores()} threads": on_cpu, "nvJPEG": on_device}.items():
            rate = len(files) / seconds(whole, way, repeats=5)
            rows += told([{"way": name, "images_per_second": rate}])
            write(rows)
        apart = (on_device(groups[0]).float() - on_cpu(groups[0]).float()).abs()
    pixels_apart = {"mean": apart.mean().item(), "most": apart.max().item()}
    return rows + told([{"way": "difference of 255"} | pixels_apart])


def many_photos() -> tuple[Path, int, Path]:
    """A folder of 10,000 JPEGs, how many they are, and a checkpoint of random weights."""
    from eat.checkpoint import CheckpointInfo, ModelSpec, save_checkpoint
    from eat.data.registry import DATASETS
    from eat.data.transforms import Preprocessing

    folder, checkpoint = SCRATCH / "many", SCRATCH / "random.safetensors"
    drawn, total = photos(8 if TINY else 200), 16 if TINY else 10_000
    folder.mkdir(exist_ok=True)
    for i in range(total):
        shutil.copy(drawn[i % len(drawn)], folder / f"{i:05}.jpg")
    spec, data = ModelSpec(MODEL, 10, (SIDE, SIDE)), DATASETS["ava"]
    pixels = Preprocessing(SIDE, decode="fast")
    info = CheckpointInfo(spec, data.name, data.title, data.scale, pixels)
    save_checkpoint(checkpoint, spec.build(), info)
    return folder, total, checkpoint


def score() -> list[Row]:
    """Photographs/s of ``eat score`` by batch size, and its share of what the model alone does."""
    from eat.scoring.scorer import Scorer

    folder, total, checkpoint = many_photos()
    kinds: list[tuple[Any, int]] = [("bf16", 16), ("bf16", 64), ("bf16", 256), ("fp32", 64)]
    rows: list[Row] = []
    for kind, batch in kinds[:1] if TINY else kinds:
        scorer = Scorer(checkpoint, device=DEVICE.type, precision=kind, batch_size=batch)
        images = torch.randn(batch, 3, SIDE, SIDE, device=DEVICE)
        with torch.inference_mode(), precision(kind):
            alone = batch / seconds(scorer.model, images)
        list(scorer(photos(8)[:2]))
        start = time.perf_counter()
        scores = list(scorer([folder]))
        rate = len(scores) / (time.perf_counter() - start)
        assert len(scores) == total and not any(score.error for score in scores)
        row = {"precision": kind, "batch": batch, "photographs_per_second": rate}
        rows.append(row | {"model_alone": alone, "share": rate / alone})
        write(rows)
    return told(rows)


def bulk() -> list[Row]:
    """Photographs/s of ``eat score --engine ray`` with one process that runs the model."""
    from eat.bulk.engine import score_in_bulk
    from eat.config.commands import ScoreOptions

    folder, total, checkpoint = many_photos()
    options = ScoreOptions(
        checkpoint=str(checkpoint),
        engine="ray",
        out=str(SCRATCH / "scores"),
        device=DEVICE.type,
        precision="bf16",
        batch_size=2 if TINY else 64,
        actors=1,
        shard_size=8 if TINY else 500,
    )
    start = time.perf_counter()
    tally = score_in_bulk([str(folder)], options)
    taken = time.perf_counter() - start
    assert tally.done.images == total and not tally.failed, tally.failed
    share = tally.worked / (tally.worked + tally.waited)
    return told([{"photographs_per_second": total / taken, "model_at_work": share}])


STEPS = gpu_ways.STEPS | {
    step.__name__: step for step in (peak, models, profile, loader, nvjpeg, score, bulk)
}

if __name__ == "__main__":
    main(STEPS)
