"""Photographs without labels: finding the files, and reading them ahead of whoever wants them."""

import glob
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
T = TypeVar("T")


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """List files, folders (searched through, in name order) and glob patterns as files.

    A file that is named is taken whatever its suffix; in folders only image suffixes count. No file
    comes twice. A path or pattern that matches nothing is kept, to be reported as missing.
    """
    found: dict[Path, None] = {}
    for given in paths:
        path = Path(given)
        if os.path.isdir(path):
            found.update(dict.fromkeys(sorted(map(Path, _images_below(path)))))
        elif not glob.has_magic(str(given)) or os.path.lexists(path):
            found[path] = None
        else:
            matches = sorted(glob.glob(str(given), recursive=True)) or [str(given)]
            found.update(dict.fromkeys(map(Path, matches)))
    return list(found)


def _images_below(folder: str | Path) -> Iterator[str]:
    """Files with an image suffix, by what the listing says of them: only links are looked up."""
    try:
        entries = os.scandir(folder)
    except PermissionError:
        return
    with entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _images_below(entry.path)
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and _may_be_file(entry):
                yield entry.path


def _may_be_file(entry: os.DirEntry[str]) -> bool:
    """True for a file, and for a link that cannot be followed, to be reported as unread."""
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return True


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
