"""Near-duplicates among photographs, by difference hashes."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image, Resampling
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

BITS = 64
ONES = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)
Hashes = NDArray[np.uint64]


def difference_hash(image: Image) -> int:
    """64 bits of an image: whether each of 8 x 8 cells is darker than its right neighbour."""
    grey = np.asarray(image.convert("L").resize((9, 8), Resampling.BOX))
    return int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes(), "big")


def distances(a: Hashes, b: Hashes) -> NDArray[np.int64]:
    """Number of bits in which hashes differ."""
    return ONES[(a ^ b)[..., None].view(np.uint8)].sum(axis=-1, dtype=np.int64)


def group(hashes: Hashes, most: int) -> NDArray[np.int64]:
    """Number the groups of photographs that are joined by near-duplicates.

    Two photographs are near-duplicates if their hashes differ in at most ``most`` bits. Then they
    have one of ``most`` + 1 bands in common, and only hashes that share a band are compared.

    Args:
        hashes: (N,).
        most: bits, from 0 to 63.

    Returns:
        (N,): equal numbers for photographs of one group.
    """
    unique, place = np.unique(hashes, return_inverse=True)
    pairs = [np.empty((2, 0), np.int64), *_near(unique, most)]
    rows, columns = np.concatenate(pairs, axis=1)
    near = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(unique), len(unique)))
    numbers: NDArray[np.int64] = connected_components(near, directed=False)[1].astype(np.int64)
    return numbers[place]


def _near(hashes: Hashes, most: int) -> Iterator[NDArray[np.int64]]:
    """Pairs (2, P) of different hashes that are near, some more than once."""
    edges = np.linspace(0, BITS, most + 2).astype(int).tolist()
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        band = (hashes >> np.uint64(low)) & np.uint64(2 ** (high - low) - 1)
        order = np.argsort(band, kind="stable")
        starts = np.flatnonzero(np.diff(band[order], prepend=band[order[:1]] + np.uint64(1)))
        for bucket in np.split(order, starts[1:]):
            for i, row in enumerate(bucket[:-1], start=1):
                others = bucket[i:]
                found = others[distances(hashes[row], hashes[others]) <= most]
                yield np.stack([np.full_like(found, row), found])
