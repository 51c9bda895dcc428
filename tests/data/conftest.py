from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2].parent / "shared"


@pytest.fixture(scope="session")
def labels():
    """The folder of the published label files."""
    folder = SHARED / "labels"
    if not folder.is_dir():
        pytest.skip("the published label files are not on this machine")
    return folder


@pytest.fixture(scope="session")
def photos():
    """The folder of graded photos with labels in four formats."""
    folder = SHARED / "photos"
    if not folder.is_dir():
        pytest.skip("the graded photos are not on this machine")
    return folder
