"""Names that were probably meant."""

import difflib
from collections.abc import Iterable


def nearest(name: str, valid: Iterable[str], cutoff: float = 0.6) -> str:
    """Find the valid name most like ``name``, whatever the case of its letters.

    Returns:
        That name; "" if none has a likeness, in [0, 1], of at least ``cutoff``.
    """
    by_lower = {word.lower(): word for word in valid}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[near[0]] if near else ""
