"""Plain values against annotations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from eat.system.schema import check_range, typed


@dataclass
class Point:
    x: float
    name: str = ""


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (float, 3, 3.0),
        (int | tuple[int, int], [3, 4], (3, 4)),
        (Sequence[str], ["a", "b", "c"], ("a", "b", "c")),
        (tuple[float, ...], [], ()),
        (Literal["a", "b"] | None, "b", "b"),
        (Literal["a"] | list[Literal["a"]], ["a"], ["a"]),
        (dict[str, dict[str, Any]], {"a": {"b": [None]}}, {"a": {"b": [None]}}),
        (Point | None, {"x": 1}, Point(1.0)),
    ],
)
def test_values_that_fit_become_what_is_asked_for(kind: Any, value: Any, expected: Any) -> None:
    found = typed(kind, value, "it")
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (int, True, "it is True: expected int"),
        (float, 10**400, "it is 1000000.*: expected float"),
        (Sequence[str], "abc", r"it is 'abc': expected a list of str"),
        (tuple[int, int], [1, 2, 3], r"it is \[1, 2, 3\]: expected a list of 2: int, int"),
        (Literal["a"], ["a"], r"it is \['a'\]: expected a"),
        (dict[str, dict[str, Any]], {"a": None}, "it.a is None: expected a mapping"),
        (
            Literal["a", "b"] | list[str] | None,
            1,
            "it is 1: expected a or b or a list of str or null",
        ),
        (Point, {}, "it.x is missing"),
        (Point, {"x": 1, "z": 2}, "it.'z' is unknown"),
        (str, 9 * b"x", "it is b'xxxxxxxxx': expected str"),
    ],
)
def test_values_that_do_not_fit_are_named(kind: Any, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        typed(kind, value, "it")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", [0, 6, float("nan"), float("inf"), 10**400, [3, 0]])
def test_numbers_out_of_range_are_named(value: Any) -> None:
    check_range("it", [1, 5, 2.5], 1, 5)
    check_range("it", None, 1, 5)
    with pytest.raises(ValueError, match=r"^it is .*: expected 1 to 5$"):
        check_range("it", value, 1, 5)


@pytest.mark.parametrize("value", [0, float("nan"), float("-inf"), -(10**400)])
def test_a_number_without_an_upper_bound_has_its_lower_one_named(value: Any) -> None:
    check_range("it", [1, 10**400], 1)
    with pytest.raises(ValueError, match=r"^it is .*: expected at least 1$"):
        check_range("it", value, 1)
