"""Search spaces of nni's format: what is drawn from them, and what is refused."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eat.tuning.space import SIZES, Space, draw, read_space

ROOT = Path(__file__).parents[2]


class At:
    """Suggests what lies a share of the way from the first to the last possible value."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.suggested: Any = None

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return choices[self.suggest_int(name, 0, len(choices) - 1)]

    def suggest_int(self, name: str, low: int, high: int) -> int:
        return round(low + self.share * (high - low))

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        ends = [math.log(end) if log else end for end in (low, high)]
        value = ends[0] + self.share * (ends[1] - ends[0])
        self.suggested = min(max(math.exp(value) if log else value, low), high)
        return self.suggested


shares = st.floats(0, 1)
numbers = st.floats(-1e3, 1e3)
rates = st.floats(1e-6, 1e3)


@settings(deadline=None, max_examples=50)
@given(shares, st.lists(st.none() | st.booleans() | st.integers() | st.text(), min_size=1))
def test_a_choice_is_one_of_the_values(share: float, values: list[Any]) -> None:
    assert draw(At(share), "x", "choice", values) in values


@settings(deadline=None, max_examples=50)
@given(shares, st.integers(-99, 99), st.integers(1, 99))
def test_randint_leaves_out_its_end(share: float, low: int, size: int) -> None:
    value = draw(At(share), "x", "randint", [low, low + size])
    assert type(value) is int and low <= value < low + size


@settings(deadline=None, max_examples=50)
@given(shares, rates, rates, st.sampled_from(["uniform", "loguniform"]), rates)
def test_numbers_are_within_their_range_and_of_a_grid_the_nearest(
    share: float, low: float, size: float, kind: str, q: float
) -> None:
    high = low + size
    value = draw(At(share), "x", kind, [low, high])
    assert low <= value <= high
    rounded = draw(At(share), "x", f"q{kind}", [low, high, q])
    assert low <= rounded <= high
    on_grid = rounded / q == pytest.approx(round(rounded / q), abs=1e-6)
    # nni's values are multiples of q, and the ends of the range in place of those beyond them.
    assert abs(rounded - value) <= q / 2 * (1 + 1e-9) if on_grid else rounded in (low, high)


@settings(deadline=None, max_examples=50)
@given(shares, numbers, st.floats(0.01, 10), st.floats(0.1, 5))
def test_normals_have_their_quantiles(share: float, mu: float, sigma: float, q: float) -> None:
    value = draw(At(share), "x", "normal", [mu, sigma])
    assert draw(At(1 - share), "x", "normal", [mu, sigma]) == pytest.approx(
        2 * mu - value, abs=1e-3
    )
    assert abs(value - mu) <= 6.1 * sigma
    rounded = draw(At(share), "x", "qnormal", [mu, sigma, q])
    assert abs(rounded - value) <= q / 2 * (1 + 1e-9)
    assert rounded / q == pytest.approx(round(rounded / q), abs=1e-6)
    assert draw(At(share), "x", "lognormal", [0, sigma]) == pytest.approx(
        math.exp(draw(At(share), "x", "normal", [0, sigma]))
    )


def test_a_list_is_a_choice_as_text_which_options_take() -> None:
    assert draw(At(0), "x", "choice", [[2, 2, 6, 2], None]) == "[2, 2, 6, 2]"


@pytest.mark.parametrize("name", ["search_space.json", "search_space_authors.json"])
def test_corners_of_the_shipped_spaces_have_every_choice_and_end(name: str) -> None:
    space = read_space(ROOT / name)
    corners = space.corners()
    for key, rule in space.rules.items():
        assert {corner[key] for corner in corners} == {*rule["_value"]}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (3, "'x': found 3, expected _type and _value"),
        (
            {"_type": "choices", "_value": [1]},
            "_type is 'choices': expected choice, randint,",
        ),
        ({"_type": "choice", "_value": []}, r"_value of choice is \[\]: expected a list of one"),
        ({"_type": "choice", "_value": [{"_name": "a"}]}, "'x': nested choices are not taken"),
        ({"_type": "uniform", "_value": [1, 1]}, r"_value of uniform is \[1, 1\]: expected \[low"),
        ({"_type": "uniform", "_value": [0, "1"]}, "_value of uniform"),
        ({"_type": "uniform", "_value": [0, math.nan]}, "_value of uniform"),
        ({"_type": "uniform", "_value": [0, True]}, "_value of uniform"),
        ({"_type": "loguniform", "_value": [0, 1]}, "with 0 < low"),
        ({"_type": "quniform", "_value": [0, 1]}, "and q > 0 as third"),
        ({"_type": "quniform", "_value": [0, 1, 0]}, "and q > 0 as third"),
        ({"_type": "randint", "_value": [3, 3]}, "_value of randint"),
        ({"_type": "normal", "_value": [0, 0]}, r"expected \[mu, sigma\]"),
        ({"_type": "lognormal", "_value": [0, 1e9]}, "expected a smaller sigma"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(rule: Any, message: str, tmp_path: Path) -> None:
    (file := tmp_path / "space.json").write_text(json.dumps({"x": rule}))
    with pytest.raises(ValueError, match=message):
        read_space(file)


@pytest.mark.parametrize("text", ["", "[1]", "{}", "[" * 9000, "\0"])
def test_a_file_that_is_no_space_is_one_message(text: str, tmp_path: Path) -> None:
    (file := tmp_path / "space.json").write_text(text)
    with pytest.raises(ValueError, match="space.json: (no JSON|found)"):
        read_space(file)


def test_one_option_under_two_names_is_refused(tmp_path: Path) -> None:
    rule = {"_type": "uniform", "_value": [0, 1]}
    (file := tmp_path / "space.json").write_text(json.dumps({"init_lr": rule, "optim.lr": rule}))
    with pytest.raises(ValueError, match="optim.lr is there under two names"):
        read_space(file)


def test_optuna_draws_from_every_type() -> None:
    optuna = pytest.importorskip("optuna", reason="Optuna is not installed")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    values = {"choice": [True, [1, 2]], "randint": [1, 4], "uniform": [0, 1], "loguniform": [1, 2]}
    values |= {"normal": [0, 1], "lognormal": [0, 1]}
    values |= {f"q{kind}": [*values[kind], 0.5] for kind in SIZES if f"q{kind}" in SIZES}
    assert values.keys() == SIZES.keys()
    space = Space({kind: {"_type": kind, "_value": v} for kind, v in values.items()})
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(n_startup_trials=2))
    for _ in range(5):
        drawn = space.draw(trial := study.ask())
        assert json.loads(json.dumps(drawn)) == drawn and drawn.keys() == values.keys()
        assert space.draw(trial) == drawn  # as a trial that is taken up again
        study.tell(trial, drawn["uniform"])
