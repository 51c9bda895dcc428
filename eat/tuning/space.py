"""Search spaces: nni's files, checked, and drawn from by any engine that suggests values."""

import json
import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, Protocol

from eat.system.files import regular
from eat.tuning.trial import ALIASES

MAX_BYTES = 2**20
TAIL = 1e-9  # of a normal distribution is cut off at either end, beyond six sigma
SIZES = {"choice": "a list of one or more", "randint": "[low, high]: low, and integers below high"}
SIZES |= {"uniform": "[low, high]", "loguniform": "[low, high] with 0 < low"}
SIZES |= {"normal": "[mu, sigma]", "lognormal": "[mu, sigma]"}
SIZES |= {f"q{kind}": f"{SIZES[kind]}, and q > 0 as third" for kind in [*SIZES][2:]}


class Suggests(Protocol):
    """What draws values; a trial of Optuna's is one."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """An integer, ``high`` included."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number, with ``log`` one whose logarithm is uniform."""


@dataclass(frozen=True)
class Corner:
    """Suggests the ends of every range, and one choice after the other."""

    place: int

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return choices[self.place % len(choices)]

    def suggest_int(self, name: str, low: int, high: int) -> int:
        return (low, high)[self.place % 2]

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return (low, high)[self.place % 2]


@dataclass(frozen=True)
class Space:
    """A checked search space, as nni's file has it: ``{name: {"_type": ..., "_value": ...}}``."""

    rules: Mapping[str, Mapping[str, Any]]

    def draw(self, trial: Suggests) -> dict[str, Any]:
        """Values by name, distributed as nni's."""
        return {n: draw(trial, n, rule["_type"], rule["_value"]) for n, rule in self.rules.items()}

    def corners(self) -> list[dict[str, Any]]:
        """Values in which each choice and each end of a range occurs."""
        sizes = [len(r["_value"]) for r in self.rules.values() if r["_type"] == "choice"]
        return [self.draw(Corner(place)) for place in range(max([2, *sizes]))]


def draw(trial: Suggests, name: str, kind: str, values: Sequence[Any]) -> Any:
    """One value of a type of nni's.

    Optuna has no normal distributions, and keeps the ends of a range on the grid of its steps. So a
    normal one is drawn by its quantile, and multiples of q are rounded after the draw, as nni does.
    """
    if kind == "choice":
        # A list goes the same way as one on the command line: as text.
        plain = [json.dumps(v) if isinstance(v, list | dict) else v for v in values]
        return trial.suggest_categorical(name, plain)
    if kind == "randint":
        return trial.suggest_int(name, math.ceil(values[0]), math.ceil(values[1]) - 1)
    if kind.endswith("normal"):
        quantile = trial.suggest_float(name, TAIL, 1 - TAIL)
        value = NormalDist(values[0], values[1]).inv_cdf(quantile)
        value = math.exp(value) if "log" in kind else value
    else:
        value = trial.suggest_float(name, values[0], values[1], log="log" in kind)
    if kind.startswith("q"):
        value = round(value / values[2]) * values[2]
        if kind.endswith("uniform"):
            value = min(max(value, values[0]), values[1])
    return value


def read_space(path: str | Path) -> Space:
    """Read nni's file of a search space.

    Raises:
        ValueError: it is none, or a parameter in it is of no use; naming it.
        OSError: it cannot be read.
    """
    file = regular(Path(path).expanduser(), MAX_BYTES)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: no JSON ({str(error):.100}): expected a search space") from None
    if not isinstance(found, dict) or not found:
        raise ValueError(
            f"{path}: found {reprlib.repr(found)}, expected parameters by name, as "
            '{"init_lr": {"_type": "loguniform", "_value": [0.0003, 0.003]}}'
        )
    for name, rule in found.items():
        if problem := fault(rule):
            raise ValueError(f"{path}: {reprlib.repr(name)}: {problem}")
    options = [ALIASES.get(name, name) for name in found]
    if twice := {name for name in options if options.count(name) > 1}:
        raise ValueError(f"{path}: {twice.pop()} is there under two names: leave out one")
    space = Space(found)
    try:
        space.corners()
    except OverflowError:
        raise ValueError(f"{path}: its values have no end: expected a smaller sigma") from None
    return space


def fault(rule: Any) -> str | None:
    """What is wrong with a parameter of a search space; None if nothing is."""
    if not isinstance(rule, dict) or not {"_type", "_value"} <= rule.keys():
        return f"found {reprlib.repr(rule)}, expected _type and _value"
    kind, values = rule["_type"], rule["_value"]
    if not isinstance(kind, str) or kind not in SIZES:
        return f"_type is {reprlib.repr(kind)}: expected {', '.join(SIZES)}"
    if not _fits(kind, values):
        return f"_value of {kind} is {reprlib.repr(values)}: expected {SIZES[kind]}"
    if kind == "choice" and any(isinstance(v, dict) and "_name" in v for v in values):
        return "nested choices are not taken: give each parameter a line of its own"
    return None


def _fits(kind: str, values: Any) -> bool:
    """Whether values are those of a type of nni's."""
    if not isinstance(values, list) or kind == "choice":
        return bool(values) and isinstance(values, list)
    numbers = [v for v in values if type(v) in (int, float) and abs(v) < 1e300]
    if len(numbers) != len(values) or len(values) != (3 if kind[0] == "q" else 2):
        return False
    low, high = values[:2]
    if kind == "randint":
        return math.ceil(low) < math.ceil(high) and max(abs(low), abs(high)) < 2**53
    if kind[0] == "q" and values[2] <= 0:
        return False
    return high > 0 if kind.endswith("normal") else low < high and (low > 0 or "log" not in kind)
