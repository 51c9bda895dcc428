"""Files that are read if they have an end, and written completely or not at all."""

import hashlib
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

MB, GB = 10**6, 10**9
PARTIAL = re.compile(r"\..+\.\d+")  # the neighbour that a file is written to, with a process id


def regular(path: str | Path, most: float = math.inf) -> Path:
    """A path that is safe to open: a regular file, or a link to one, of at most ``most`` bytes.

    Opening a pipe would wait for its writer for ever, and a device such as /dev/zero has no end.

    Raises:
        OSError: naming the path; FileNotFoundError if there is nothing.
    """
    path = Path(path)
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
        raise OSError(f"{path}: {kind}: expected a file")
    if status.st_size > most:
        found, expected = (f"{size / MB:,.1f} MB" for size in (status.st_size, most))
        raise OSError(f"{path}: {found}: expected at most {expected}")
    return path


def file_digest(path: str | Path) -> str:
    """SHA-256 (hex) of a file's content, which need not fit into memory."""
    found = hashlib.sha256()
    with Path(path).open("rb") as file:
        while part := file.read(2**20):
            found.update(part)
    return found.hexdigest()


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file in an error that does not, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(
            error.errno, f"{error.strerror}: {path} was not written, and is as it was before"
        ) from error


@contextmanager
def appearing_whole(path: str | Path, partial: str | Path | None = None) -> Iterator[BinaryIO]:
    """Open a file that takes its place, synced, at the end of the context; after an error, never.

    It has the permissions of what was there.

    Args:
        path: the file.
        partial: where it is written; None takes a neighbour that only this process writes.

    Raises:
        OSError: naming the file; the disk may be full. What was there before is left.
    """
    path = Path(path)
    partial = Path(partial or path.with_name(f".{path.name}.{os.getpid()}"))
    try:
        with _naming(path), partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            shutil.copymode(path, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file completely or not at all."""
    with appearing_whole(path) as file:
        file.write(content)


def remove_partial(folder: str | Path) -> None:
    """Remove what killed processes left of files in a folder that no other process writes into."""
    for path in Path(folder).glob(".*"):
        if PARTIAL.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


@contextmanager
def partial_folder(out: Path) -> Iterator[Path]:
    """Make OUT.partial, to write what is to take OUT's place; it is gone at the end of the context.

    Raises:
        ValueError: it is there.
        OSError: naming the file or folder; the disk may be full.
    """
    partial = Path(f"{out}.partial")
    try:
        partial.mkdir(parents=True)
    except FileExistsError:
        raise ValueError(
            f"{partial} is left of a call that was killed, or that still runs: delete it"
        ) from None
    try:
        yield partial
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(partial)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_folder(path: str | Path) -> None:
    """Refuse a folder that cannot be made or written into, before the work for it begins.

    Raises:
        OSError: naming what is in its way.
    """
    found = Path(path).absolute()
    while not os.path.lexists(found):
        found = found.parent
    if not found.is_dir():
        raise NotADirectoryError(f"{found} is there, and no folder: give another --out")
    if not os.access(found, os.W_OK | os.X_OK):
        raise PermissionError(f"{found}: no permission to write there, for --out {path}")


def append_line(path: str | Path, line: str) -> None:
    """Append a line to a text file, completely or not at all.

    Raises:
        OSError: naming the file; the disk may be full.
    """
    path = Path(path)
    with _naming(path), path.open("ab", buffering=0) as file:
        size, content = file.tell(), f"{line}\n".encode()
        try:
            written = file.write(content)
            while written < len(content):
                written += file.write(content[written:])
        except OSError:
            file.truncate(size)
            raise


def refuse_foreign(path: str | Path, *marks: bytes, within: int = 256) -> None:
    """Refuse to write over anything but our own file, so that no photograph is ever lost.

    Args:
        path: an empty file, or nothing, may be written over too.
        marks: our own file has one of them in its first bytes.
        within: how many those are.

    Raises:
        ValueError: something else is there.
    """
    path = Path(path)
    if not os.path.lexists(path):
        return
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(within)
        if not head or any(mark in head for mark in marks):
            return
    raise ValueError(f"{path} is there and not of this command's making: give another --out")


def cut_torn_line(path: str | Path) -> None:
    """Cut off a last line without its end, which ``append_line`` leaves when it is killed."""
    with Path(path).open("rb") as file:
        whole = sum(len(line) for line in file if line.endswith(b"\n"))
    os.truncate(path, whole)


def json_object(text: str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        ValueError: the text is none.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:  # one of json's speaks of Python's settings
        raise ValueError("no JSON") from error
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found


def finite(value: Any) -> Any:
    """A value as JSON takes it: NaN and infinities become None, in dicts and lists too."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
