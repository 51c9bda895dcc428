"""Shards read: every image of them, and none of one that is not whole."""

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eat.bulk.reading import Item, ShardError, read_shard
from eat.bulk.shards import Shard

JPEG = b"\xff\xd8 of some kind"


def tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Shard:
    """A tar of these members."""
    with tarfile.open(path, mode) as file:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return Shard("name", str(path))


def parquet(path: Path, /, **columns: Any) -> Shard:
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return Shard("name", str(path))


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz")]
)
def test_images_of_a_tar_in_order_with_what_their_json_says(
    name: str, mode: str, tmp_path: Path
) -> None:
    beside = json.dumps({"url": "http://example.org/x.jpg"}).encode()
    shard = tar(tmp_path / name, {
        "000.jpg": b"0", "000.json": beside, "000.txt": b"caption",
        "a/001.seg.png": b"1", "a/001.json": b"[", "plain": b"2", "001.JPEG": b"3",
    }, mode)  # fmt: skip
    assert [*read_shard(shard)] == [
        Item("000", "http://example.org/x.jpg", b"0"),
        Item("a/001", f"tar://a/001.seg.png::{shard.url}", b"1"),
        Item("plain", f"tar://plain::{shard.url}", b"2"),
        Item("001", f"tar://001.JPEG::{shard.url}", b"3"),
    ]


def test_images_of_one_key_all_count(tmp_path: Path) -> None:
    shard = tar(tmp_path / "a.tar", {"0.left.jpg": b"l", "0.right.jpg": b"r"})
    assert [(item.key, item.content) for item in read_shard(shard)] == [("0", b"l"), ("0", b"r")]


def test_an_empty_tar_has_no_images(tmp_path: Path) -> None:
    assert [*read_shard(tar(tmp_path / "a.tar", {}))] == []


def test_sparse_members_and_long_descriptions_take_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sparse = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(10**9)}
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for name, headers in {"0.jpg": sparse, "1.json": {}, "1.jpg": {}, "1.b.jpg": {}}.items():
            entry = tarfile.TarInfo(name)
            entry.pax_headers, entry.size = headers, 20
            file.addfile(entry, io.BytesIO(b'{"url": "u"}        '))
    shard = Shard("name", str(tmp_path / "a.tar"))
    first, *others = read_shard(shard)
    assert not first.content and "sparse file" in first.error
    assert [item.url for item in others] == ["u", "u"]
    monkeypatch.setattr("eat.bulk.reading.MOST_HELD", 30)  # two images are too many to wait
    monkeypatch.setattr("eat.bulk.reading.MOST_JSON", 10)
    assert [item.key for item in read_shard(shard)] == ["0", "1", "1"]
    assert all(item.url.startswith("tar://") for item in read_shard(shard) if item.url)


def test_a_link_in_a_tar_is_an_image_with_an_error(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        entry = tarfile.TarInfo("0.jpg")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(entry)
    (item,) = read_shard(Shard("name", str(tmp_path / "a.tar")))
    assert not item.content and "a link" in item.error


def damaged(kind: str, whole: bytes) -> bytes:
    """A tar of three members of 512 bytes and less, damaged."""
    cut = {"in a member": 512 + 100, "before a header": 1024, "in a header": 1024 + 9, "at 0": 0}
    if kind in cut:
        return whole[: cut[kind]]
    if kind == "a header of zeros":
        return whole[:1024] + bytes(512) + whole[1536:]
    if kind == "a header of noise":
        return whole[:1024] + b"x" * 512 + whole[1536:]
    return b"no tar" * 200


@pytest.mark.parametrize(
    "kind",
    ["in a member", "before a header", "in a header", "at 0", "a header of zeros",
     "a header of noise", "no tar"],
)  # fmt: skip
def test_a_damaged_tar_is_no_shorter_tar(kind: str, tmp_path: Path) -> None:
    names = ("0.jpg", "1.jpg", "2.jpg")
    path = tmp_path / "a.tar"
    shard = tar(path, dict.fromkeys(names, JPEG))
    path.write_bytes(damaged(kind, path.read_bytes()))
    with pytest.raises(ShardError, match="a.tar"):
        [*read_shard(shard)]


def test_a_compressed_tar_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    shard = tar(path, {f"{i}.jpg": bytes(range(256)) * i for i in range(9)}, "w:gz")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ShardError, match=r"a\.tar\.gz"):
        [*read_shard(shard)]
    path.write_bytes(gzip.compress(b"x"))
    with pytest.raises(ShardError, match=r"a\.tar\.gz"):
        [*read_shard(shard)]


def test_a_tar_without_images_and_one_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="2 members, none of which is an image"):
        [*read_shard(tar(tmp_path / "a.tar", {"0.json": b"{}", "0.txt": b""}))]
    with pytest.raises(ShardError, match=r"b\.tar"):
        [*read_shard(Shard("name", str(tmp_path / "b.tar")))]


def test_parquet_with_bytes_and_keys(tmp_path: Path) -> None:
    shard = parquet(
        tmp_path / "a.parquet", jpg=[b"0", None, b"2"], key=["a", "b", "a"], url=["u", None, "v"]
    )
    first, second, third = read_shard(shard)
    assert (first, third) == (Item("a", "u", b"0"), Item("a", "v", b"2"))
    assert (second.key, second.content) == ("b", b"") and "row 1: no image" in second.error


def test_parquet_with_paths_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(JPEG)
    far = str(tmp_path / "far.jpg")
    shard = parquet(tmp_path / "a.parquet", path=["x.jpg", far], other=[1, 2])
    first, second = read_shard(shard)
    assert first == Item("0", str(tmp_path / "x.jpg"), JPEG)
    assert second.error == f"{far}: no such file"


def test_parquet_as_hugging_face_writes_it(tmp_path: Path) -> None:
    shard = parquet(tmp_path / "a.parquet", image=[{"bytes": JPEG, "path": "x.jpg"}])
    assert [*read_shard(shard)] == [Item("0", "x.jpg", JPEG)]


def test_named_columns_of_parquet(tmp_path: Path) -> None:
    shard = parquet(tmp_path / "a.parquet", image=[b"no"], mine=[b"yes"], id=[7])
    assert [*read_shard(shard, "mine", "id")] == [Item("7", None, b"yes")]
    for column, key, message in [
        ("id", None, "no column 'id'"),
        ("absent", None, "found image .binary.,"),
        (None, "absent", "no column 'absent': expected one of image, mine, id"),
    ]:
        with pytest.raises(ShardError, match=message):
            [*read_shard(shard, column, key)]


def test_damaged_parquet_is_refused(tmp_path: Path) -> None:
    shard = parquet(tmp_path / "a.parquet", image=[JPEG] * 5)
    path = Path(shard.url)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ShardError, match="a.parquet"):
        [*read_shard(shard)]


def test_a_list_of_files_gives_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(JPEG)
    places = tuple(str(tmp_path / name) for name in ("x.jpg", "absent.jpg", "."))
    first, second, third = read_shard(Shard("name", "list.txt", places))
    assert first == Item(places[0], places[0], JPEG)
    assert second.error == f"{places[1]}: no such file"
    assert third.error == f"{places[2]}: a folder: expected a file"
