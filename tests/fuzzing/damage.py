"""Strategies that spoil sound content: bytes, and plain values as JSON and YAML hold them."""

import json
import struct
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

Files = dict[str, bytes]  # by their path within a folder


class Input(Files):
    """Files that a report shows by their names and sizes."""

    def __repr__(self) -> str:
        return f"files of bytes: { {name: len(content) for name, content in self.items()} }"


NUMBERS: list[Any] = [0, 1, -1, 2, 3, 5, 63, 64, 65, 100, 255, 4096, 10**9, 2**31, 2**63, 10**400]
NUMBERS += [0.5, -0.0, 1e-300, 1e308, float("nan"), float("inf"), float("-inf")]
WORDS = ["", " ", "\0", "\ud800", "a\nb", "é", "../../etc/passwd", "nan", "1e999", "x" * 5000]
PLAIN = st.none() | st.booleans() | st.sampled_from([*NUMBERS, *WORDS]) | st.text(max_size=8)
VALUES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
PIECES = st.binary(max_size=16) | st.sampled_from(
    [b"\0" * 8, b"\xff" * 8, b"\n", b"\r", b'"', b",", b" ", b"-", b"nan", b"1e999", b"\xff\xfe"]
    + [
        b"9" * 400,
        b"[" * 100_000,
        b"{}",
        b"null",
        *(word.encode(errors="replace") for word in WORDS),
    ]
    + [struct.pack(order + "I", n) for order in "<>" for n in (0, 1, 2**16, 2**31, 2**32 - 1)]
)


@st.composite
def spoilt_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Content cut, with bits turned, and with stretches replaced by other bytes or its own."""
    for _ in range(draw(st.integers(1, 3))):
        size = len(content)
        at = draw(st.integers(0, min(size, 64)) | st.integers(0, size))
        after = min(at + draw(st.integers(0, 16) | st.integers(0, size)), size)
        match draw(st.sampled_from(["turn", "cut", "replace", "splice"])):
            case "turn" if at < size:
                bit = 1 << draw(st.integers(0, 7))
                content = content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]
            case "cut":
                content = content[:at]
            case "replace":
                content = content[:at] + draw(PIECES) + content[after:]
            case "splice":
                to = draw(st.integers(0, size))
                content = content[:to] + content[at:after] + content[to:]
    return content


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of a value and of all within it."""
    inner = enumerate(value) if isinstance(value, list) else ()
    inner = value.items() if isinstance(value, dict) else inner
    return [path] + [place for key, one in inner for place in _places(one, (*path, key))]


@st.composite
def spoilt_values(draw: st.DrawFn, content: Any, values: st.SearchStrategy[Any] = VALUES) -> Any:
    """Content with some entries replaced by other values or each other, added, or taken away."""
    content = deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        *path, last = (None, *draw(st.sampled_from(_places(content))))
        if not path:  # the whole of it
            if draw(st.integers(0, 9)) == 0:
                return draw(values)
            continue
        parent = content
        for key in path[1:]:
            parent = parent[key]
        match draw(st.sampled_from(["replace", "replace", "remove", "add", "copy"])):
            case "replace":
                parent[last] = deepcopy(draw(values))  # later turns change it
            case "remove":
                del parent[last]
            case "add" if isinstance(parent, dict):
                parent[draw(st.text(max_size=8))] = deepcopy(draw(values))
            case "add":
                parent.insert(last, deepcopy(draw(values)))
            case "copy":
                others = [place for place in _places(content) if place]
                other = content
                for key in draw(st.sampled_from(others)) if others else ():
                    other = other[key]
                parent[last] = deepcopy(other)
    return content


def spoilt_json(content: Any) -> st.SearchStrategy[bytes]:
    """JSON of other values, or other text."""
    whole = json.dumps(content).encode()
    return spoilt_values(content).map(lambda c: json.dumps(c).encode()) | spoilt_bytes(whole)


@st.composite
def spoilt_files(
    draw: st.DrawFn, files: Files, strategies: dict[str, st.SearchStrategy[bytes]] | None = None
) -> Files:
    """Files of which one is spoilt, by a strategy of its own or as bytes."""
    name = draw(st.sampled_from(sorted(strategies or files)))
    given = (strategies or {}).get(name)
    return files | {name: draw(given if given is not None else spoilt_bytes(files[name]))}
