"""The statistics of a report, against numbers worked out by hand."""

import pytest

from eat.experiments.report import (
    estimate,
    paired,
    show_difference,
    slice_cells,
    summarise,
)
from eat.experiments.results import COLUMNS, Record


def record(row: str, seed: int, srcc: float | None, **more: object) -> Record:
    return dict.fromkeys(COLUMNS) | {"row": row, "seed": seed, "srcc": srcc} | more


def test_mean_deviation_and_interval_by_hand() -> None:
    found = estimate([1.0, 2.0, 3.0])
    assert (found.mean, found.deviation) == (2, 1)
    assert found.half_width == pytest.approx(4.302653 / 3**0.5, abs=1e-6)  # t of 2 degrees, 97.5%


def test_fewer_than_three_values_have_no_interval_and_one_no_deviation() -> None:
    two = estimate([1.0, 3.0])
    assert two.deviation == pytest.approx(2**0.5) and two.half_width is None
    assert estimate([1.0]).deviation is None


def test_differences_are_taken_seed_by_seed() -> None:
    found = paired({0: 0.90, 1: 0.80, 2: 0.70, 7: 0.1}, {0: 0.91, 1: 0.82, 2: 0.73})
    assert found is not None
    assert found.count == 3 and found.mean == pytest.approx(0.02)
    assert found.deviation == pytest.approx(0.01)
    assert show_difference(found) == "+0.020 [-0.005, +0.045]"  # 4.3027 * 0.01 / sqrt(3) = 0.0248
    assert paired({0: 1.0}, {1: 1.0}) is None


def test_rows_are_summed_up_over_their_seeds_and_failures_set_apart() -> None:
    first, second = summarise(
        [
            record("a", 0, 0.5, point_spread='{"x": 0.3, "y": 0.1}'),
            record("b", 0, 0.6),
            record("a", 1, 0.7, point_spread='{"x": 0.2, "y": 0.4}'),
            record("b", 1, None, failed="no room"),
        ]
    )
    assert first.mean("srcc") == pytest.approx(0.6) and first.difference() is None
    assert first.spread() == pytest.approx(0.15)  # the least of each seed's blocks
    difference = second.difference()
    assert difference is not None and difference.mean == pytest.approx(0.1)
    assert [r["seed"] for r in second.failed] == [1]


def test_slices_are_told_against_the_whole_split_of_the_same_seed() -> None:
    rows = summarise(
        [
            record("a", 0, 0.5, slices='{"Sky": 0.25, "Water": 0.75}'),
            record("a", 1, 0.7, slices='{"Sky": 0.55}'),
            record("b", 0, 0.6, slices='{"Sky": 0.6}'),
        ]
    )
    sky = rows[0].slices()["Sky"]
    assert sky.mean == pytest.approx(-0.2) and sky.count == 2
    assert slice_cells(rows, {}) == {
        "slice": ["Sky", "Water"],
        "a": ["-0.200 \u00b1 0.071", "+0.250"],
        "b": ["+0.000", "-"],
    }
    assert slice_cells(summarise([record("a", 0, 0.5)]), {}) == {}
