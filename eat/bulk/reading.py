"""Shards read: the images that tars, Parquet files and lists hold, one after the other."""

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from eat.bulk.places import is_remote, join, open_place
from eat.bulk.shards import Shard, is_tar
from eat.data.decoding import MOST_BYTES
from eat.data.photos import SUFFIXES
from eat.system.files import GB
from eat.system.words import brief

COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes", "content", "img", "path",
           "image_path", "file_name", "filename", "file")  # fmt: skip
ROWS = 64  # of a Parquet file that are read at a time
MOST_HELD = 64 * 2**20  # bytes of a tar's images of one key, which wait for the JSON beside them
MOST_JSON = 2**20


class ShardError(OSError):
    """A shard that cannot be read to its end; the message names it and what is wrong with it."""


@dataclass(frozen=True)
class Item:
    """An image of a shard.

    Attributes:
        key: of it within the shard; nothing says that no other has it.
        url: where it comes from, if the data set says so, else where it lies; None if unknown.
        content: the encoded file; empty if it cannot be had.
        error: why it cannot.
    """

    key: str
    url: str | None
    content: bytes = b""
    error: str = ""


def read_shard(shard: Shard, column: str | None = None, key: str | None = None) -> Iterator[Item]:
    """Read a shard's images, in order.

    Args:
        shard: of tars as of WebDataset, members with an image's suffix, or none, are images.
        column: of a Parquet file, with encoded images or their paths; None takes the first one of
            COLUMNS that fits.
        key: its column with keys; None takes "key" or "__key__", or else numbers the rows.

    Raises:
        ShardError: it cannot be read, or is not whole. What came before must not count.
    """
    try:
        if shard.images is not None:
            yield from map(_read_file, shard.images)
        elif is_tar(shard.url):
            with open_place(shard.url) as file:
                yield from _read_tar(file, shard.url)
        else:
            with open_place(shard.url) as file:
                yield from _read_parquet(file, shard.url, column, key)
    except Exception as error:  # tarfile, zlib and Arrow raise a dozen kinds
        text = brief(error)
        raise ShardError(text if shard.url in text else f"{shard.url}: {text}") from error


def _read_file(place: str) -> Item:
    try:
        with open_place(place) as file:
            return Item(place, place, _read(file, place))
    except FileNotFoundError as error:
        found = str(error) if is_remote(place) else f"{place}: no such file"
        return Item(place, place, error=found)
    except (OSError, ValueError) as error:
        text = str(error)
        return Item(place, place, error=text if place in text else f"{place}: {text}")


def _read(file: BinaryIO, name: str) -> bytes:
    """The content of a file.

    Raises:
        OSError: it has more than MOST_BYTES.
    """
    content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise OSError(f"{name}: more than {MOST_BYTES / GB:.0f} GB: no photograph has so many")
    return content


class _Member(tarfile.TarInfo):
    """A member of a tar that must have an end: tarfile takes a damaged or missing header for it."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> "_Member":
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            kind = "cut off" if len(buf) < tarfile.BLOCKSIZE else "damaged"
            raise tarfile.ReadError(f"{kind} ({error})") from error


def _read_tar(file: BinaryIO, url: str) -> Iterator[Item]:
    names = 0
    images = 0
    with tarfile.open(fileobj=file, mode="r|*", bufsize=2**20, tarinfo=_Member) as tar:
        for key, members in groupby(_members(tar), key=lambda member: _key(member.name)):
            items: list[Item] = []
            held = 0
            address = None
            for member in members:
                names += 1
                suffix = os.path.splitext(member.name)[1].lower()
                if suffix == ".json" and member.isfile():
                    address = _address(tar, member)
                elif suffix in SUFFIXES or not PurePosixPath(member.name).suffix:
                    place = f"tar://{member.name}::{url}"
                    items.append(Item(key, place, *_content(tar, member, url)))
                    images += 1
                    held += len(items[-1].content)
                    if held > MOST_HELD:  # their JSON may come too late
                        yield from items
                        items, held = [], 0
            yield from (replace(item, url=address or item.url) for item in items)
        while rest := tar.fileobj.read(2**20):
            if rest.strip(b"\0"):
                raise tarfile.ReadError("damaged: data after its end-of-archive mark")
    if names and not images:
        raise ValueError(f"{names} members, none of which is an image")


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """A tar's members but for folders, and what macOS says of files. The tar keeps none of them."""
    for member in tar:
        tar.members = []  # type: ignore[attr-defined]
        if not member.isdir() and not PurePosixPath(member.name).name.startswith("._"):
            yield member


def _key(name: str) -> str:
    """A member's name until the first dot of its last part, as WebDataset has it."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + (last[:1] + last[1:].partition(".")[0])


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, url: str) -> tuple[bytes, str]:
    name = f"{url}/{member.name}"
    if not member.isfile() or member.issparse():  # a few bytes may claim gigabytes of zeros
        return b"", f"{name}: a link, device or sparse file: expected a plain one"
    if member.size > MOST_BYTES:
        return b"", f"{name}: {member.size / GB:.1f} GB: no photograph has so many"
    file = tar.extractfile(member)
    assert file is not None
    return file.read(), ""


def _address(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str | None:
    """What the JSON beside an image says of where it is from, as img2dataset writes it."""
    content = _content(tar, member, "")[0] if member.size <= MOST_JSON else b""
    try:
        found = json.loads(content)["url"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if isinstance(found, str) else None


def _read_parquet(file: BinaryIO, url: str, column: str | None, key: str | None) -> Iterator[Item]:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file, pre_buffer=False, buffer_size=2**20)
    schema = table.schema_arrow
    image = _image_column(schema, column)
    named = key or next((name for name in ("key", "__key__") if name in schema.names), None)
    if named is not None and named not in schema.names:
        raise ValueError(f"no column {named!r}: expected one of {', '.join(schema.names)}")
    columns = list(dict.fromkeys(c for c in (image, named, "url") if c in schema.names))
    folder = os.path.dirname(url)
    row = 0
    for batch in table.iter_batches(ROWS, columns=columns):
        for values in batch.to_pylist():
            name = str(row if named is None else values[named])
            yield _of_row(name, values[image], values.get("url"), f"{url}, row {row}", folder)
            row += 1


def _of_row(key: str, value: Any, address: Any, place: str, folder: str) -> Item:
    """An image of a row: encoded, a path, or both, as Hugging Face's data sets have them."""
    path = None
    if isinstance(value, dict):
        value, path = value.get("bytes"), value.get("path")
    address = address if isinstance(address, str) else None
    if isinstance(value, bytes):
        return Item(key, address or path, value)
    path = value or path
    if not path:
        return Item(key, address, error=f"{place}: no image: found null")
    relative = not is_remote(path) and not os.path.isabs(path) and folder
    read = _read_file(join(folder, path) if relative else path)
    return Item(key, address or read.url, read.content, read.error)


def _image_column(schema: Any, wanted: str | None) -> str:
    """The column of images.

    Raises:
        ValueError: there is none, or it has another type than bytes, text, or a struct of them.
    """
    import pyarrow.types as types

    def fits(name: str) -> bool:
        kind = schema.field(name).type
        if types.is_struct(kind):
            return "bytes" in [kind.field(i).name for i in range(kind.num_fields)]
        checks = types.is_binary, types.is_large_binary, types.is_string, types.is_large_string
        return any(check(kind) for check in checks)

    for name in [wanted] if wanted else COLUMNS:
        if name in schema.names and fits(name):
            return str(name)
    found = ", ".join(f"{field.name} ({field.type})" for field in schema)
    raise ValueError(f"no column {wanted or 'of images'!r}: found {found[:300]}; expected encoded "
                     "images or paths in one, which --image_column names")  # fmt: skip
