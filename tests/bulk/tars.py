"""Shards of tests."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path


def pack(path: Path, members: Mapping[str, bytes]) -> None:
    """Write a tar of files with these names and contents."""
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
