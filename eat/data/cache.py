"""Resized images packed into one file, which training and evaluation read instead of the images.

A cache is a pair: ``cache-SIDE.npy``, uint8 (N, 3, side, side), which ``numpy.load`` opens, and
``cache-SIDE.json``, its description, written last: it vouches for the pixels. Rows are read one by
one rather than mapped, so that a file cut short is an error and does not kill the process.
"""

import hashlib
import json
import math
import os
import reprlib
import shutil
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field, fields
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from eat.config.run import MAX_SIZE
from eat.data.decoding import ImageError, without_traceback
from eat.data.transforms import Preprocessing
from eat.system.files import GB, appearing_whole, regular
from eat.system.pool import Pool, unordered

OLD_MARK = b"EATCACHE"  # end of the one file that a cache was before it had a description beside it
MOST_BYTES = 4 * GB  # of a description
MAX_SIDE = 4 * MAX_SIZE  # pixels
CHUNK = 64  # images a task
PROBES = 1000  # files whose size is compared when a cache is opened
# What decides the pixels, beside the side.
RESIZING = ("interpolation", "upright", "decode", "colours")


class CacheError(ValueError):
    """A cache that cannot be made or used; the message names the file and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(without_traceback(message, type(self)))


@dataclass
class Contents:
    """The description of a cache.

    Attributes:
        side: of the resized images in pixels.
        interpolation, upright, decode, colours: as in ``Preprocessing``.
        images: name of each row's image, relative to the image folder.
        bytes: size of each row's file.
        digests: of the bytes of each row's file.
        sums: of each row's pixels, as ``row_sum``.
        broken: images that are not in the cache, and why.
        fingerprint: SHA-256 (hex) of names and digests in the order of the rows.
    """

    side: int
    interpolation: str
    upright: bool
    decode: str
    colours: str
    images: list[str]
    bytes: list[int]
    digests: list[str]
    sums: list[int] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    fingerprint: str = ""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the pixels."""
        return len(self.images), 3, self.side, self.side

    @property
    def again(self) -> str:
        """Advice for messages."""
        return f"make the cache again with eat prepare --cache {self.side}, or leave data.cache out"

    def find_fingerprint(self) -> str:
        """The fingerprint that belongs to these images."""
        pairs = zip(self.digests, self.images, strict=True)
        text = "\n".join(f"{digest} {name}" for digest, name in pairs)
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

    def differences(self, other: Preprocessing) -> list[str]:
        """Options by which another preprocessing resizes in another way."""
        pairs = ((n, getattr(self, n), getattr(other, n)) for n in RESIZING)
        return [f"data.{name} {own}, not {wish}" for name, own, wish in pairs if own != wish]


def cache_path(folder: str | Path, side: int) -> Path:
    """The pixel file of the cache of a side."""
    return Path(folder) / f"cache-{side}.npy"


def make_cache(
    folder: str | Path,
    images: str | Path,
    checks: pd.DataFrame,
    broken: dict[str, str],
    preprocessing: Preprocessing,
    workers: int | None = None,
    pool: Pool = unordered,
) -> Contents:
    """Write the cache of the side ``preprocessing.size``, or find that it is there already.

    Args:
        folder: of the cache.
        images: image folder.
        checks: of the sound images: columns image, bytes, digest.
        broken: other labelled images, and why they cannot be read.
        preprocessing: of the images.
        workers: processes; None takes one a core.
        pool: that has them write the rows, each in its place of one file.

    Raises:
        CacheError: there is no sound image, or not enough room on the disk.
        ChildProcessError: a process died; no cache was written.
    """
    path = cache_path(folder, preprocessing.size)
    contents = Contents(
        side=preprocessing.size,
        images=checks["image"].tolist(),
        bytes=checks["bytes"].tolist(),
        digests=checks["digest"].tolist(),
        broken=broken,
        **{name: getattr(preprocessing, name) for name in RESIZING},
    )
    contents.fingerprint = contents.find_fingerprint()
    if not contents.images:
        raise CacheError(f"{images}: no labelled image can be read, so there is nothing to cache")
    with suppress(CacheError):  # absent, cut short or of another kind: written anew
        if _same(present := read_contents(path), contents) and _intact(path, present):
            return present
    _check_room(path, contents)
    note = path.with_suffix(".json")
    with _appearing(path) as file:
        _write_pixels(file, contents, images, preprocessing, workers, pool)
        note.unlink(missing_ok=True)  # from here to the end there is no cache
    with _appearing(note) as file:
        file.write(json.dumps(asdict(contents)).encode())
    return contents


def _appearing(path: Path) -> AbstractContextManager[BinaryIO]:
    """``appearing_whole`` by a fixed name, so that a call writes over what a killed one left."""
    return appearing_whole(path, path.with_name(f".{path.name}.partial"))


def _same(one: Contents, other: Contents) -> bool:
    """True for caches of the same pixels. The one present may have found more broken files."""
    alike = all(getattr(one, n) == getattr(other, n) for n in ("side", "fingerprint", *RESIZING))
    return alike and other.broken.items() <= one.broken.items()


def _intact(path: Path, contents: Contents) -> bool:
    """True if every row of a pixel file is as it was written."""
    with path.open("rb") as file:
        file.seek(_find_pixels(path, contents))
        rows = (file.read(math.prod(contents.shape[1:])) for _ in contents.images)
        return [row_sum(np.frombuffer(row, np.uint8)) for row in rows] == contents.sums


def row_sum(pixels: NDArray[np.uint8]) -> int:
    """Sum of a row's pixels as words of 8 bytes, modulo 2^64: it tells other or damaged pixels.

    At 224 pixels it takes 5 us where reading takes 30, and a CRC 50.
    """
    flat = pixels.reshape(-1)
    whole = flat.size // 8 * 8
    return (int(flat[:whole].view("<u8").sum()) + int(flat[whole:].sum())) % 2**64


def _check_room(path: Path, contents: Contents) -> None:
    needed, free = math.prod(contents.shape), shutil.disk_usage(path.parent).free
    if needed > free:
        raise CacheError(
            f"{path}: {len(contents.images)} images of {contents.side} pixels take "
            f"{needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; make room, give another "
            "--out, or a smaller --cache"
        )


def _write_pixels(
    file: BinaryIO,
    contents: Contents,
    images: str | Path,
    how: Preprocessing,
    workers: int | None,
    pool: Pool,
) -> None:
    """Let processes fill their rows of the file; unreadable images are added to ``broken``."""
    header = {"descr": "|u1", "fortran_order": False, "shape": contents.shape}
    np.lib.format.write_array_header_1_0(file, header)
    start, length = file.tell(), math.prod(contents.shape)
    file.truncate(start + length)
    if hasattr(os, "posix_fallocate"):  # a disk that fills up is found now, not at the last image
        os.posix_fallocate(file.fileno(), start, length)
    names = contents.images
    contents.sums = [0] * len(names)
    tasks = (
        _Task(file.name, start, row, str(images), names[row : row + CHUNK], how)
        for row in range(0, len(names), CHUNK)
    )
    with tqdm(total=len(names), desc=f"cache {contents.side}", unit="image", disable=None) as bar:
        for row, sums, failed in pool(_fill, tasks, workers, name=str):
            contents.sums[row : row + len(sums)] = sums
            contents.broken |= failed
            bar.update(len(sums))


@dataclass(frozen=True)
class _Task:
    """Images to write one after the other, from a row on, to pixels that begin at ``start``."""

    path: str
    start: int
    row: int
    images: str
    names: list[str]
    how: Preprocessing

    def __str__(self) -> str:
        return f"{self.names[0]} to {self.names[-1]}"


def _fill(task: _Task) -> tuple[int, list[int], dict[str, str]]:
    """First row, the sums of the rows, and images that cannot be read. The row of such one is 0."""
    sums, broken = [], {}
    with open(task.path, "r+b") as file:
        for row, name in enumerate(task.names, start=task.row):
            try:
                pixels = task.how.evaluation(Path(task.images, name)).numpy()
            except ImageError as error:
                sums.append(0)
                broken[name] = str(error)
                continue
            file.seek(task.start + row * pixels.nbytes)
            file.write(pixels.tobytes())
            sums.append(row_sum(pixels))
    return task.row, sums, broken


def read_contents(path: str | Path) -> Contents:
    """Read the description of a cache and hold the pixel file against it.

    Raises:
        CacheError: there is none, the two do not belong together, or one is damaged.
    """
    path = Path(path)
    note, side = path.with_suffix(".json"), path.stem.removeprefix("cache-")
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob("cache-*.npy"))
        found = f"; found {', '.join(there)}" if there else ""
        raise CacheError(f"{path}: no such cache{found}; make it with eat prepare --cache {side}")
    if not note.is_file():
        old = _tail(path) == OLD_MARK
        problem = "made by an older version" if old else f"incomplete, without {note.name}"
        raise CacheError(f"{path}: {problem}; make it again with eat prepare --cache {side}")
    contents = _parse(note)
    if contents.fingerprint != contents.find_fingerprint():
        problem = "its list of images is not the one that the cache was made of"
        raise CacheError(f"{note}: {problem}; {contents.again}")
    _find_pixels(path, contents)
    return contents


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - len(OLD_MARK)))
        return file.read()


def _parse(note: Path) -> Contents:
    """Read a description whose every value has its type; else raises CacheError."""
    try:
        given = json.loads(regular(note, MOST_BYTES).read_bytes())
        names = [f.name for f in fields(Contents)]
        if isinstance(given, dict):
            given = {"colours": "as_stored"} | given  # of caches from before there was a choice
        if not isinstance(given, dict) or sorted(given) != sorted(names):
            raise ValueError(f"expected an object of {', '.join(names)}")
        contents = Contents(**given)
        columns: list[tuple[Any, type]] = [(contents.images, str), (contents.digests, str)]
        columns += [(contents.bytes, int), (contents.sums, int)]
        sound = (
            type(contents.side) is int
            and 0 < contents.side <= MAX_SIDE
            and type(contents.upright) is bool
            and contents.interpolation in ("bicubic", "bilinear")
            and contents.decode in ("exact", "fast")
            and contents.colours in ("as_stored", "as_shown")
            and isinstance(contents.broken, dict)
            and all(isinstance(v, str) for v in contents.broken.values())
            and all(isinstance(c, list) and all(type(v) is t for v in c) for c, t in columns)
            and len({len(column) for column, _ in columns}) == 1
            and all(0 <= value < 2**64 for value in contents.sums)
        )
        if not sound:
            raise ValueError("a value is of the wrong type, or the lists differ in length")
        contents.find_fingerprint()  # it fails on names that no file can have
        return contents
    except (OSError, ValueError, RecursionError) as error:
        raise CacheError(f"{note}: not the description of a cache ({error}); remove it and make "
                         "the cache again with eat prepare --cache") from error  # fmt: skip


def _find_pixels(path: Path, contents: Contents) -> int:
    """The byte where the pixels start; raises CacheError if the file has not what was described."""
    try:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, fortran, kind = np.lib.format.read_array_header_1_0(file)
            start, end = file.tell(), file.seek(0, os.SEEK_END)
    except Exception as error:  # numpy raises half a dozen kinds for a damaged header
        reason = str(error)[:200]
        raise CacheError(f"{path}: cut short, or no pixels ({reason}); {contents.again}") from error
    problem, expected = "", start + math.prod(contents.shape)
    if (shape, fortran, kind) != (contents.shape, False, np.uint8):
        found = reprlib.repr(shape)
        problem = f"holds {kind} {found}, expected uint8 {contents.shape}"
    elif end != expected:
        problem = f"cut short or changed: {end} bytes, expected {expected}"
    if problem:
        raise CacheError(f"{path}: {problem}; {contents.again}")
    return start


class CachedPixels:
    """The :class:`PixelSource` that reads a cache: the pixels of ``Preprocessing``, bit for bit.

    Each process opens the file for itself, however it was started.

    Args:
        folder: of the cache, as ``eat prepare --cache`` leaves it.
        preprocessing: of a run.
        images: image folder.
        names: the images that will be asked for, relative to it.
        training: take the cache of the side before the random crop.

    Raises:
        CacheError: there is no cache of that side, it is damaged, it was made in another way or of
            other images, or images are not in it.
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
        self.again = contents.again
        if contents.side != preprocessing.side(training=training):
            raise CacheError(f"{self.path}: holds images of {contents.side} pixels; {self.again}")
        if differences := contents.differences(preprocessing):
            raise CacheError(f"{self.path}: made with {', '.join(differences)}; {self.again}")
        rows = {name: row for row, name in enumerate(contents.images)}
        names = list(names)
        absent = [name for name in names if name not in rows and name not in contents.broken]
        if absent:
            lacks = f"lacks {len(absent)} of {len(names)} images, such as {', '.join(absent[:3])}"
            raise CacheError(f"{self.path}: {lacks}; {self.again}")
        sound = [name for name in names if name not in contents.broken]
        for name in sound[:: max(1, len(sound) // PROBES)]:
            self._check_source(Path(images, name), contents.bytes[rows[name]])
        self.rows = {Path(images, name).as_posix(): rows[name] for name in sound}
        lost = set(names).intersection(contents.broken)
        self.broken = {Path(images, name).as_posix(): contents.broken[name] for name in lost}
        self.sums = np.array(contents.sums, np.uint64)
        self.shape = contents.shape[1:]
        self.start = _find_pixels(self.path, contents)
        self.version = _version(self.path.stat())
        self._file: FileIO | None = None
        self._row = torch.empty(0, dtype=torch.uint8)

    def _check_source(self, path: Path, size: int) -> None:
        """Refuse a cache of another folder's images, or of images that were changed since."""
        try:
            found = f"{path.stat().st_size} bytes"
        except OSError:
            found = "no such file"
        if found != f"{size} bytes":
            raise CacheError(
                f"{self.path}: made from other images: {path} had {size} bytes, and now: {found}; "
                f"{self.again}"
            )

    def __getstate__(self) -> dict[str, Any]:
        """All but the open file, which another process opens for itself."""
        return vars(self) | {"_file": None, "_row": torch.empty(0, dtype=torch.uint8)}

    def _read(self, path: str | Path, pixels: Tensor) -> Tensor:
        """Fill ``pixels``, uint8 (3, side, side), with the resized pixels of an image."""
        name = Path(path).as_posix()
        if name in self.broken:
            raise ImageError(f"{path}: not in {self.path}, where it was: {self.broken[name]}")
        if self._file is None:
            self._file = self.path.open("rb", buffering=0)
            if _version(os.fstat(self._file.fileno())) != self.version:
                raise CacheError(f"{self.path}: was changed after this run began; {self.again}")
        row, array = self.rows[name], pixels.numpy()
        if _read_at(self._file, self.start + row * array.nbytes, array) != array.nbytes:
            raise CacheError(f"{self.path}: was cut short after this run began; {self.again}")
        if row_sum(array) != self.sums[row]:
            raise CacheError(f"{self.path}: other or damaged pixels of {name}; {self.again}")
        return pixels

    def evaluation(self, path: str | Path) -> Tensor:
        """As ``Preprocessing.evaluation``: uint8 (3, size, size)."""
        return self._read(path, torch.empty(self.shape, dtype=torch.uint8))

    def training(self, path: str | Path, seed: int) -> Tensor:
        """As ``Preprocessing.training``, draw for draw: uint8 (3, size, size)."""
        if not len(self._row):  # kept, as new memory would cost as much as the reading
            self._row = torch.empty(self.shape, dtype=torch.uint8)
        return self.preprocessing.augment(self._read(path, self._row), seed)


def _version(status: os.stat_result) -> tuple[int, int]:
    """Size and time of change: what tells a file from another one of its name."""
    return status.st_size, status.st_mtime_ns


def _read_at(file: FileIO, start: int, into: NDArray[np.uint8]) -> int:
    """Fill an array from a place in a file; returns the number of bytes that there were."""
    if hasattr(os, "preadv"):  # needs no position, which forked processes share
        return os.preadv(file.fileno(), [into.data], start)
    file.seek(start)
    return file.readinto(into.data)
