"""What is given, cut into shards: which files, by which names, the same in each call."""

from pathlib import Path

import pytest

from eat.bulk.shards import Shard, find_shards, read_list


def made(folder: Path, *names: str) -> list[str]:
    """Empty files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return [str(folder / name) for name in names]


def found(*given: object, size: int = 2, out: str = "/nowhere/out") -> list[Shard]:
    return [*find_shards([str(place) for place in given], size, out)]


def test_a_tar_or_parquet_file_is_a_shard_and_images_are_cut(tmp_path: Path) -> None:
    made(
        tmp_path,
        "b.tar",
        "a.tar.gz",
        "c.parquet",
        "1.jpg",
        "2.JPG",
        "x/3.png",
        "notes.md",
        "words.json.gz",
    )
    shards = found(tmp_path)
    assert [Path(s.url).name for s in shards if s.images is None] == [
        "a.tar.gz", "b.tar", "c.parquet"
    ]  # fmt: skip
    images = [s.images for s in shards if s.images is not None]
    names = ["1.jpg", "2.JPG", "x/3.png"]
    assert images == [
        tuple(str(tmp_path / n) for n in names[:2]),
        (str(tmp_path / names[2]),),
    ]


def test_names_are_the_same_from_any_folder_and_differ_for_files_of_one_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, "a/0.tar", "b/0.tar")
    whole = [shard.name for shard in found(tmp_path / "a/0.tar", tmp_path / "b/0.tar")]
    assert len({*whole}) == 2 and all(name.startswith("0-") for name in whole)
    monkeypatch.chdir(tmp_path / "a")
    assert [shard.name for shard in found("0.tar", "./0.tar", "../b/*.tar")] == whole


def test_a_list_names_tars_and_images_relative_to_its_folder(tmp_path: Path) -> None:
    made(tmp_path, "a.jpg")
    (tmp_path / "list.txt").write_bytes(b"a.jpg\r\n\n/far/b.jpg\nt.tar\ns3://bucket/c d.jpg\n")
    first, tar, second = found(tmp_path / "list.txt")
    assert tar.url == str(tmp_path / "t.tar")
    assert first.images == (str(tmp_path / "a.jpg"), "/far/b.jpg")
    assert second.images == ("s3://bucket/c d.jpg",)


def test_lists_of_windows_are_read_and_what_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfx.jpg\r\n\r\ny.jpg")
    assert [*read_list(str(path))] == [str(tmp_path / "x.jpg"), str(tmp_path / "y.jpg")]
    path.write_bytes("x.jpg\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"a\.txt: no list: found a zero byte"):
        [*read_list(str(path))]


def test_of_compressed_files_in_a_folder_only_tars_count(tmp_path: Path) -> None:
    for name in ("a.tar.gz", "notes.csv.gz", "b.jpg"):
        (tmp_path / name).touch()
    tar, images = find_shards([str(tmp_path)], 10, str(tmp_path / "out"))
    assert tar.url.endswith("a.tar.gz") and images.images == (str(tmp_path / "b.jpg"),)


def test_images_that_a_shell_names_make_one_list(tmp_path: Path) -> None:
    names = made(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    assert [shard.images for shard in found(*names)] == [tuple(names[:2]), (names[2],)]


def test_other_images_in_the_place_of_a_shard_change_its_name_but_not_its_group(
    tmp_path: Path,
) -> None:
    made(tmp_path, "1.jpg", "3.jpg")
    before = found(tmp_path)[0]
    made(tmp_path, "2.jpg")
    after = found(tmp_path)[0]
    assert before.name != after.name and before.group == after.group


def test_what_describes_a_tar_and_raw_twins_are_left_out(tmp_path: Path) -> None:
    made(tmp_path, "0.tar", "0.parquet", "1.parquet", "a.jpg", "a.cr2", "b.cr2")
    shards = found(tmp_path, size=9)
    places = [place for s in shards for place in (s.images or [s.url])]
    assert [Path(p).name for p in places] == ["0.tar", "1.parquet", "a.jpg", "b.cr2"]


def test_scores_within_a_folder_that_is_scored_are_not_taken(tmp_path: Path) -> None:
    made(tmp_path, "1.jpg", "scores/0.parquet")
    assert len(found(tmp_path, out=str(tmp_path / "scores"))) == 1
    with pytest.raises(ValueError, match="also to be scored"):
        found(tmp_path, out=f"{tmp_path}/")


@pytest.mark.parametrize("given", ["empty", "nothing/*.tar", "empty/*.jpg", "absent"])
def test_what_holds_nothing_is_refused(given: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="found no tars, Parquet files or images there"):
        found(tmp_path / given)


def test_a_crop_is_told_to_be_for_the_other_engine(tmp_path: Path) -> None:
    made(tmp_path, "a.jpg")
    with pytest.raises(ValueError, match="crops are scored with --engine local alone"):
        found(f"{tmp_path}/a.jpg[64x64+0+0]")
