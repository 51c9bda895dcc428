"""The folder of scores, and rows gathered until a shard is complete."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import full_disk

from eat.bulk.gathering import Gathered, Gathering, rows_schema
from eat.bulk.output import Counts, OutFolder, output_schema
from eat.bulk.shards import Shard

A, B = Shard("a-1", "in/a.tar"), Shard("b-2", "in/b.tar")
IMAGES = Shard("x-000000-01234567", "x", ("1.jpg",))


def rows(number: int, places: list[int], end: int | None = None, error: str = "") -> pa.Table:
    """Rows of a shard under way, and one at its end; place 3 has an error."""
    found: list[dict[str, Any]] = [
        {"number": number, "place": place, "end": False, "key": f"k{place}", "votes": [0.5, 0.5],
         "score": None if place == 3 else place / 2, "error": "broken" if place == 3 else None}
        for place in places
    ]  # fmt: skip
    if end is not None:
        found.append({"number": number, "place": end, "end": True, "error": error or None})
    return pa.Table.from_pylist(found, schema=rows_schema(["score"]))


def gathered(*blocks: pa.Table) -> list[Gathered]:
    gathering = Gathering({0: A, 1: B})
    return [one for block in blocks for one in gathering.add(block)]


def test_rows_are_put_in_order_however_they_come() -> None:
    late, early = gathered(
        rows(0, [2, 3]), rows(1, [], end=0), pa.concat_tables([rows(1, [9]), rows(0, [0], end=4)]),
        rows(0, [1]),
    )  # fmt: skip
    assert (late.shard, early.shard) == (B, A)
    assert late.rows is not None and len(late.rows) == 0
    assert early.rows is not None and early.rows["key"].to_pylist() == ["k0", "k1", "k2", "k3"]
    assert early.rows.schema == output_schema()


def test_rows_that_come_again_count_once() -> None:
    (one,) = gathered(rows(0, [0, 1]), rows(0, [0, 1, 2, 2], end=3), rows(0, [0, 1, 2], end=3))
    assert one.rows is not None and one.rows["key"].to_pylist() == ["k0", "k1", "k2"]


def test_a_shard_that_lacks_an_image_is_left() -> None:
    gathering = Gathering({0: A, 1: B})
    assert [*gathering.add(rows(0, [0, 2], end=3))] == []
    assert gathering.left() == [A, B]


def test_a_shard_of_other_images_than_its_reader_gave_is_refused() -> None:
    (one,) = gathered(rows(0, [0, 5], end=2))
    assert one.rows is None and "of 2 images, or of others" in one.error


def test_a_reader_that_could_not_go_on_ends_its_shard() -> None:
    (one,) = gathered(rows(0, [0, 1]), rows(0, [], end=2, error="cut off"), rows(0, [0, 1], end=2))
    assert (one.shard, one.rows, one.error) == (A, None, "cut off")


def written(folder: Path, shard: Shard, table: pa.Table) -> Counts:
    return OutFolder(str(folder), {"a": 1}).write(shard, table)


def whole(places: list[int]) -> pa.Table:
    (one,) = gathered(rows(0, places, end=len(places)))
    assert one.rows is not None
    return one.rows


def test_outputs_are_read_as_one_table_and_count_what_they_hold(tmp_path: Path) -> None:
    assert written(tmp_path, A, whole([0, 1, 2, 3])) == Counts(4, 1)
    assert written(tmp_path, B, whole([])) == Counts(0, 0)
    OutFolder(str(tmp_path), {"a": 1}).write_summary({"images": 4})
    table = pd.read_parquet(tmp_path)
    assert table["shard"].tolist() == ["in/a.tar"] * 4
    assert table["score"].isna().tolist() == [False, False, False, True]
    folder = OutFolder(str(tmp_path), {"a": 1})
    assert folder.finished == {"a-1": Counts(4, 1), "b-2": Counts(0, 0)}
    assert folder.has(A) and not folder.has(Shard("c-3", "c.tar"))
    assert folder.read_summary() == {"images": 4}
    names = [path.name for path in tmp_path.glob("*.parquet")]
    schemas = {name: pq.read_schema(tmp_path / name).remove_metadata() for name in names}
    assert [*schemas.values()] == [output_schema()] * 2


def test_targets_have_columns_and_no_name_of_another() -> None:
    assert output_schema(["score", "color"]).names[-1] == "color"
    with pytest.raises(ValueError, match="target 'url' has the name of a column"):
        output_schema(["color", "url"])


def test_other_settings_and_what_is_not_ours_are_refused(tmp_path: Path) -> None:
    OutFolder(str(tmp_path / "a"), {"a": 1}).write_summary({})
    with pytest.raises(ValueError, match=r"other settings: a \(was 1, now 2\)"):
        OutFolder(str(tmp_path / "a"), {"a": 2})
    (tmp_path / "a/_settings.json").write_text("{")
    with pytest.raises(ValueError, match="_settings.json: damaged"):
        OutFolder(str(tmp_path / "a"), {"a": 1})
    (tmp_path / "b").mkdir()
    (tmp_path / "b/photo.jpg").touch()
    with pytest.raises(ValueError, match="not of this command's making, with 'photo.jpg'"):
        OutFolder(str(tmp_path / "b"), {"a": 1})


def test_two_calls_at_a_time_do_not_write_into_one_folder(tmp_path: Path) -> None:
    first = OutFolder(str(tmp_path / "a"), {"a": 1})
    first.write_summary({})
    with pytest.raises(ValueError, match="a: another call writes into it: wait"):
        OutFolder(str(tmp_path / "a"), {"a": 1})
    del first
    OutFolder(str(tmp_path / "a"), {"a": 1})


def test_images_that_came_or_went_are_told(tmp_path: Path) -> None:
    written(tmp_path, IMAGES, whole([0]))
    folder = OutFolder(str(tmp_path), {"a": 1})
    assert folder.has(IMAGES)
    with pytest.raises(ValueError, match="images came or went"):
        folder.has(Shard("x-000000-89abcdef", "x", ("2.jpg",)))
    assert not folder.has(Shard("x-000001-89abcdef", "x", ("2.jpg",)))


def test_two_outputs_of_a_shard_are_refused(tmp_path: Path) -> None:
    written(tmp_path, A, whole([0, 1]))
    written(tmp_path, A, whole([0, 1, 2, 3]))
    with pytest.raises(ValueError, match="two outputs of one shard"):
        OutFolder(str(tmp_path), {"a": 1})


def test_a_full_disk_leaves_no_output(tmp_path: Path) -> None:
    folder = OutFolder(str(tmp_path), {"a": 1})
    with full_disk(), pytest.raises(OSError, match="a-1"):
        folder.write(A, whole([*range(4)]))
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["_settings.json"]


def test_what_a_killed_call_left_is_removed(tmp_path: Path) -> None:
    OutFolder(str(tmp_path), {"a": 1})
    (tmp_path / ".a-1.n4.e1.parquet.12345").write_bytes(b"half")
    OutFolder(str(tmp_path), {"a": 1})
    assert [path.name for path in tmp_path.iterdir()] == [
        ".lock"
    ]  # and nothing is begun before there is a score
