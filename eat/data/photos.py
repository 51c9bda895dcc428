"""Photographs without labels: finding the files, and reading them ahead of whoever wants them."""

import glob
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
IMAGES = f"*{{{','.join(sorted(SUFFIXES))}}}"  # all of these, as a pattern of the shell
T = TypeVar("T")


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """List files, folders (searched through, in name order) and glob patterns as files.

    A file that is named is taken whatever its suffix; in folders only image suffixes count. No file
    comes twice. What matches nothing is kept, to be reported as missing: a path, a pattern, or a
    folder without images as a pattern. So is what has an image suffix and is no file, such as a
    pipe or a dead link.
    """
    found: dict[Path, None] = {}
    for given in paths:
        path = Path(given)
        if os.path.isdir(given):
            found.update(dict.fromkeys(sorted(map(Path, _images_below(path))) or [path / IMAGES]))
        elif not glob.has_magic(str(given)) or os.path.lexists(path):
            found[path] = None
        else:
            matches = sorted(glob.glob(str(given), recursive=True)) or [str(given)]
            found.update(dict.fromkeys(map(Path, matches)))
    return list(found)


def _images_below(folder: str | Path) -> Iterator[str]:
    """What has an image suffix, by what the listings say of it: only links are looked up."""
    unlisted: list[OSError] = []
    for root, _, names in os.walk(folder, onerror=unlisted.append):
        for name in names:
            if os.path.splitext(name)[1].lower() in SUFFIXES:
                yield os.path.join(root, name)
    yield from (os.path.join(error.filename, IMAGES) for error in unlisted)


def read_ahead(
    read: Callable[[Path], T], files: Iterable[Path], *, threads: int, ahead: int
) -> Iterator[tuple[Path, T]]:
    """Files and what ``read`` makes of them, in order, by threads.

    At most ``ahead`` files are read, or being read, before they are asked for.
    """
    pool = ThreadPoolExecutor(threads)
    waiting: deque[tuple[Path, Future[T]]] = deque()
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
