"""Places of bulk scoring: listed, read, and written whole, on a disk and in a store."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from eat.bulk.places import (
    KINDS,
    join,
    list_places,
    names_in,
    open_place,
    remove_partials,
    writing_whole,
)


@pytest.fixture(params=["disk", "store"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty folder on a disk, and one in a store."""
    if request.param == "disk":
        yield str(tmp_path / "folder")
    else:
        yield f"memory:///{tmp_path.name}"
        fsspec.filesystem("memory").store.clear()


def write(place: str, content: bytes = b"content") -> None:
    with writing_whole(place) as file:
        file.write(content)


def test_folders_and_patterns_are_listed_in_order_and_no_file_twice(folder: str) -> None:
    for name in ("b.tar", "a.tar", "deep/c.TAR", "notes.txt", ".hidden.tar"):
        write(join(folder, name))
    a, b, deep = (join(folder, name) for name in ("a.tar", "b.tar", "deep/c.TAR"))
    assert list_places([folder], (".tar",)) == [a, b, deep]
    assert list_places([b, join(folder, "[ab].tar"), folder], (".tar",)) == [b, a, deep]
    assert list_places([join(folder, "*.txt")], (".tar",)) == [join(folder, "notes.txt")]


def test_what_matches_nothing_is_kept_and_missing(folder: str) -> None:
    missing = [join(folder, name) for name in ("none.tar", "none*.tar", "none/")]
    assert list_places(missing, (".tar",)) == missing
    for place in missing[:2]:
        with pytest.raises(FileNotFoundError, match="none"), open_place(place):
            pass


def test_a_file_with_magic_letters_is_taken_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "[1].tar"
    path.touch()
    assert list_places([str(path)], (".tar",)) == [str(path)]


def test_names_in_a_folder_are_of_its_own_files(folder: str) -> None:
    assert names_in(folder) == set()
    write(join(folder, "a.parquet"))
    write(join(folder, "deep/b.parquet"))
    assert names_in(folder) == {"a.parquet"}
    write(join(folder, "c.parquet"))
    assert names_in(folder) == {"a.parquet", "c.parquet"}  # no listing is from before


def test_a_file_appears_at_the_end_and_replaces_what_was_there(folder: str) -> None:
    place = join(folder, "a.parquet")
    for content in (b"first", b"second"):
        with writing_whole(place) as file:
            before = names_in(folder)
            file.write(content)
            assert names_in(folder) == before
        with open_place(place) as file:
            assert file.read() == content


def test_an_error_leaves_nothing_and_what_was_there_before(folder: str) -> None:
    write(join(folder, "old.parquet"), b"old")
    for name in ("old.parquet", "new.parquet"):
        with pytest.raises(RuntimeError), writing_whole(join(folder, name)) as file:
            file.write(b"half")
            raise RuntimeError
    assert names_in(folder) == {"old.parquet"}
    with open_place(join(folder, "old.parquet")) as file:
        assert file.read() == b"old"


def test_a_pipe_is_refused_however_it_is_written(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    for place in (str(tmp_path / "a.jpg"), f"file://{tmp_path}/a.jpg"):
        with pytest.raises(OSError, match="a.jpg: a pipe"), open_place(place):
            pass


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    place = tmp_path / "a.parquet"
    write(str(place))
    kill = "import os, signal; file.write(b'half'); file.flush(); os.kill(os.getpid(), 9)"
    body = f"from eat.bulk.places import writing_whole as w\nwith w({str(place)!r}) as file: {kill}"
    subprocess.run([sys.executable, "-c", body], cwd=Path(__file__).parents[2])
    assert len(os.listdir(tmp_path)) == 2 and place.read_bytes() == b"content"
    remove_partials(str(tmp_path))
    assert os.listdir(tmp_path) == ["a.parquet"]


def test_stores_that_cannot_be_used_are_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as if it were not installed
    with pytest.raises(ValueError, match=r"gs://bucket/a.tar: .*pip install 'eat-iaa\[gcs\]'"):
        with open_place("gs://bucket/a.tar"):
            pass
    with pytest.raises(ValueError, match="nix://bucket/: nix:// is no kind of store"):
        list_places(["nix://bucket/"], (".tar",))


def test_a_store_without_credentials_says_how_to_give_them(monkeypatch: pytest.MonkeyPatch) -> None:
    exceptions = pytest.importorskip("botocore.exceptions", reason="needs the extra s3")

    def refuse(*args: object, **kwargs: object) -> None:
        raise exceptions.NoCredentialsError

    monkeypatch.setattr(fsspec.implementations.memory.MemoryFileSystem, "pipe_file", refuse)
    monkeypatch.setitem(KINDS, "memory", KINDS["s3"])
    message = "memory:///a/b: no credentials for memory:// .* or FSSPEC_S3_ANON=true"
    with pytest.raises(PermissionError, match=message):
        write("memory:///a/b")
