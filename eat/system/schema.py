"""Plain values, as JSON and YAML hold them, checked against type annotations."""

import math
import reprlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def typed(kind: Any, value: Any, name: str) -> Any:
    """A plain value as ``kind``: lists become tuples, and objects the dataclasses asked for.

    Args:
        kind: an annotation of plain types, Literal, tuple, Sequence, dict, dataclasses and unions.
        value: what was read.
        name: of the value, in messages.

    Raises:
        ValueError: naming the value, what was found and what is expected.
    """
    if kind is Any:
        return value
    if is_dataclass(kind) and isinstance(value, dict):
        return _from_object(kind, value, f"{name}." if name else "")
    origin, kinds = get_origin(kind), get_args(kind)
    if origin in (UnionType, Union):  # Literal | None is the latter
        for one in kinds:
            with suppress(ValueError):
                return typed(one, value, name)
    elif origin in (tuple, list, Sequence) and isinstance(value, list | tuple):
        fixed = origin is tuple and kinds[-1] is not Ellipsis
        each = kinds if fixed else kinds[:1] * len(value)
        if len(each) == len(value):
            found = (typed(one, v, name) for one, v in zip(each, value, strict=True))
            return list(found) if origin is list else tuple(found)
    elif origin is dict and isinstance(value, dict):
        return {key: typed(kinds[1], v, f"{name}.{key}") for key, v in value.items()}
    elif origin is Literal and isinstance(value, str) and value in kinds:
        return value
    elif kind is float and type(value) in (int, float):
        with suppress(OverflowError):
            return float(value)
    elif type(value) is kind:
        return value
    raise ValueError(f"{name} is {reprlib.repr(value)}: expected {in_words(kind)}")


def in_words(kind: Any) -> str:
    """What an annotation of plain types allows."""
    origin, kinds = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(kinds[:-1]) + f" or {kinds[-1]}" if len(kinds) > 1 else kinds[0]
    if origin in (UnionType, Union):
        return " or ".join(map(in_words, kinds))
    if origin in (tuple, list, Sequence):
        if origin is tuple and kinds[-1] is not Ellipsis:
            return f"a list of {len(kinds)}: {', '.join(map(in_words, kinds))}"
        return f"a list of {in_words(kinds[0])}"
    if origin is dict or is_dataclass(kind):
        return "a mapping"
    return {None: "null", type(None): "null"}.get(kind, kind.__name__)


def _from_object(kind: Any, content: dict[str, Any], prefix: str) -> Any:
    """An object of JSON as a dataclass."""
    types = get_type_hints(kind)
    for item in fields(kind):
        if item.name not in content and item.default is item.default_factory is MISSING:
            raise ValueError(f"{prefix}{item.name} is missing")
    for name in content:
        if name not in types:
            raise ValueError(f"{prefix}{reprlib.repr(name)} is unknown")
    return kind(**{n: typed(types[n], v, prefix + n) for n, v in content.items()})


def check_range(
    name: str, value: float | Sequence[float] | None, low: float, high: float = math.inf
) -> None:
    """Refuse a number, or a sequence of them, outside [low, high]; NaN lies outside.

    Raises:
        ValueError: naming the value, what was found and what is expected.
    """
    for number in value if isinstance(value, Sequence) else (value,):
        if number is not None and not low <= number <= high:
            bounds = f"at least {low:.10g}" if high == math.inf else f"{low:.10g} to {high:.10g}"
            raise ValueError(f"{name} is {reprlib.repr(number)}: expected {bounds}")
