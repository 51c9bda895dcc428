"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def appearing_whole(path: str | Path, partial: str | Path | None = None) -> Iterator[BinaryIO]:
    """A file open for writing that takes its place, synced, when all went well, or never appears.

    Args:
        path: the file.
        partial: where it is written; None takes a neighbour that only this process writes.
    """
    path = Path(path)
    partial = Path(partial or path.with_name(f".{path.name}.{os.getpid()}"))
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file whole or not at all: to a neighbour, synced, then renamed."""
    with appearing_whole(path) as file:
        file.write(content)
