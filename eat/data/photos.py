"""Photographs without labels: finding them, and reading them ahead of whoever wants them."""

import glob
import io
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL.Image import Image
from torch import Tensor

from eat.data.camera import HEIF_SUFFIXES, RAW_SUFFIXES
from eat.data.crops import Crop, as_crop
from eat.data.decoding import InMemory, is_url
from eat.data.transforms import Photo

FINISHED = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jp2", ".avif"}
FINISHED |= HEIF_SUFFIXES
SUFFIXES = FINISHED | RAW_SUFFIXES
IMAGES = f"*{{{','.join(sorted(SUFFIXES))}}}"  # all of these, as a pattern of the shell
log = logging.getLogger("eat")
S = TypeVar("S")
T = TypeVar("T")


def find_photos(given: Any) -> Iterator[Photo]:
    """List one photograph or several, of any kinds that ``InMemory`` holds, and files by paths.

    Args:
        given: one; an iterable of such, which is read as photographs are wanted; or an array
            (B, H, W, 3) or tensor (B, 3, H, W). Paths are taken as by ``find_images``, or as crops.
            The others are named "image 3" by their place among those given.
    """
    seen: set[Path | Crop] = set()
    for place, photo in enumerate([given] if is_single(given) else given, start=1):
        if isinstance(photo, str | Path):
            crop = as_crop(photo)
            named = find_images([photo]) if crop is None else [crop]
            found = [path for path in named if path not in seen]
            seen.update(found)
            yield from found
        else:
            encoded = isinstance(photo, bytearray | memoryview)
            yield InMemory(f"image {place}", bytes(photo) if encoded else photo)


def is_single(given: Any) -> bool:
    """True for one photograph, or one folder or pattern, rather than an iterable of them."""
    if isinstance(given, np.ndarray | Tensor):
        return given.ndim != 4
    single = str, Path, bytes, bytearray, memoryview, Image, io.IOBase
    return isinstance(given, single) or not isinstance(given, Iterable)


def is_one_photo(given: Any) -> bool:
    """True for one photograph, rather than several, a folder or a pattern."""
    is_path = isinstance(given, str | Path)
    return is_single(given) and not (is_path and (os.path.isdir(given) or is_pattern(given)))


def is_pattern(path: str | Path) -> bool:
    """True for a glob pattern, unless a file has this very name, or it is written as a crop."""
    if as_crop(path) or is_url(path):
        return False
    return glob.has_magic(str(path)) and not os.path.lexists(path)


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """List files, folders (searched through, in name order) and glob patterns as files.

    A file that is named is taken whatever its suffix. In folders only image suffixes count, and a
    raw file is left out if a finished picture of its name lies beside it. No file comes twice. What
    matches nothing is kept, to be reported as missing: a path, a pattern, or a folder without
    images as a pattern. So is what has an image suffix and is no file, such as a pipe or a dead
    link.
    """
    found: dict[Path, None] = {}
    for given in paths:
        path = Path(given)
        if os.path.isdir(given):
            found.update(dict.fromkeys(sorted(map(Path, _images_below(path))) or [path / IMAGES]))
        elif is_pattern(given):
            matches = sorted(glob.glob(str(given), recursive=True)) or [str(given)]
            found.update(dict.fromkeys(map(Path, matches)))
        else:
            found[path] = None
    return list(found)


def _images_below(folder: str | Path) -> Iterator[str]:
    """What has an image suffix, by what the listings say of it: only links are looked up."""
    unlisted: list[OSError] = []
    left_out = 0
    for root, _, names in os.walk(folder, onerror=unlisted.append):
        parts = {name: os.path.splitext(name) for name in names}
        finished = {stem for stem, suffix in parts.values() if suffix.lower() in FINISHED}
        for name, (stem, suffix) in parts.items():
            if suffix.lower() in RAW_SUFFIXES and stem in finished:
                left_out += 1
            elif suffix.lower() in SUFFIXES:
                yield os.path.join(root, name)
    if left_out:
        log.warning("%s: %d raw files left out, with pictures of their names beside them", folder,
                    left_out)  # fmt: skip
    yield from (os.path.join(error.filename, IMAGES) for error in unlisted)


def read_ahead(
    read: Callable[[S], T], files: Iterable[S], *, threads: int, ahead: int
) -> Iterator[tuple[S, T]]:
    """Files and what ``read`` makes of them, in order, by threads.

    At most ``ahead`` files are read, or being read, before they are asked for.
    """
    pool = ThreadPoolExecutor(threads)
    waiting: deque[tuple[S, Future[T]]] = deque()
    try:
        for file in files:
            waiting.append((file, pool.submit(read, file)))
            if len(waiting) > ahead:
                done, content = waiting.popleft()
                yield done, content.result()
        while waiting:
            done, content = waiting.popleft()
            yield done, content.result()
    finally:
        pool.shutdown(cancel_futures=True)
