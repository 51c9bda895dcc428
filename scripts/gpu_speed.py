"""Steps of ``gpu.sh speed``: matrix products, models, where a step goes, input, scoring."""

import json
import shutil
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from benchmark_model import COMPILED, Runner, matrix_peak
from gpu_step import DEVICE, OUT, SCRATCH, TINY, finish, main, precision

from eat.models import kernels
from eat.system.cores import available_cores

MODEL, SIDE = ("eat_nano", 96) if TINY else ("eat_base", 224)
BATCH = 2 if TINY else 128
Row = dict[str, Any]


def seconds(function: Callable[..., Any], *args: Any, repeats: int = 20) -> float:
    """Of a call, the median after a few."""
    times = []
    for _ in range(2 if TINY else repeats + 3):
        finish()
        start = time.perf_counter()
        function(*args)
        finish()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1 if TINY else 3 :])


def told(rows: list[Row]) -> list[Row]:
    """The rows, printed."""
    for row in rows:
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{v}" for k, v in row.items()))
    return rows


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
    """scripts/benchmark_model.py: ours, the plain formulation and Swin."""
    file = SCRATCH / "benchmark.json"
    given = ["--json", str(file), "--device", DEVICE.type, "--models"]
    if TINY:
        given += [
            "eat_nano",
            "--size",
            "224",
            "--batch",
            "1",
            "--rounds",
            "1",
            "--peak-side",
            "256",
        ]
        given += ["--kinds", "forward"]
    else:
        given += ["eat_base", "eat_base_released", "--batch", "128", "64", "256", "--rounds", "3"]
        given += ["--precisions", "bf16", "fp32", "fp16", "--compile", "bf16", "fp16"]
    script = Path(__file__).parent / "benchmark_model.py"
    subprocess.run([sys.executable, str(script), *given], check=True)

    rows: list[Row] = json.loads(file.read_text())
    return rows


def profile() -> list[Row]:
    """Where two training steps in bf16 go, eager and compiled, in profile.txt."""
    rows, kinds = [], ("",) if TINY else ("", COMPILED)
    with (OUT / "profile.txt").open("w") as file:
        for kind in kinds:
            args = Namespace(alike=False, device=DEVICE.type, size=SIDE)
            runner = Runner(MODEL + kind, args)
            taken, memory = runner.turn("train", "bf16", BATCH)
            table = runner.spent("bf16", BATCH)
            file.write(f"{MODEL}{kind}, bf16, batch {BATCH}, {taken:.4f} s a step\n\n{table}\n\n")
            print(table)
            rows.append({"model": MODEL + kind, "seconds": taken, "gib": memory / 2**30})
            del runner
    return told(rows)


def there_and_back(
    way: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    maps: torch.Tensor,
    grid: torch.Tensor,
) -> None:
    """A sampling forward and backward."""
    way(maps, grid).sum().backward()


def sampling() -> list[Row]:
    """Milliseconds forward and backward of ways to sample a block's features and bias (stage 3)."""
    images, groups = (2, 2) if TINY else (BATCH, 4)
    ways: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
        "PyTorch's kernel": kernels.grid_sample,
        "F.grid_sample": lambda maps, grid: F.grid_sample(maps, grid, align_corners=True),
    }
    ways |= {f"{name}, compiled": torch.compile(way) for name, way in ways.items() if not TINY}
    shapes = {  # channels, sides of the map, sides of the grid
        "features": (128, 14, 14, 1, 49),
        "bias": (4, 27, 27, 196, 49),
    }
    rows = []
    for what, (channels, height, width, rows_out, points) in shapes.items():
        maps = torch.randn(images * groups, height, width, channels, device=DEVICE)
        grid = 1.8 * torch.rand(images * groups, rows_out, points, 2, device=DEVICE) - 0.9
        for innermost in (True, False):
            laid = maps.permute(0, 3, 1, 2)
            laid = (laid if innermost else laid.contiguous()).detach().requires_grad_()
            places = grid.clone().requires_grad_()
            for name, way in ways.items():
                row: Row = {"what": what, "channels_innermost": innermost, "way": name}
                try:
                    row["milliseconds"] = 1000 * seconds(there_and_back, way, laid, places)
                except RuntimeError as error:
                    row["error"] = str(error)[:200]
                rows.append(row)
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

        ways = {"nvJPEG": on_device, f"{available_cores()} threads": on_cpu}
        rows: list[Row] = [
            {"way": name, "images_per_second": len(files) / seconds(whole, way, repeats=5)}
            for name, way in ways.items()
        ]
        apart = (on_device(groups[0]).float() - on_cpu(groups[0]).float()).abs()
    rows.append(
        {"way": "difference of 255", "mean": apart.mean().item(), "most": apart.max().item()}
    )
    return told(rows)


def score() -> list[Row]:
    """Photographs/s of ``eat score`` by batch size, and its share of what the model alone does."""
    from eat.checkpoint import CheckpointInfo, ModelSpec, save_checkpoint
    from eat.data.registry import DATASETS
    from eat.data.transforms import Preprocessing
    from eat.scoring.scorer import Scorer

    folder = SCRATCH / "many"
    folder.mkdir(exist_ok=True)
    drawn, total = photos(8 if TINY else 200), 16 if TINY else 10_000
    for i in range(total):
        shutil.copy(drawn[i % len(drawn)], folder / f"{i:05}.jpg")
    spec, data = ModelSpec(MODEL, 10, (SIDE, SIDE)), DATASETS["ava"]
    pixels = Preprocessing(SIDE, decode="fast")
    info = CheckpointInfo(spec, data.name, data.title, data.scale, pixels)
    save_checkpoint(SCRATCH / "random.safetensors", spec.build(), info)
    rows = []
    for kind, batch in (
        [("bf16", 2)] if TINY else [("bf16", 16), ("bf16", 64), ("bf16", 256), ("fp32", 64)]
    ):
        scorer = Scorer(
            SCRATCH / "random.safetensors", device=DEVICE.type, precision=kind, batch_size=batch
        )
        images = torch.randn(batch, 3, SIDE, SIDE, device=DEVICE)
        with torch.inference_mode(), precision(kind):
            alone = batch / seconds(scorer.model, images)
        list(scorer(list(drawn[:2])))
        start = time.perf_counter()
        scores = list(scorer([folder]))
        rate = len(scores) / (time.perf_counter() - start)
        assert len(scores) == total and not any(score.error for score in scores)
        row = {"precision": kind, "batch": batch, "photographs_per_second": rate}
        rows.append(row | {"model_alone": alone, "share": rate / alone})
    return told(rows)


STEPS = {step.__name__: step for step in (peak, models, profile, sampling, loader, nvjpeg, score)}

if __name__ == "__main__":
    main(STEPS)
