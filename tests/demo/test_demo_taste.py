"""What a visitor says of photographs: what is asked next, and the tables that come of it."""

from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the demo needs gradio")
from eat.demo.compare import crops
from eat.demo.photographs import Photograph
from eat.demo.taste import choices_table, next_pair, next_to_rate, ratings_table
from eat.scoring import Score


def photographs(count: int) -> list[Photograph]:
    files = [Path(f"/photos/{k}.jpg") for k in range(count)]
    return [
        Photograph(file, Path(f"{(7 * k) % count}.jpg"), (300, 200), Score(file.name, 5.0))
        for k, file in enumerate(files)
    ]


def test_every_photograph_is_asked_for_once_and_skipped_ones_again() -> None:
    found = photographs(5)
    rated: dict[str, int] = {}
    one = next_to_rate(found, rated, None)
    skipped = one
    asked = []
    while one := next_to_rate(found, rated, one):
        asked.append(one)
        rated[one.key] = 3
    assert len(asked) == 5 and {*asked} == {*found} and asked[-1] is skipped
    assert next_to_rate([], {}, None) is None


def test_no_pair_is_asked_for_twice_and_all_photographs_are_seen_alike() -> None:
    found, chosen = photographs(6), []
    while pair := next_pair(found, chosen):
        chosen.append((pair[0].key, pair[1].key))
        if len(chosen) == 3:
            assert len({key for keys in chosen for key in keys}) == 6
    assert len({frozenset(pair) for pair in chosen}) == len(chosen) == 15
    assert next_pair(found[:1], []) == []


def test_tables_leave_out_photographs_that_are_gone() -> None:
    found = photographs(3)
    said = {one.key: rating for rating, one in enumerate(found, start=1)}
    table = ratings_table(found[1:], said, lambda one: one.name)
    assert table.to_csv(index=False) == "image,score\n1.jpg,2\n2.jpg,3\n"
    pairs = [(found[0].key, found[1].key), (found[2].key, found[1].key)]
    table = choices_table(found[1:], pairs, lambda one: str(one.file))
    assert table.to_csv(index=False) == "winner,loser\n/photos/2.jpg,/photos/1.jpg\n"


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (1, 1), (5000, 3)])
@pytest.mark.parametrize("place", [0, 0.35, 1])
def test_crops_are_the_largest_of_their_shape_and_within_the_photograph(
    size: tuple[int, int], place: float
) -> None:
    photo = Photograph(Path("a.jpg"), Path("a.jpg"), size, Score("a.jpg", 5.0))
    whole, *cut = crops(photo, ["whole", "1:1", "3:2", "2:3"], place)
    assert whole is None
    for crop in cut:
        assert 0 <= crop.left <= crop.left + crop.width <= size[0]
        assert 0 <= crop.top <= crop.top + crop.height <= size[1]
        assert crop.width == size[0] or crop.height == size[1]
        assert min(crop.width, crop.height) >= 1
