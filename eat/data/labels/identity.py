"""Which images a split holds: by the name of the file, without folder and suffix, and by content.

Folders and suffixes differ between copies of a data set, and ICAA17K keeps one photograph in
several folders; the name is what its authors identify a photograph by. Other data sets use the same
names, so only equal content proves that two files are one photograph. Content is the size of a file
and ``SAMPLE`` bytes from its middle, which in a JPEG are compressed pixels: enough to tell
photographs apart without reading them whole (30 us a file, from memory).
"""

from __future__ import annotations

import hashlib
import os
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eat.system.files import regular

if TYPE_CHECKING:  # checkpoints know ImageHashes, and scoring needs no pandas
    import pandas as pd

SAMPLE = 4096  # bytes
THREADS = 16  # more than cores, as a file server answers late


class ImageHashes(NamedTuple):
    """Distinct images as sorted numbers of 8 bytes each, small enough for a checkpoint.

    ``contents`` is empty where the files were not at hand.
    """

    names: NDArray[np.int64]
    contents: NDArray[np.int64]


def identities(table: pd.DataFrame) -> pd.Series:
    """The name of each row's image, without folder and suffix: (N,) str."""
    names = table["image"].str.rsplit("/", n=1).str[-1]
    return names.str.replace(r"\.[^.]*$", "", regex=True).str.casefold()


def fingerprint(table: pd.DataFrame) -> str:
    """SHA-256 (hex) of the distinct identities in a table, whatever their order or labels."""
    distinct = sorted(set(identities(table)))
    return hashlib.sha256("\n".join(distinct).encode()).hexdigest()


def hash_images(table: pd.DataFrame, folder: str | Path | None = None) -> ImageHashes:
    """The distinct images of a table, their contents too if the folder of the files is given."""
    contents = np.empty(0, np.int64) if folder is None else content_hashes(table, folder)
    return ImageHashes(np.unique(name_hashes(table)), np.unique(contents[contents != 0]))


def name_hashes(table: pd.DataFrame) -> NDArray[np.int64]:
    """A hash of each row's identity: (N,)."""
    return _numbers([_hash(name.encode()) for name in identities(table)])


def content_hashes(table: pd.DataFrame, folder: str | Path) -> NDArray[np.int64]:
    """A hash of the content of each row's file, (N,): 0 for one that cannot be read."""
    paths = (Path(folder, name) for name in table["image"])
    with ThreadPool(THREADS) as pool:
        return _numbers(list(pool.imap(_content, paths, chunksize=64)))


def count_seen(table: pd.DataFrame, folder: str | Path, trained_on: ImageHashes) -> tuple[int, int]:
    """Count the images of a table whose content was trained on, and others whose name was."""
    images = table.drop_duplicates("image")
    contents = np.zeros(len(images), np.int64)
    if len(trained_on.contents):
        contents = content_hashes(images, folder)
    same = np.isin(contents, trained_on.contents)
    named = np.isin(name_hashes(images), trained_on.names)
    return int(same.sum()), int((named & ~same).sum())


def _content(path: Path) -> bytes:
    try:
        with regular(path).open("rb", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, (size - SAMPLE) // 2))
            return _hash(size.to_bytes(8, "little") + file.read(SAMPLE))
    except OSError:
        return bytes(8)


def _hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).digest()


def _numbers(hashes: list[bytes]) -> NDArray[np.int64]:
    return np.frombuffer(b"".join(hashes), "<i8").astype(np.int64)
