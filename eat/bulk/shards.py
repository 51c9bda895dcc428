"""What to score, cut into shards: each tar and Parquet file is one, as are so many images."""

import codecs
import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath

from eat.bulk.places import is_remote, join, list_places, open_place
from eat.data.crops import as_crop
from eat.data.photos import FINISHED, RAW_SUFFIXES, SUFFIXES, is_pattern

TARS, PARQUET, LIST = (".tar", ".tar.gz", ".tgz"), ".parquet", ".txt"
IN_FOLDERS = (*TARS, PARQUET, *SUFFIXES)
log = logging.getLogger("eat")


@dataclass(frozen=True)
class Shard:
    """Images that are scored together into one file.

    Attributes:
        name: that no other shard has; the same in each call.
        url: of a tar or a Parquet file; of images, the folder, pattern or list that they are of.
        images: their places; None for a tar or a Parquet file, which holds its images.
    """

    name: str
    url: str
    images: tuple[str, ...] | None = None

    @property
    def title(self) -> str:
        """What messages call it."""
        return self.url if self.images is None else f"{self.url}, {self.name}"

    @property
    def group(self) -> str:
        """The part of the name that stays if other images come to stand in this shard's place."""
        return self.name if self.images is None else self.name.rpartition("-")[0]


def find_shards(given: Iterable[str], size: int, out: str) -> Iterator[Shard]:
    """List shards, in order, none twice. The lines of a list are read as shards are wanted.

    Args:
        given: tars, Parquet files, images, folders (searched through), glob patterns, and .txt
            lists of tars, Parquet files and images, a line each, relative to the list's folder.
        size: images of a shard of images.
        out: folder of the scores, of which nothing is taken.

    Raises:
        ValueError: a folder or pattern holds none, or a folder is ``out``.
        OSError: naming the place; a list cannot be read, or a store not be reached.
    """
    seen: set[str] = set()
    named: list[str] = []  # images, which a shell may have made of one pattern
    for place in given:
        if place.endswith(LIST):
            found: Iterable[str] = read_list(place)
        elif not _names_a_file(place):
            found = _search(place, out)
        elif _is_shard(place):
            found = [place]
        else:
            named.append(place)
            continue
        yield from _unseen(_cut(found, place, size), seen)
    yield from _unseen(_cut(named, "images", size), seen)


def absolute(place: str) -> str:
    """A place that is the same from any folder."""
    return place if is_remote(place) else os.path.abspath(place)


def read_list(place: str) -> Iterator[str]:
    """The places that the lines of a list name, empty ones left out.

    Raises:
        ValueError: it is binary, or in UTF-16.
        OSError: naming it; it cannot be read.
    """
    folder = os.path.dirname(place)
    with open_place(place) as file:
        for line in file:
            if b"\0" in line:
                raise ValueError(f"{place}: no list: found a zero byte, expected a name a line")
            if path := os.fsdecode(line.removeprefix(codecs.BOM_UTF8).rstrip(b"\r\n")):
                relative = not is_remote(path) and not os.path.isabs(path)
                yield join(folder, path) if relative and folder else path


def _search(place: str, out: str) -> list[str]:
    """The files of a folder or pattern, but for those below ``out`` and lesser twins."""
    if absolute(place).rstrip("/") == absolute(out).rstrip("/"):
        raise ValueError(f"--out is {out}, which is also to be scored: give a folder of its own")
    own = join(absolute(out), "")
    found = [file for file in list_places([place], IN_FOLDERS) if file != place]
    kept = [file for file in found if not absolute(file).startswith(own)]
    if not kept:
        crop = "crops are scored with --engine local alone"
        nothing = "found no tars, Parquet files or images there"
        raise ValueError(f"{place}: {crop if as_crop(place) else nothing}")
    return _without_twins(kept)


def _without_twins(files: list[str]) -> list[str]:
    """Files but for raw ones with a finished picture of their name, and Parquet with a tar.

    Such a Parquet file, as img2dataset writes it, describes the images that the tar holds.
    """
    finished = {os.path.splitext(file)[0] for file in files if _suffix(file) in FINISHED}
    tars = {file.removesuffix(".tar") for file in files if file.endswith(".tar")}
    kept = [
        file
        for file in files
        if not (_suffix(file) in RAW_SUFFIXES and os.path.splitext(file)[0] in finished)
        and not (file.endswith(PARQUET) and file.removesuffix(PARQUET) in tars)
    ]
    if len(kept) < len(files):
        log.warning("%d files left out: raw or Parquet, with pictures or tars of their names "
                    "beside them", len(files) - len(kept))  # fmt: skip
    return kept


def is_tar(place: str) -> bool:
    """True for the name of a tar, also of a compressed one."""
    return place.lower().endswith(TARS)


def _is_shard(place: str) -> bool:
    return is_tar(place) or place.lower().endswith(PARQUET)


def _names_a_file(place: str) -> bool:
    """False for a folder, a pattern, or what is not there and looks like no file."""
    if is_remote(place):
        return not re.search(r"[*\[]|/$", place) and _suffix(place) != ""
    if not os.path.lexists(place):
        return not is_pattern(place) and place.lower().endswith(IN_FOLDERS)
    return not os.path.isdir(place)


def _suffix(place: str) -> str:
    return os.path.splitext(place)[1].lower()


def _cut(files: Iterable[str], group: str, size: int) -> Iterator[Shard]:
    """Shards of files: of each tar and Parquet file, and of every ``size`` images."""
    images: list[str] = []
    count = 0
    for file in files:
        if _is_shard(file):
            yield Shard(_name(file), file)
            continue
        images.append(file)
        if len(images) == size:
            yield _of_images(images, group, count)
            images, count = [], count + 1
    if images:
        yield _of_images(images, group, count)


def _of_images(images: list[str], group: str, number: int) -> Shard:
    content = _digest("\n".join(map(absolute, images)))[:8]
    return Shard(f"{_name(group)}-{number:06}-{content}", group, tuple(images))


def _name(place: str) -> str:
    """A name for what comes of a place: its own, and a digest of where it lies."""
    own = PurePosixPath(place.replace(os.sep, "/")).name
    for suffix in (*TARS, PARQUET, LIST):
        own = own.removesuffix(suffix)
    readable = re.sub(r"[^A-Za-z0-9_.-]", "_", own).strip(".-_")[:64] or "images"
    return f"{readable}-{_digest(absolute(place))[:16]}"


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()


def _unseen(shards: Iterator[Shard], seen: set[str]) -> Iterator[Shard]:
    for shard in shards:
        if shard.name not in seen:
            seen.add(shard.name)
            yield shard


def in_waves(shards: Iterable[Shard], size: int) -> Iterator[list[Shard]]:
    """Lists of at most so many shards."""
    rest = iter(shards)
    while wave := list(islice(rest, size)):
        yield wave
