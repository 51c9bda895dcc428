"""Files and what goes into them."""

import numpy as np

from eat.system.files import finite


def test_finite_replaces_what_json_has_not() -> None:
    value = {"a": [1, float("nan"), (float("inf"), "x")], "b": np.float64("-inf"), "c": None}
    assert finite(value) == {"a": [1, None, [None, "x"]], "b": None, "c": None}
