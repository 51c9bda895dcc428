"""Objects of a user's own file: what is found, and what is said of other files."""

import sys
from pathlib import Path

import pytest

from eat.system.plugins import digest, in_file_name, is_path, load_function, load_object


def written(folder: Path, text: str, name: str = "mine.py") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return str(folder / name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mine.py:build", True),
        ("a folder/my model.py:build", True),
        (r"C:\models\mine.py:build", True),
        ("with:colon/mine.py:build", True),
        ("mine.py", True),
        ("two\nlines.py:build", True),
        ("eat_base", False),
        ("timm/resnet50.a1_in1k", False),
        ("mine.py:a/b", False),
        (".py:x", False),
        ("", False),
    ],
)
def test_a_path_is_told_from_a_name(name: str, expected: bool) -> None:
    assert is_path(name) == expected


def test_names_go_into_names_of_folders() -> None:
    assert in_file_name("some/where/my model.py:build") == "my-model.py-build"
    assert in_file_name(r"C:\here\mine.py:f") == "mine.py-f"
    assert in_file_name("timm/resnet50.a1_in1k") == "resnet50.a1_in1k"
    assert in_file_name("eat_base") == "eat_base"


def test_a_file_is_imported_once_and_finds_the_files_beside_it(tmp_path: Path) -> None:
    count = "import sys\nsys.imported_mine = getattr(sys, 'imported_mine', 0) + 1\n"
    first = written(tmp_path / "a b", f"{count}from .part import WIDTH\ndef f(): return WIDTH")
    written(tmp_path / "a b", "WIDTH = 3", "part.py")
    before = list(sys.path)
    assert load_function(f"{first}:f")() == 3
    assert load_object(f"{first}:WIDTH") == 3
    assert vars(sys).pop("imported_mine") == 1
    assert sys.path == before
    second = written(tmp_path / "c:d", "def f(): return 4")  # of the same name
    assert load_function(f"{second}:f")() == 4
    assert load_function(f"{first}:f")() == 3
    assert digest(f"{second}:f") != digest(f"{first}:f")


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("def build(): pass", "biuld", "defines no 'biuld'; did you mean 'build'?"),
        ("", "build", "defines no 'build'; it defines nothing"),
        ("x = 3\n\ndef f(:\n", "f", "mine.py, line 3: invalid syntax"),
        ("x = 3\n1 / 0\n", "x", "mine.py, line 2: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(0)\n", "x", "mine.py, line 2: it calls sys.exit"),
        ("import no_such_package\n", "x", "line 1: ModuleNotFoundError: No module named"),
        ("import beside\n", "x", "write from .beside import"),
        ("f = 3", "f", "is int: expected a function"),
    ],
)
def test_a_file_that_is_not_as_expected_is_told_with_its_line(
    text: str, name: str, message: str, tmp_path: Path
) -> None:
    path = written(tmp_path, text)
    written(tmp_path, "", "beside.py")
    for _ in range(2):  # a failed import leaves nothing behind
        with pytest.raises(ValueError, match=r"mine\.py") as caught:
            load_function(f"{path}:{name}")
        assert message in str(caught.value)


def test_a_name_that_is_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.py: no such file: expected FILE\.py:NAME"):
        load_object(f"{tmp_path}/none.py:f")
    with pytest.raises(ValueError, match=r"names a file alone: expected FILE\.py:NAME"):
        load_object(written(tmp_path, "f = 3"))
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(ValueError, match="no such file"):
        load_object(f"{tmp_path}/folder.py:f")
