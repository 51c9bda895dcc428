"""Speed of the ways from an image file to pixels on one core, beside the released recipe.

    python scripts/benchmark_input.py
    python scripts/benchmark_input.py --images PHOTOS --checkpoint best.safetensors

The ways take turns, so that a machine whose speed drifts slows them all; each figure is the median
over the rounds, of processor time. The released recipe is what the authors' loader does in
training: PIL decodes, resizes (bicubic) and flips, ToTensor and Normalize make floats. Ours stop
at bytes, and the device normalises them. Below the table stand the pixels of the fast path against
those of the exact one and, with a checkpoint, the scores.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import PIL
import simplejpeg
import torch
from PIL import Image
from torchvision import transforms as tv

from eat.checkpoint import load_checkpoint
from eat.data.cache import CachedPixels, make_cache
from eat.data.photos import find_images
from eat.data.scales import to_scores
from eat.data.transforms import Preprocessing
from eat.evaluation.metrics import srcc

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def draw_photos(folder: Path, count: int, width: int, height: int) -> list[Path]:
    """JPEGs of quality 85 with waves, edges and grain, of about a photograph's file size."""
    y, x = np.mgrid[:height, :width]
    files = []
    for i in range(count):
        draw = np.random.default_rng(i)
        waves = [np.sin(x / a + y / b) for a, b in draw.uniform(15, 90, (3, 2))]
        pixels = 127 + 100 * np.stack(waves, axis=2)
        for left, top in draw.uniform(0, 0.8, (6, 2)):
            pixels[int(top * height) :, int(left * width) :] *= draw.uniform(0.7, 1.1, 3)
        pixels += draw.normal(0, 4, pixels.shape)
        files.append(folder / f"{i:03}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(files[-1], quality=85)
    return files


def build_ways(files: list[Path], size: int, folder: Path) -> dict[str, Callable[[Path], object]]:
    """Each way from a file to pixels; the cache is made in ``folder``."""
    bicubic = tv.InterpolationMode.BICUBIC
    resize, flip = tv.Resize((size, size), bicubic), tv.RandomHorizontalFlip()
    recipe = tv.Compose([resize, flip, tv.ToTensor(), tv.Normalize(MEAN, STD)])
    exact, fast = Preprocessing(size), Preprocessing(size, decode="fast")
    names = [str(file) for file in files]
    lengths = [file.stat().st_size for file in files]
    checks = pd.DataFrame({"image": names, "bytes": lengths, "digest": ""})
    make_cache(folder, "", checks, {}, fast)
    cache = CachedPixels(folder, fast, "", names, training=True)
    return {
        "released recipe": lambda file: recipe(Image.open(file).convert("RGB")),
        "exact": lambda file: exact.training(file, 1),
        "fast": lambda file: fast.training(file, 1),
        "cache": lambda file: cache.training(file, 1),
    }


def measure(
    ways: dict[str, Callable[[Path], object]], files: list[Path], rounds: int
) -> dict[str, list[float]]:
    """Images per second of processor time, of each way in each round."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for lap in range(rounds + 1):
        for name, way in ways.items():
            # The cache is so fast that one pass would be too short for the clock.
            repeats = 20 if name == "cache" else 1
            start = time.process_time()
            for _ in range(repeats):
                for file in files:
                    way(file)
            if lap:  # the first round warms up
                rates[name].append(repeats * len(files) / (time.process_time() - start))
    return rates


def report_pixels(files: list[Path], exact: Preprocessing, fast: Preprocessing) -> None:
    """Print how far the fast path's pixels are from the exact ones."""
    differences = [
        (exact.evaluation(file).float() - fast.evaluation(file).float()).abs() for file in files
    ]
    mean = statistics.fmean(d.mean().item() for d in differences)
    most = max(d.max().item() for d in differences)
    print(f"pixels, fast - exact: mean {mean:.4f}, at most {most:.0f} of 255")


@torch.inference_mode()
def report_scores(files: list[Path], checkpoint: str) -> None:
    """Print how far a checkpoint's scores of the fast path are from those of the exact one."""
    model, info = load_checkpoint(checkpoint)
    model.use_own_points()
    scores = {}
    for decode in ("exact", "fast"):
        how = replace(info.preprocessing, decode=decode)
        outputs = [model(how.normalise(how.evaluation(file)[None])).double() for file in files]
        scores[decode] = to_scores(torch.cat(outputs).numpy(), info.scale)
    differences = np.abs(scores["fast"] - scores["exact"])
    print(
        f"scores, fast - exact: mean {differences.mean():.6f}, at most {differences.max():.6f}, "
        f"deviation of the scores {scores['exact'].std():.4f}, "
        f"SRCC of both {srcc(scores['fast'], scores['exact']):.6f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", help="folder of your own; default: drawn JPEGs of 640 x 360")
    parser.add_argument("--width", type=int, default=640, help="of the drawn JPEGs")
    parser.add_argument("--height", type=int, default=360, help="of the drawn JPEGs")
    parser.add_argument("--count", type=int, default=100, help="images at most")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--checkpoint", help="a run's; adds the effect on its scores")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.images:
            files = [file.absolute() for file in find_images([args.images])[: args.count]]
        else:
            files = draw_photos(folder, args.count, args.width, args.height)
        rates = measure(build_ways(files, args.size, folder), files, args.rounds)
        kilobytes = statistics.fmean(file.stat().st_size for file in files) / 1000
        print(
            f"{len(files)} images of {kilobytes:.0f} kB in the mean, to {args.size} pixels; "
            f"Pillow {PIL.__version__}, simplejpeg {simplejpeg.__version__}, "
            f"torch {torch.__version__}, {args.rounds} rounds"
        )
        print(f"{'':18}{'images/s per core':>18}{'x released':>12}")
        for way, found in rates.items():
            pairs = zip(found, rates["released recipe"], strict=True)
            ratio = statistics.median(rate / base for rate, base in pairs)
            print(f"{way:18}{statistics.median(found):18.0f}{ratio:12.2f}")
        report_pixels(files, Preprocessing(args.size), Preprocessing(args.size, decode="fast"))
        if args.checkpoint:
            report_scores(files, args.checkpoint)


if __name__ == "__main__":
    main()
