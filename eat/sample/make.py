"""A made-up data set in AVA's layout: drawn photographs with simulated votes.

It lets training, evaluation and personal models be tried in minutes without a download.
What makes a score is known: half of it is the foreground subject, half the background, so that a
model which looks at only one of them cannot score well. Scores measured on it say that the code
works and nothing about real photographs.
"""

import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from eat.sample.arrangement import draw_arranged, paint_arranged
from eat.sample.scenes import (
    MOODS,
    SCENES,
    Factors,
    Paint,
    draw_factors,
    draw_layers,
    draw_scene,
    paint_background,
)
from eat.system.files import json_object
from eat.system.processes import lives

VERSION = 1  # raise it when the same settings give other files
SPLITS = {"train": 0, "test": 1}
FIRST_ID = {"train": 100_000, "test": 500_000}  # apart, so that more images rename none
MOST_IMAGES = FIRST_ID["test"] - FIRST_ID["train"]
FILES = ("AVA.txt", "tags.txt", "challenges.txt", "generic_test.jpgl", "factors.csv")
TAGS = {name: number for number, name in enumerate(SCENES, start=1)}
CHALLENGES = {name: number for number, name in enumerate(MOODS, start=1)}
RATER_SD = 1.4
EVEN_TASTE = 0.5  # the subject's share in a sample's votes; the background has the rest
TEST_RATINGS = 150  # images rated by a test worker: 100 to learn from and 50 to test on
# mean and standard deviation, over images, of the factors that workers have tastes for
TASTES = {
    "foreground": (0.50, 0.21),
    "background": (0.50, 0.21),
    "colourfulness": (0.15, 0.07),
    "brightness": (0.52, 0.17),
}


Settings = dict[str, Any]  # of a sample or its workers, as its JSON file has them


def make_sample(
    folder: str | Path,
    *,
    train: int = 1600,
    test: int = 400,
    size: int = 160,
    seed: int = 0,
    task: str = "photos",
    taste: float = EVEN_TASTE,
    overwrite: bool = False,
) -> Path:
    """Write a sample data set in AVA's layout and return its folder.

    Image i of a split depends on (seed, split, i) alone: a larger sample begins with the images of
    a smaller one. The folder appears only once it is complete.

    The options are those of :class:`eat.config.commands.SampleOptions`.

    Returns:
        `folder` as a path. A complete sample with the same settings is left as it is. It holds
        ``AVA.txt`` (index, image id, votes for 1..10, two tags, challenge), ``tags.txt``,
        ``challenges.txt``, ``generic_test.jpgl`` (test ids), ``images/ID.jpg``, ``factors.csv``
        (per image: the terms and factors in 0..1 that made it, and the expected score) and
        ``sample.json`` (the settings).

    Raises:
        ValueError: a number is out of range, or there is no such task.
        FileExistsError: `folder` holds something else. Only an empty folder, or one of a sample
            and nothing else, is ever replaced.
    """
    if not (1 <= train <= MOST_IMAGES and 1 <= test <= MOST_IMAGES):
        raise ValueError(f"train and test must be 1..{MOST_IMAGES}, got {train} and {test}")
    if not 32 <= size <= 4096 or seed < 0:
        raise ValueError(f"size must be 32..4096 and seed at least 0, got {size} and {seed}")
    if not 0 <= taste <= 1:
        raise ValueError(f"taste is {taste}: expected 0 to 1")
    if task not in TASKS:
        raise ValueError(f"task is {task!r}: expected one of {', '.join(TASKS)}")
    folder = Path(folder)
    settings: Settings = {"version": VERSION, "train": train, "test": test}
    settings |= {"size": size, "seed": seed} | ({} if task == "photos" else {"task": task})
    settings |= {} if taste == EVEN_TASTE else {"taste": taste}
    if _is_complete(folder, settings):
        return folder
    _check_replaceable(folder, overwrite)
    with _appear(folder) as partial_folder:
        _write_sample(partial_folder, settings)
        if not _is_complete(folder, settings):  # another process may have made one meanwhile
            _check_replaceable(folder, overwrite)
    return folder


def make_workers(
    folder: str | Path,
    *,
    workers: int = 30,
    test_workers: int = 8,
    ratings: int = 60,
    seed: int = 0,
) -> Path:
    """Add personal ratings in FLICKR-AES's layout to a sample and return their folder.

    Every worker weighs foreground, background, colourfulness and brightness in an own way, some
    negatively, so that one model for all cannot please each of them. Their mean has the taste of
    the sample.

    Args:
        folder: a sample made by :func:`make_sample`.
        workers: workers who rate training images.
        test_workers: workers who rate test images.
        ratings: images per worker; a test worker rates at least 150.
        seed: of tastes and ratings.

    Returns:
        ``folder/flickr_aes``, left as it is if it was made with the same settings. It holds
        ``FLICKR-AES_image_labeled_by_each_worker.csv`` (ratings 1..5),
        ``FLICKR-AES_image_score.txt`` (per image the mean, in 0..1, of what all workers of its
        split would rate, which the CSV shows in part), ``test_workers_ID.csv``, ``tastes.csv``
        (worker and weights) and ``workers.json`` (the settings).

    Raises:
        FileNotFoundError: `folder` is no sample.
        FileExistsError: there are ratings made with other settings.
        ValueError: a number is out of range, or the sample has fewer images than a worker rates.
    """
    if min(workers, test_workers, ratings) < 1 or seed < 0:
        raise ValueError("workers, test_workers and ratings must be at least 1, seed at least 0")
    folder = Path(folder)
    if not (folder / "sample.json").is_file():
        raise FileNotFoundError(f"{folder} is no sample: sample.json is missing")
    target = folder / "flickr_aes"
    settings: Settings = {"version": VERSION, "workers": workers, "test_workers": test_workers}
    settings |= {"ratings": ratings, "seed": seed}
    if target.exists():
        if _read_json(target / "workers.json") == settings:
            return target
        raise FileExistsError(f"{target} exists with other settings: delete it or use those")
    factors = _read_factors(folder / "factors.csv")
    split_ratings = {"train": ratings, "test": max(ratings, TEST_RATINGS)}
    for split, count in split_ratings.items():
        present = int((factors["split"] == split).sum())
        if present < count:
            raise ValueError(f"a {split} worker rates {count} images, the sample has {present}")
    with _appear(target) as partial_folder:
        taste = json_object((folder / "sample.json").read_text()).get("taste", EVEN_TASTE)
        _write_workers(partial_folder, factors, settings, split_ratings, taste)
    return target


def _read_factors(path: Path) -> pd.DataFrame:
    """The factors of a sample's images, of which workers' tastes make ratings."""
    columns = ["image", "split", *TASTES]
    try:
        factors = pd.read_csv(path, dtype=dict.fromkeys(TASTES, float))
        if missing := {*columns} - {*factors}:
            raise ValueError(f"no column {min(missing)}")
        if factors[columns].isna().any(axis=None):
            raise ValueError("not all values are there")
    except ValueError as error:
        raise ValueError(f"{path}: {error}; make the sample anew") from error
    return factors


def _read_json(path: Path) -> object:
    try:
        return json_object(path.read_text())
    except (OSError, ValueError):
        return None


def _is_complete(folder: Path, settings: Settings) -> bool:
    if _read_json(folder / "sample.json") != settings:
        return False
    if not all((folder / name).is_file() for name in FILES):
        return False
    have = {path.stem for path in (folder / "images").glob("*.jpg")}
    return have >= {str(FIRST_ID[split] + i) for split in SPLITS for i in range(settings[split])}


def _check_replaceable(folder: Path, overwrite: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / "sample.json").is_file():
        raise FileExistsError(f"{folder} exists and is no sample: choose another folder")
    if not overwrite:
        raise FileExistsError(
            f"{folder} holds a sample with other settings or with files missing: "
            "pass overwrite=True (--overwrite true) to replace it, or choose another folder"
        )
    own = {"sample.json", "images", "flickr_aes", *FILES}
    foreign = {path for path in folder.iterdir() if path.name not in own}
    foreign |= {p for p in folder.glob("images/*") if not re.fullmatch(r"\d+\.jpg", p.name)}
    if foreign:
        raise FileExistsError(
            f"{min(foreign)} is no part of a sample, and overwriting would delete it: move it away"
        )


@contextmanager
def _appear(folder: Path) -> Iterator[Path]:
    """Yield a hidden sibling that becomes `folder` at the end, or vanishes on any exception."""
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    fresh = folder.parent / f".{folder.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.partial"
    stale = fresh.with_suffix(".old")
    fresh.mkdir()
    try:
        yield fresh
        if folder.exists():
            folder.rename(stale)
        try:
            fresh.rename(folder)
        except BaseException:
            if stale.exists():
                stale.rename(folder)
            raise
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    shutil.rmtree(stale, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what processes that were killed left beside `folder`."""
    left = re.compile(rf"\.{re.escape(folder.name)}\.(\d+)-[0-9a-f]+\.(partial|old)")
    for path in folder.parent.iterdir():
        match = left.fullmatch(path.name)
        if match and os.name == "posix" and not lives(int(match[1])):
            shutil.rmtree(path, ignore_errors=True)


def expected_score(factors: Factors, taste: float = EVEN_TASTE) -> float:
    """Mean score in 2.5..8.5 that raters of an image tend to.

    At a taste of 0.5 foreground and background weigh the same; a good subject gains more on a good
    background.
    """
    front, back = factors.foreground - 0.5, factors.background - 0.5
    merits = 0.84 * taste * front + 0.84 * (1 - taste) * back
    quality = merits + 0.16 * (factors.technical - 0.5) + 0.3 * front * back
    return float(np.clip(5.5 + 7.5 * quality, 2.5, 8.5))


def expected_score_of_both(factors: Factors, taste: float = EVEN_TASTE) -> float:
    """Mean score in 2.5..8.5: the foreground's merit, by its taste, and the background's."""
    return 2.5 + 6 * taste * factors.foreground + 6 * (1 - taste) * factors.background


@dataclass(frozen=True)
class Task:
    """A kind of sample: what its images show, and what raters make of it."""

    draw: Callable[[np.random.Generator], Factors]
    paint: Paint
    score: Callable[[Factors, float], float]


TASKS = {
    "photos": Task(draw_factors, paint_background, expected_score),
    "background": Task(draw_arranged, paint_arranged, expected_score_of_both),
}


def _begin(image_id: int, settings: Settings) -> tuple[Task, np.random.Generator, Factors]:
    """An image's task, its stream of random numbers, and the factors that come first in it."""
    split = "test" if image_id >= FIRST_ID["test"] else "train"
    rng = np.random.default_rng([settings["seed"], SPLITS[split], image_id - FIRST_ID[split]])
    task = TASKS[settings.get("task", "photos")]
    return task, rng, task.draw(rng)


def task_of(folder: str | Path) -> str | None:
    """The task of a sample; None where there is no sample."""
    settings = _read_json(Path(folder) / "sample.json")
    return settings.get("task", "photos") if isinstance(settings, dict) else None


def background_masks(folder: str | Path, images: Sequence[str], side: int) -> np.ndarray:
    """How much of each pixel is background: (N, side, side) in 0..1, for ``ID.jpg`` of a sample.

    Images are drawn again from their seeds, and resized to a square as models see them.

    Raises:
        FileNotFoundError: `folder` is no sample.
    """
    settings = _read_json(Path(folder) / "sample.json")
    if not isinstance(settings, dict):
        raise FileNotFoundError(f"{folder} is no sample: sample.json is missing")
    masks = np.empty((len(images), side, side), np.float32)
    for mask, name in zip(masks, images, strict=True):
        task, rng, factors = _begin(int(Path(name).stem), settings)
        _, opacity = draw_layers(factors, rng, settings["size"], task.paint)
        shown = Image.fromarray(1 - opacity).resize((side, side), Image.Resampling.BOX)
        mask[:] = np.asarray(shown)
    return masks


def _simulate_votes(score: float, rng: np.random.Generator) -> np.ndarray:
    """Counts (10,) of the votes 1..10 of 150..250 raters."""
    raters = rng.normal(score, RATER_SD * rng.uniform(0.85, 1.15), rng.integers(150, 251))
    return np.bincount(np.clip(np.rint(raters), 1, 10).astype(int), minlength=11)[1:]


def colourfulness(image: np.ndarray) -> float:
    """Colourfulness of a uint8 image (H, W, 3) after Hasler and Suesstrunk, over 255; 0..1."""
    red, green, blue = np.moveaxis(image.astype(np.float32) / 255, -1, 0)
    opponents = np.stack([red - green, (red + green) / 2 - blue])
    spread, shift = opponents.std((1, 2)), opponents.mean((1, 2))
    return float(min(np.hypot(*spread) + 0.3 * np.hypot(*shift), 1))


def _make_image(
    job: tuple[str, int], *, images: Path, settings: Settings
) -> tuple[dict[str, object], list[int]]:
    """Write one image; return its row of factors.csv and its row of AVA.txt without the index."""
    split, index = job
    image_id = FIRST_ID[split] + index
    task, rng, factors = _begin(image_id, settings)
    image = draw_scene(factors, rng, settings["size"], task.paint)
    content = BytesIO()  # PIL does not notice that the disk is full
    image.save(content, "JPEG", quality=92)
    (images / f"{image_id}.jpg").write_bytes(content.getvalue())
    score = task.score(factors, settings.get("taste", EVEN_TASTE))
    votes = _simulate_votes(score, rng)
    tag = TAGS[factors.scene] if rng.uniform() < 0.85 else 0  # AVA has untagged images too
    second = TAGS["Sky"] if tag and factors.scene == "Landscape" and rng.uniform() < 0.5 else 0
    pixels = np.asarray(image)
    row = {"image": f"{image_id}.jpg", "split": split, "expected_score": score}
    row |= {name: getattr(factors, name) for name in ("foreground", "background", "technical")}
    row |= {"colourfulness": colourfulness(pixels), "brightness": float(pixels.mean() / 255)}
    row |= factors.values
    row |= {"scene": factors.scene, "subject": factors.subject, "mood": factors.mood}
    return row, [image_id, *votes.tolist(), tag, second, CHALLENGES[factors.mood]]


def _write_sample(folder: Path, settings: Settings) -> None:
    images = folder / "images"
    images.mkdir()
    jobs = [(split, index) for split in SPLITS for index in range(settings[split])]
    make = partial(_make_image, images=images, settings=settings)
    with ThreadPoolExecutor(2) as pool:
        try:
            results = list(pool.map(make, jobs))
        except BaseException:
            # without this an interrupted run would draw all that is left before it stops
            pool.shutdown(cancel_futures=True)
            raise
    rows, lines = zip(*results, strict=True)
    ava = [" ".join(map(str, [index, *line])) for index, line in enumerate(lines, start=1)]
    tests = [str(FIRST_ID["test"] + index) for index in range(settings["test"])]
    _write_lines(folder / "AVA.txt", ava)
    _write_lines(folder / "generic_test.jpgl", tests)
    _write_lines(folder / "tags.txt", [f"{number} {name}" for name, number in TAGS.items()])
    _write_lines(folder / "challenges.txt", [f"{k} {name}" for name, k in CHALLENGES.items()])
    pd.DataFrame(rows).to_csv(folder / "factors.csv", index=False, float_format="%.5f")
    (folder / "sample.json").write_text(json.dumps(settings, indent=2) + "\n")


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


def _rate(table: pd.DataFrame, weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Ratings 1..5 that a worker with these weights would give to every row of `table`."""
    centre, spread = np.array(list(TASTES.values())).T
    liking = (table[list(TASTES)].to_numpy() - centre) / spread @ weights
    opinion = 3.0 + rng.normal(0, 0.3) + 1.1 * liking + rng.normal(0, 0.4, len(table))
    return np.clip(np.rint(opinion), 1, 5).astype(int)


def _write_workers(
    folder: Path,
    factors: pd.DataFrame,
    settings: Settings,
    ratings: dict[str, int],
    taste: float,
) -> None:
    usual = 0.9 * taste, 0.9 * (1 - taste), 0.0, 0.0
    labels, scores, tastes, test_ids = [], [], [], []
    for split, people in (("train", settings["workers"]), ("test", settings["test_workers"])):
        table = factors[factors["split"] == split].reset_index(drop=True)
        panel = np.zeros(len(table))
        for person in range(people):
            rng = np.random.default_rng([settings["seed"], 2 + SPLITS[split], person])
            worker = f"{'B' if split == 'test' else 'A'}{person + 1:03d}"
            # quality counts on average, and taste varies
            weights = rng.normal(usual, 0.6)
            weights /= np.linalg.norm(weights)
            given = _rate(table, weights, rng)
            panel += given
            seen = np.sort(rng.choice(len(table), ratings[split], replace=False))
            labels += [f"{worker},{table['image'][index]},{given[index]}" for index in seen]
            tastes.append((worker, *weights))
            if split == "test":
                test_ids.append(worker)
        means = (panel / people - 1) / 4
        scores += [f"{name} {mean:.4f}" for name, mean in zip(table["image"], means, strict=True)]
    # the original's header has blanks after its commas and before its first name
    labels = [" worker, imagePair, score", *labels]
    _write_lines(folder / "FLICKR-AES_image_labeled_by_each_worker.csv", labels)
    _write_lines(folder / "FLICKR-AES_image_score.txt", scores)
    _write_lines(folder / "test_workers_ID.csv", ["ID", *test_ids])
    taste_table = pd.DataFrame(tastes, columns=["worker", *TASTES])
    taste_table.to_csv(folder / "tastes.csv", index=False, float_format="%.5f")
    (folder / "workers.json").write_text(json.dumps(settings, indent=2) + "\n")
