"""Colour profiles (ICC 2.1), written by their specification."""

import struct

import numpy as np

# Red, green and blue as columns X, Y, Z of the D50 white, and the exponent of the curve.
SPACES = {
    "Display P3": ([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657],
                    [-0.00105, 0.04189, 0.78407]], 2.2),
    "Adobe RGB (1998)": ([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322],
                          [0.01947, 0.06087, 0.74457]], 2.19921875),
    "ProPhoto RGB": ([[0.79767, 0.13519, 0.03134], [0.28804, 0.71187, 0.00009],
                      [0.0, 0.0, 0.82491]], 1.8),
}  # fmt: skip
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061],
                 [0.01392, 0.09708, 0.71410]])  # fmt: skip


def profile_of(name: str) -> bytes:
    """A profile of one of SPACES."""
    matrix, exponent = SPACES[name]
    columns = np.array(matrix).T
    tags = {f"{c}XYZ": _xyz(column) for c, column in zip("rgb", columns, strict=True)}
    return _profile(name, b"RGB ", tags | dict.fromkeys(("rTRC", "gTRC", "bTRC"), _curve(exponent)))


def grey_profile(exponent: float) -> bytes:
    return _profile("Grey", b"GRAY", {"kTRC": _curve(exponent)})


def ink_profile() -> bytes:
    """Of four inks on white paper: each takes a quarter of the lightness, and has no hue."""
    steps = np.indices((2, 2, 2, 2)).reshape(4, -1).sum(axis=0)
    lab = np.stack([255 - 63.75 * steps, *[np.full(16, 128)] * 2], axis=1).round()
    ramp = bytes(range(256))
    table = struct.pack(">4sIBBBx", b"mft1", 0, 4, 3, 2) + _fixed(np.eye(3).ravel())
    table += 4 * ramp + lab.astype(np.uint8).tobytes() + 3 * ramp
    return _profile("Inks", b"CMYK", {"A2B0": table}, kind=b"prtr", between=b"Lab ")


def shown_in_srgb(pixels: np.ndarray, name: str) -> np.ndarray:
    """uint8 (..., 3) of one of SPACES as sRGB, from 0 to 255: the definition, clipped."""
    matrix, exponent = SPACES[name]
    light = (pixels / 255) ** exponent @ np.array(matrix).T @ np.linalg.inv(SRGB).T
    return encoded(light)


def encoded(light: np.ndarray) -> np.ndarray:
    """Light from 0 to 1 by the curve of sRGB, from 0 to 255."""
    light = light.clip(0, 1)
    return 255 * np.where(light < 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def _fixed(values: np.ndarray) -> bytes:
    return np.round(np.asarray(values) * 65536).astype(">i4").tobytes()


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(values)


def _curve(exponent: float) -> bytes:
    return struct.pack(">4sIIH", b"curv", 0, 1, round(exponent * 256))


def _profile(
    name: str, space: bytes, tags: dict[str, bytes], kind: bytes = b"mntr", between: bytes = b"XYZ "
) -> bytes:
    text = name.encode() + b"\0"
    desc = struct.pack(">4sII", b"desc", 0, len(text)) + text + bytes(78)
    tags = {"desc": desc, "wtpt": _xyz([0.9642, 1.0, 0.8249])} | tags
    table, data = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for tag, content in tags.items():
        table += struct.pack(">4sII", tag.encode(), start + len(data), len(content))
        data += content.ljust(-len(content) % 4 + len(content), b"\0")
    white = _fixed([0.9642, 1.0, 0.8249])
    head = struct.pack(">I4xI4s4s4s12x4s28x", start + len(data), 0x02100000, kind, space, between,
                       b"acsp") + white  # fmt: skip
    return head.ljust(128, b"\0") + table + data
