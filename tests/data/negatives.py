"""Raw photographs (DNG 1.4), written by their specification."""

import struct

import numpy as np

SHORT, LONG, BYTE, ASCII, RATIONAL = 3, 4, 1, 2, 10
SIZES = {SHORT: "H", LONG: "I", BYTE: "B"}


def raw_file(values: np.ndarray, preview: bytes = b"", orientation: int = 1) -> bytes:
    """A DNG of a sensor's values, uint16 (H, W) in red, green / green, blue.

    Args:
        preview: a JPEG, which then is the first page.
    """
    height, width = values.shape
    sensor = {
        254: (LONG, [0]), 256: (LONG, [width]), 257: (LONG, [height]), 258: (SHORT, [16]),
        259: (SHORT, [1]), 262: (SHORT, [32803]), 273: (LONG, [0]), 277: (SHORT, [1]),
        278: (LONG, [height]), 279: (LONG, [values.nbytes]), 33421: (SHORT, [2, 2]),
        33422: (BYTE, [0, 1, 1, 2]), 50717: (LONG, [65535]),
    }  # fmt: skip
    camera = {
        271: (ASCII, b"Maker\0"), 272: (ASCII, b"Model\0"), 274: (SHORT, [orientation]),
        50706: (BYTE, [1, 4, 0, 0]), 50708: (ASCII, b"Maker Model\0"),
        50721: (RATIONAL, np.eye(3).ravel()), 50728: (RATIONAL, [1, 1, 1]),
    }  # fmt: skip
    if not preview:
        return _tiff([sensor | camera], [values.astype("<u2").tobytes()])
    first = {254: (LONG, [1]), 256: (LONG, [600]), 257: (LONG, [600]), 258: (SHORT, [8, 8, 8]),
             259: (SHORT, [7]), 262: (SHORT, [6]), 273: (LONG, [0]), 277: (SHORT, [3]),
             279: (LONG, [len(preview)]), 330: (LONG, [0])}  # fmt: skip
    return _tiff([first | camera, sensor], [preview, values.astype("<u2").tobytes()])


def _tiff(pages: list[dict], strips: list[bytes]) -> bytes:
    """A TIFF whose further pages are in the tag SubIFDs of the first."""
    places, strip_places, at = [], [], 8
    for page in pages:
        places.append(at)
        at += 2 + 12 * len(page) + 4 + sum(len(_value(*entry)) for entry in page.values())
    for strip in strips:
        strip_places.append(at)
        at += len(strip)
    content = struct.pack("<2sHI", b"II", 42, 8)
    for page, strip in zip(pages, strip_places, strict=True):
        page[273] = (LONG, [strip])
        if 330 in page:
            page[330] = (LONG, places[1:])
        table, rest = struct.pack("<H", len(page)), b""
        start = len(content) + 2 + 12 * len(page) + 4
        for tag, (kind, values) in sorted(page.items()):
            data = _value(kind, values)
            table += struct.pack("<HHI", tag, kind, len(values))
            table += data if len(data) <= 4 else struct.pack("<I", start + len(rest))
            rest += data if len(data) > 4 else b""
        content += (table + bytes(4) + rest).ljust(places[1] - 8 if page is pages[0] and pages[1:]
                                                   else 0, b"\0")  # fmt: skip
    return content.ljust(strip_places[0], b"\0") + b"".join(strips)


def _value(kind: int, values: bytes | list | np.ndarray) -> bytes:
    if kind == ASCII:
        data = values
    elif kind == RATIONAL:
        data = b"".join(struct.pack("<ii", round(10000 * x), 10000) for x in values)
    else:
        data = struct.pack(f"<{len(values)}{SIZES[kind]}", *values)
    return data.ljust(4, b"\0")
