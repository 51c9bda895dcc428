"""Bounds of a model's settings, checked before anything of their size is made."""

import reprlib
from collections.abc import Sequence
from typing import Any

from eat.config.run import MAX_SIZE, MIN_SIZE
from eat.system.schema import check_range

RANGES: dict[str, tuple[float, float]] = {
    "num_outputs": (1, 2**14),
    "img_size": (MIN_SIZE, MAX_SIZE),
    "dim": (1, 2**14),
    "dims": (1, 2**14),
    "stem_dims": (1, 2**14),
    "points": (1, 64),
    "depths": (1, 128),
    "gamma": (-1e3, 1e3),
    "heads": (1, 2**10),
    "groups": (1, 2**10),
    "window_size": (1, 32),
    "interest_kernel": (1, 64),
    "interest_kernels": (1, 256),
    "offset_kernels": (1, 256),
    "grid_offset_kernels": (1, 256),
    "range_factor": (0, 1e3),
    "grid_range_factor": (0, 1e3),
    "mlp_ratio": (2**-4, 64),
    "drop_path_rate": (0, 0.999),
}
MAX_BLOCKS = 256
# Numbers in all weights, in all masks and indices of windows, and in the attention of one image in
# one block. eat_base at 1024 x 1024 pixels has 0.08, 0.01 and 0.27 billion.
MAX_WEIGHTS, MAX_MASKS, MAX_ATTENTION = 2**30, 2**26, 2**28


def check_ranges(settings: dict[str, Any]) -> None:
    """Refuse settings of any family that are out of range; those without one are not looked at.

    Raises:
        ValueError: naming the setting, what was found and what is expected.
    """
    for name, value in settings.items():
        if name in RANGES:
            check_range(name, value, *RANGES[name])


def check_totals(*, weights: float, masks: float = 0, attention: float) -> None:
    """Refuse more numbers than a machine has.

    Args:
        weights: in all weights.
        masks: in all masks and indices of windows.
        attention: in the attention of one image in one block.

    Raises:
        ValueError: saying what they are of.
    """
    for kind, count, most in zip(
        ("weights", "entries in masks and indices of windows", "attention entries in a block"),
        (weights, masks, attention),
        (MAX_WEIGHTS, MAX_MASKS, MAX_ATTENTION),
        strict=True,
    ):
        if count > most:
            raise ValueError(
                f"these settings ask for {count:.2g} {kind}: expected at most {most:.2g}; "
                "take a smaller img_size, or narrower or fewer blocks"
            )


def check_settings(settings: dict[str, Any]) -> None:
    """Refuse settings of ``EAT`` that are out of range or ask for more than a machine has.

    Raises:
        ValueError: naming the setting, what was found and what is expected.
    """
    check_ranges(settings)
    for name in ("stages", "dims", "heads", "groups", *(n for n in settings if "kernels" in n)):
        if len(settings[name]) != 4:
            found = reprlib.repr(settings[name])
            raise ValueError(f"{name} needs one value for each of 4 stages, got {found}")
    blocks = sum(map(len, settings["stages"]))
    check_range("the number of blocks in stages", blocks, 1, MAX_BLOCKS)
    weights, masks, attention = _numbers(**settings)
    check_totals(weights=weights, masks=masks, attention=attention)


def _numbers(
    *,
    img_size: tuple[int, int],
    stages: Sequence[str],
    dims: Sequence[int],
    heads: Sequence[int],
    window_size: int,
    interest_kernels: Sequence[int],
    offset_kernels: Sequence[int],
    mlp_ratio: float,
    **others: Any,
) -> tuple[float, float, float]:
    """About how many numbers there are, of the kinds of ``MAX_WEIGHTS`` and the rest."""
    weights = masks = attention = 0.0
    window = window_size**2
    for s, letters in enumerate(stages):
        side = 4 * 2**s
        rows, cols = (-(-pixels // side) for pixels in img_size)
        padded = (rows + window_size) * (cols + window_size)
        kernels = (2 * interest_kernels[s] ** 2 + offset_kernels[s] ** 2) * dims[s]
        for letter in letters:
            windows = letter in "LS"
            weights += (4 + 2 * mlp_ratio) * dims[s] ** 2 + (0 if windows else kernels)
            masks += padded * window if windows else 0
            entries = padded * window if windows else (rows * cols) ** 2
            attention = max(attention, heads[s] * entries)
    return weights, masks, attention
