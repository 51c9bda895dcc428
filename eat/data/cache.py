"""Squeezed images packed into one file, which training and evaluation map into memory.

A cache is a NumPy file, uint8 (N, 3, side, side), so that ``numpy.load`` opens it; after the pixels
follow a JSON description, its length (8 bytes, little-endian) and ``MARK``.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from eat.data.transforms import ImageError, Preprocessing
from eat.system.files import appearing_whole
from eat.system.pool import unordered

MARK = b"EATCACHE"
CHUNK = 64  # images a task
PROBES = 1000  # files whose size is compared when a cache is opened
AGAIN = "make the cache again with eat prepare --cache {side}, or leave data.cache out"


class CacheError(ValueError):
    """A cache that cannot be made or used; the message names the file and what to do."""


@dataclass
class Contents:
    """What a cache says of itself.

    Attributes:
        side: of the squeezed images in pixels.
        interpolation: as in ``Preprocessing``.
        upright: as in ``Preprocessing``.
        decode: as in ``Preprocessing``.
        fingerprint: SHA-256 (hex) of the images' names and bytes.
        images: name of each row's image, relative to the image folder.
        bytes: size of each row's file.
        broken: images that are not in the cache, and why.
    """

    side: int
    interpolation: str
    upright: bool
    decode: str
    fingerprint: str
    images: list[str]
    bytes: list[int]
    broken: dict[str, str] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the pixels."""
        return len(self.images), 3, self.side, self.side

    def differences(self, other: Preprocessing) -> list[str]:
        """In what another preprocessing squeezes otherwise."""
        pairs = ((n, getattr(self, n), getattr(other, n)) for n in SQUEEZE)
        return [f"data.{name} {own}, not {wish}" for name, own, wish in pairs if own != wish]


SQUEEZE = ("interpolation", "upright", "decode")  # what decides the pixels, beside the side


def cache_path(folder: str | Path, side: int) -> Path:
    """Where the cache of a side lies."""
    return Path(folder) / f"cache-{side}.npy"


def make_cache(
    folder: str | Path,
    images: str | Path,
    checks: pd.DataFrame,
    broken: dict[str, str],
    preprocessing: Preprocessing,
    workers: int | None = None,
) -> Contents:
    """Write the cache of the side ``preprocessing.size``, or find that it is there already.

    Args:
        folder: where it goes, as ``cache_path`` says.
        images: image folder.
        checks: of the sound images: columns image, bytes, digest.
        broken: other labelled images, and why they cannot be read.
        preprocessing: how images are squeezed.
        workers: processes; None takes one a core.

    Raises:
        CacheError: there is no sound image, or not enough room on the disk.
        ChildProcessError: a process was killed; no cache was written.
    """
    path, how = cache_path(folder, preprocessing.size), preprocessing
    lines = "\n".join(sorted(checks["digest"] + " " + checks["image"]))
    contents = Contents(
        **{name: getattr(how, name) for name in SQUEEZE},
        side=how.size,
        fingerprint=hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest(),
        images=checks["image"].tolist(),
        bytes=checks["bytes"].tolist(),
        broken=broken,
    )
    if not contents.images:
        raise CacheError(f"{images}: no labelled image can be read, so there is nothing to cache")
    if path.exists():
        try:
            present = read_contents(path)
        except CacheError:  # cut short or of another kind: written anew
            present = None
        if present is not None and _same(present, contents):
            return present
    _check_room(path, contents)
    # A fixed name: what a killed call left is written over.
    with appearing_whole(path, path.with_name(f".{path.name}.partial")) as file:
        _write_pixels(file, contents, images, how, workers)
        text = json.dumps(asdict(contents)).encode()
        file.seek(0, os.SEEK_END)
        file.write(text + len(text).to_bytes(8, "little") + MARK)
    return contents


def _same(one: Contents, other: Contents) -> bool:
    """Whether two caches hold the same pixels. The one present may have found more broken files."""
    alike = all(getattr(one, n) == getattr(other, n) for n in ("side", "fingerprint", *SQUEEZE))
    return alike and other.broken.items() <= one.broken.items()


def _check_room(path: Path, contents: Contents) -> None:
    needed, free = int(np.prod(contents.shape)), shutil.disk_usage(path.parent).free
    if needed > free:
        raise CacheError(
            f"{path}: {len(contents.images)} images of {contents.side} pixels take "
            f"{needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; make room, give another "
            "--out, or a smaller --cache"
        )


def _write_pixels(
    file: BinaryIO, contents: Contents, images: str | Path, how: Preprocessing, workers: int | None
) -> None:
    """Let processes fill their rows of the file; unreadable images are added to ``broken``."""
    header = {"descr": "|u1", "fortran_order": False, "shape": contents.shape}
    np.lib.format.write_array_header_1_0(file, header)
    start, length = file.tell(), int(np.prod(contents.shape))
    file.truncate(start + length)
    if hasattr(os, "posix_fallocate"):  # a disk that fills up meanwhile would kill by SIGBUS
        os.posix_fallocate(file.fileno(), start, length)
    names = contents.images
    tasks = (
        _Task(file.name, start, contents.shape, row, str(images), names[row : row + CHUNK], how)
        for row in range(0, len(names), CHUNK)
    )
    bar = tqdm(total=len(names), desc=f"cache {contents.side}", unit="image", disable=None)
    with bar:
        for count, failed in unordered(_fill, tasks, workers):
            contents.broken |= failed
            bar.update(count)


@dataclass
class _Task:
    """Rows of a cache to fill: those from ``row`` on, one for each name."""

    path: str
    start: int
    shape: tuple[int, int, int, int]
    row: int
    images: str
    names: list[str]
    how: Preprocessing


def _fill(task: _Task) -> tuple[int, dict[str, str]]:
    """Number of images, and those that cannot be read."""
    pixels = np.memmap(task.path, np.uint8, "r+", task.start, task.shape)
    broken = {}
    for row, name in enumerate(task.names, task.row):
        try:
            pixels[row] = task.how.evaluation(Path(task.images, name)).numpy()
        except ImageError as error:
            broken[name] = str(error)
    return len(task.names), broken


def read_contents(path: str | Path) -> Contents:
    """Read what a cache says of itself.

    Raises:
        CacheError: there is none, or it is cut short.
    """
    path = Path(path)
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob("cache-*.npy"))
        found = f"; found {', '.join(there)}" if there else ""
        side = path.stem.removeprefix("cache-")
        raise CacheError(f"{path}: no such cache{found}; make it with eat prepare --cache {side}")
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 16))
        tail = file.read()
        length = int.from_bytes(tail[:8], "little")
        if tail[8:] != MARK or length > end - 16:
            raise CacheError(f"{path}: cut short, or no cache of eat prepare; remove it and "
                             "make it again")  # fmt: skip
        file.seek(end - 16 - length)
        return Contents(**json.loads(file.read(length)))


class CachedPixels:
    """``Preprocessing`` with the squeezed images read from a cache: the same pixels, bit for bit.

    One mapping of the file serves all processes; each opens it for itself, however it was started.

    Args:
        folder: of the cache, as ``eat prepare --cache`` leaves it.
        preprocessing: how a run wants its pixels.
        images: image folder.
        names: the images that will be asked for, relative to it.
        training: take the cache of the side before the random crop.

    Raises:
        CacheError: there is no cache of that side, it was made in another way or of other images,
            or images are not in it.
    """

    def __init__(
        self,
        folder: str | Path,
        preprocessing: Preprocessing,
        images: str | Path,
        names: Iterable[str],
        *,
        training: bool,
    ) -> None:
        self.preprocessing = preprocessing
        self.path = cache_path(folder, preprocessing.side(training=training))
        contents = read_contents(self.path)
        again = AGAIN.format(side=contents.side)
        if differences := contents.differences(preprocessing):
            raise CacheError(f"{self.path}: made with {', '.join(differences)}; {again}")
        rows = {name: row for row, name in enumerate(contents.images)}
        names = list(names)
        absent = [name for name in names if name not in rows and name not in contents.broken]
        if absent:
            raise CacheError(
                f"{self.path}: lacks {len(absent)} of {len(names)} images, such as "
                f"{', '.join(absent[:3])}; {again}"
            )
        sound = [name for name in names if name not in contents.broken]
        for name in sound[:: max(1, len(sound) // PROBES)]:
            _check_source(Path(images, name), contents.bytes[rows[name]], self.path, again)
        self.rows = {Path(images, name).as_posix(): rows[name] for name in sound}
        lost = set(names).intersection(contents.broken)
        self.broken = {Path(images, name).as_posix(): contents.broken[name] for name in lost}
        self._pixels: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """All but the mapping, which another process opens for itself."""
        return vars(self) | {"_pixels": None}

    @property
    def pixels(self) -> Tensor:
        """The whole cache, uint8 (N, 3, side, side), on the mapped file; not to be written to."""
        if self._pixels is None:
            mapped = np.load(self.path, mmap_mode="r")
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The given NumPy array is not writable")
                self._pixels = torch.from_numpy(mapped)
        return self._pixels

    def _squeezed(self, path: str | Path) -> Tensor:
        name = Path(path).as_posix()
        if name in self.broken:
            raise ImageError(f"{path}: not in {self.path}, where it was: {self.broken[name]}")
        return self.pixels[self.rows[name]]

    def evaluation(self, path: str | Path) -> Tensor:
        """As ``Preprocessing.evaluation``: uint8 (3, size, size)."""
        return self._squeezed(path).clone()

    def training(self, path: str | Path, seed: int) -> Tensor:
        """As ``Preprocessing.training``, draw for draw: uint8 (3, size, size)."""
        return self.preprocessing.augment(self._squeezed(path), seed)


def _check_source(path: Path, size: int, cache: Path, again: str) -> None:
    """Refuse a cache of another folder's images, or of images that were changed since."""
    try:
        found = f"{path.stat().st_size} bytes"
    except OSError:
        found = "no such file"
    if found != f"{size} bytes":
        raise CacheError(
            f"{cache}: made from other images: {path} had {size} bytes, and now: {found}; {again}"
        )
