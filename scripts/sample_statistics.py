"""How well statistics of colour and contrast alone predict what the votes of a sample depend on.

    python scripts/sample_statistics.py data/background

A ridge regression from the training images to the test images, of each term: on statistics of
colour and contrast (and their squares), and with those of edges across and down besides.
"""

import sys
from pathlib import Path

import numpy as np

from eat.cli.errors import guarded
from eat.data.decoding import read_image
from eat.data.labels.fields import read_csv
from eat.data.labels.table import LabelError
from eat.evaluation.metrics import srcc

TERMS = ("foreground", "background", "expected_score")
PENALTIES = (1.0, 10.0, 100.0, 1000.0)


def statistics(path: Path) -> tuple[list[float], list[float]]:
    """Of colour and contrast, and of edges, of one image at 96 pixels a side."""
    image = read_image(path, upright=False).resize((96, 96))
    rgb, hsv = (np.asarray(image.convert(mode), float) / 255 for mode in ("RGB", "HSV"))
    light = rgb @ (0.3, 0.59, 0.11)
    opponents = [rgb[..., 0] - rgb[..., 1], (rgb[..., 0] + rgb[..., 1]) / 2 - rgb[..., 2]]
    colours: list[float] = []
    for channel in (*np.moveaxis(rgb, -1, 0), *np.moveaxis(hsv, -1, 0), light, *opponents):
        mean, deviation = channel.mean(), channel.std() + 1e-9
        skew = (((channel - mean) / deviation) ** 3).mean()
        colours += [mean, deviation, skew, *np.percentile(channel, (5, 25, 50, 75, 95))]
    down, across = np.gradient(light)
    edges = np.hypot(down, across)
    return colours, [edges.mean(), edges.std(), np.abs(down).mean(), np.abs(across).mean()]


def predict(features: np.ndarray, target: np.ndarray, train: np.ndarray, penalty: float) -> float:
    """SRCC on the images that are not for training of a ridge regression on those that are."""
    x = (features - features.mean(0)) / (features.std(0) + 1e-9)
    x = np.hstack([x, x**2])
    x = x - x[train].mean(0)
    centred = target[train] - target[train].mean()
    weights = np.linalg.solve(
        x[train].T @ x[train] + penalty * np.eye(x.shape[1]), x[train].T @ centred
    )
    return srcc(x[~train] @ weights, target[~train])


def main(folder: Path) -> int:
    file = read_csv(folder / "factors.csv")
    train = (file.text(file.column("split")) == "train").to_numpy()
    if train.all() or not train.any():
        raise LabelError(f"{file.path}: expected images of the train split and of another one")
    targets = {term: file.numbers(file.column(term)).to_numpy() for term in TERMS}
    rows = [statistics(folder / "images" / name) for name in file.text(file.column("image"))]
    colours, edges = (np.array(part) for part in zip(*rows, strict=True))
    for name, features in (("colour", colours), ("and edges", np.hstack([colours, edges]))):
        for term, target in targets.items():
            best = max(predict(features, target, train, penalty) for penalty in PENALTIES)
            print(f"{name:10} {term:15} SRCC {best:+.3f} (of {len(PENALTIES)} penalties the best)")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1], "factors.csv").is_file():
        sys.exit(f"expected the folder of a sample, with factors.csv\n\n{__doc__}")
    sys.exit(guarded(lambda: main(Path(sys.argv[1])), Path(sys.argv[0]).name))
