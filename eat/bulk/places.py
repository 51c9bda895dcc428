"""Places of shards and of what comes of them: local paths, or URLs of a store that fsspec knows.

A local path stays as it was given. A URL is such as s3://bucket/folder/0001.tar; its store's
credentials and endpoint come from where its own tools take them (environment, profile, role).
"""

import contextlib
import glob
import io
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from eat.system.files import appearing_whole, regular, remove_partial
from eat.system.words import brief

# What a request brings. Tars are read from end to end, so fewer requests are less waiting.
BLOCK = 16 * 2**20
# Of kinds of URLs: the extra that brings the package, and the variable for public buckets.
S3, GCS = ("s3", "FSSPEC_S3_ANON=true"), ("gcs", "FSSPEC_GCS_TOKEN=anon")
KINDS = {"s3": S3, "s3a": S3, "gs": GCS, "gcs": GCS}
# Packages of the stores whose errors are of kinds of their own, none of them OSErrors.
STORES = {"aiobotocore", "aiohttp", "botocore", "gcsfs", "google", "s3fs"}


def is_remote(place: str) -> bool:
    """True for a URL, False for a local path."""
    return "://" in place


def join(folder: str, name: str) -> str:
    """The place of that name in a folder."""
    return f"{folder.rstrip('/')}/{name}" if is_remote(folder) else os.path.join(folder, name)


def list_places(given: Iterable[str], suffixes: tuple[str, ...]) -> list[str]:
    """List files, folders (searched through, in name order) and glob patterns as files.

    A file that is named is taken whatever its suffix; a URL is a folder if it ends in a slash or
    its last part has no suffix, so that no store is asked about each. No file comes twice. What
    matches nothing is kept, to be reported as missing.

    Args:
        given: paths and URLs.
        suffixes: of the files that count in folders, in lower case: (".tar", ".tar.gz").

    Raises:
        OSError: naming the place; a folder or store refuses, or cannot be reached.
        ValueError: naming the place; its package is not installed, or its kind is not known.
    """
    found: dict[str, None] = {}
    for place in given:
        is_folder, files = _look_up(place)
        if is_folder:
            files = [f for f in files if _is_visible(f) and f.lower().endswith(suffixes)]
        found.update(dict.fromkeys(sorted(files) or [place]))
    return list(found)


def _look_up(place: str) -> tuple[bool, list[str]]:
    """True for a folder; the files in it, or those that a pattern matches, or the place itself."""
    if not is_remote(place):
        if os.path.isdir(place):
            walk = os.walk(place, onerror=_raise)
            return True, [os.path.join(root, name) for root, _, names in walk for name in names]
        is_pattern = glob.has_magic(place) and not os.path.lexists(place)
        return False, glob.glob(place, recursive=True) if is_pattern else [place]
    is_pattern = "*" in place or "[" in place  # a question mark belongs to addresses of the web
    is_folder = not is_pattern and not PurePosixPath(place).suffix or place.endswith("/")
    if not is_pattern and not is_folder:
        return False, [place]
    with _naming(place):
        store, path = _store_of(place)
        files = store.find(path) if is_folder else store.glob(path)
        return is_folder, [store.unstrip_protocol(file) for file in files]


def _raise(error: OSError) -> None:
    raise error


def _is_visible(place: str) -> bool:
    return not PurePosixPath(place.replace(os.sep, "/")).name.startswith(".")


@contextlib.contextmanager
def open_place(place: str) -> Iterator[BinaryIO]:
    """Open a file for reading, for the time of the context.

    Raises:
        OSError: naming the place, also while it is read; FileNotFoundError if there is nothing.
        ValueError: naming the place; its package is not installed, or its kind is not known.
    """
    if is_remote(place):
        with _naming(place):
            store, path = _store_of(place)
            if _is_local(store):  # where a pipe would wait for ever
                regular(path)
            with store.open(path, "rb", block_size=BLOCK) as file:
                yield file
    else:
        with regular(place).open("rb") as file:
            yield file


def names_in(folder: str) -> set[str]:
    """Names of the files in a folder, but for hidden ones and those below; none if it is missing.

    Raises:
        OSError: naming the folder; a store refuses, or cannot be reached.
        ValueError: naming the folder; its package is not installed, or its kind is not known.
    """
    try:
        if not is_remote(folder):
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries if entry.is_file()]
        else:
            with _naming(folder):
                store, path = _store_of(folder)
                found = store.ls(path.rstrip("/"), detail=True)
                names = [PurePosixPath(f["name"]).name for f in found if f["type"] == "file"]
    except FileNotFoundError:
        return set()
    return {name for name in names if not name.startswith(".")}


@contextlib.contextmanager
def writing_whole(place: str) -> Iterator[BinaryIO]:
    """Open a file that is there, whole, at the end of the context; after an error, never.

    What is to go to a store is kept in memory until the end, and put there by one call: stores of
    objects (S3, GCS, Azure) show an object once all of it has come.

    Raises:
        OSError: naming the place. What was there before is left.
        ValueError: naming the place; its package is not installed, or its kind is not known.
    """
    if is_remote(place):
        content = io.BytesIO()
        yield content
        with _naming(place):
            store, key = _store_of(place)
            store.pipe_file(key, content.getvalue())
    else:
        path = Path(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Two machines that share a disk may give two processes one number.
        partial = path.with_name(f".{path.name}.{uuid.uuid4().int}")
        with appearing_whole(path, partial) as file:
            yield file


def remove_partials(folder: str) -> None:
    """Remove what killed processes left in a folder; a store shows nothing that is not whole."""
    if not is_remote(folder):
        remove_partial(folder)


def _store_of(place: str) -> tuple[Any, str]:
    """The file system of a URL, and its path there. Listings are asked for anew each time."""
    from fsspec.core import url_to_fs

    return cast(tuple[Any, str], url_to_fs(place, use_listings_cache=False))


def _is_local(store: Any) -> bool:
    """True for the file system of file:// and local://."""
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(store, LocalFileSystem)


@contextlib.contextmanager
def _naming(place: str) -> Iterator[None]:
    """Turn errors of a store and its package into such as name the place."""
    kind = place.partition("://")[0]
    extra, public = KINDS.get(kind, ("", ""))
    try:
        yield
    except ImportError as error:
        install = f"pip install 'eat-iaa[{extra}]'" if extra else brief(error)
        raise ValueError(f"{place}: the package for {kind}:// is missing: {install}") from error
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{place}: not found: {brief(error)}") from error
    except OSError as error:
        raise OSError(f"{place}: {error.strerror or brief(error)}") from error
    except Exception as error:
        if type(error).__name__ in {"NoCredentialsError", "DefaultCredentialsError"}:
            raise PermissionError(
                f"{place}: no credentials for {kind}:// were found: set them as for the store's own"
                f" tools{public and f', or {public} if it is public'}"
            ) from error
        if isinstance(error, ValueError) and "rotocol not known" in str(error):
            raise ValueError(f"{place}: {kind}:// is no kind of store that fsspec knows") from error
        if type(error).__module__.partition(".")[0] in STORES:
            raise OSError(f"{place}: {brief(error)}") from error
        raise
