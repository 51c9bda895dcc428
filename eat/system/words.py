"""Words for messages: names that were probably meant, settings that changed, errors in brief."""

import difflib
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any


def nearest(name: str, valid: Iterable[str], cutoff: float = 0.6) -> str:
    """Find the valid name most like ``name``, whatever the case of its letters.

    Returns:
        That name; "" if none has a likeness, in [0, 1], of at least ``cutoff``.
    """
    by_lower = {word.lower(): word for word in valid}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[near[0]] if near else ""


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The entries of ``now`` that were otherwise before, with both values, cut; "" if none were."""
    return ", ".join(
        f"{name} (was {reprlib.repr(before.get(name))}, now {reprlib.repr(value)})"
        for name, value in now.items()
        if before.get(name) != value
    )


def printable(text: str) -> str:
    """A text for one line of a terminal: escaped if it has line ends or control characters."""
    return text if text.isprintable() else ascii(text)[1:-1]


def brief(error: BaseException) -> str:
    """The first line of an error, cut to a length that can be read; else the name of its kind."""
    return (str(error).partition("\n")[0] or type(error).__name__)[:300]
