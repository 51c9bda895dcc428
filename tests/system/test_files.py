"""Files and what goes into them."""

import os
from pathlib import Path

import numpy as np
import pytest

from eat.system.files import finite, regular


def test_only_regular_files_of_a_size_by_sense_are_opened(tmp_path: Path) -> None:
    (tmp_path / "sound").write_bytes(b"12")
    (tmp_path / "link").symlink_to("sound")
    assert regular(str(tmp_path / "link"), 2) == tmp_path / "link"
    with pytest.raises(OSError, match="sound: 0.0 MB: expected at most 0.0 MB"):
        regular(tmp_path / "sound", 1)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name, kind in {"pipe": "a pipe", "endless": ".* or device", "": "a folder"}.items():
        with pytest.raises(OSError, match=f"{name}: {kind}.*: expected a file"):
            regular(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        regular(tmp_path / "absent")


def test_finite_replaces_what_json_has_not() -> None:
    value = {"a": [1, float("nan"), (float("inf"), "x")], "b": np.float64("-inf"), "c": None}
    assert finite(value) == {"a": [1, None, [None, "x"]], "b": None, "c": None}
