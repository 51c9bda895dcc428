"""Plain values, as JSON and YAML have them, to dataclasses, each checked against its type."""

import reprlib
from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints


def from_plain(kind: Any, value: Any, name: str = "") -> Any:
    """A value of JSON or YAML as ``kind``: a dataclass, or the type of a field of one.

    Raises:
        ValueError: naming the value, what was found and what is expected.
    """
    if is_dataclass(kind) and isinstance(value, dict):
        return _fields(kind, value, f"{name}." if name else "")
    origin, kinds = get_origin(kind), get_args(kind)
    if origin is UnionType:
        kinds = tuple(k for k in kinds if k is not type(None) or value is None)
        return from_plain(kinds[-1], value, name)
    if origin is tuple and isinstance(value, list):
        kinds = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
        if len(kinds) == len(value):
            return tuple(from_plain(k, v, name) for k, v in zip(kinds, value, strict=True))
    if origin is Literal and isinstance(value, str) and value in kinds:
        return value
    if kind is float and type(value) in (int, float):
        return float(value)
    if type(value) is (origin or kind):
        return value
    expected = kind.__name__ if isinstance(kind, type) and not kinds else str(kind)
    raise ValueError(f"{name} is {reprlib.repr(value)}: expected {expected}")


def _fields(kind: Any, content: dict[str, Any], prefix: str) -> Any:
    """An object or mapping as a dataclass."""
    types = get_type_hints(kind)
    for item in fields(kind):
        if item.name not in content and item.default is item.default_factory is MISSING:
            raise ValueError(f"{prefix}{item.name} is missing")
    for name in content:
        if name not in types:
            raise ValueError(f"{prefix}{reprlib.repr(name)} is unknown")
    return kind(**{n: from_plain(types[n], v, prefix + n) for n, v in content.items()})
