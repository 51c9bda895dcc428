"""Difference hashes, and groups of them against a naive oracle."""

import numpy as np
import pytest
from PIL import Image

from eat.pictures.gallery.duplicates import difference_hash, distances, group


def naive(hashes: list[int], most: int) -> list[set[int]]:
    """Groups by comparing every pair until none can be joined."""
    groups = [{i} for i in range(len(hashes))]
    for i, a in enumerate(hashes):
        for j, b in enumerate(hashes):
            if bin(a ^ b).count("1") <= most:
                joined = next(g for g in groups if i in g) | next(g for g in groups if j in g)
                groups = [g for g in groups if not g & joined] + [joined]
    return groups


@pytest.mark.parametrize("most", [0, 1, 3, 4, 16])
def test_groups_are_those_of_the_naive_oracle(most: int) -> None:
    draw = np.random.default_rng(most)
    hashes: list[int] = []
    for base in draw.integers(0, 2**63, 25):  # families whose members differ in up to 6 bits
        for flips in range(7):
            bits = draw.choice(64, flips, replace=False).tolist()
            hashes.append(int(base) ^ sum(1 << bit for bit in bits))
    numbers = group(np.array(hashes, np.uint64), most)
    found = [set(np.flatnonzero(numbers == number)) for number in np.unique(numbers)]
    assert sorted(map(sorted, found)) == sorted(map(sorted, naive(hashes, most)))


def test_hashes_differ_in_as_many_bits_as_their_distance() -> None:
    a, b = np.array([0, 2**64 - 1, 5], np.uint64), np.array([0, 0, 6], np.uint64)
    assert distances(a, b).tolist() == [0, 64, 2]


def test_many_equal_photographs_are_one_group_at_once() -> None:
    assert set(group(np.zeros(200_000, np.uint64), 4)) == {0}


def test_a_hash_survives_resizing_and_exposure_and_tells_a_mirror_image() -> None:
    y, x = np.mgrid[:300, :400]
    pixels = 100 + 60 * np.sin(x / 40 + y / 55) + 40 * np.cos(x / 70 - y / 33)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    first = difference_hash(image)
    for other in (image.resize((160, 120)), image.point(lambda value: value * 0.7)):
        assert bin(first ^ difference_hash(other)).count("1") <= 3
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert bin(first ^ difference_hash(mirrored)).count("1") > 16
