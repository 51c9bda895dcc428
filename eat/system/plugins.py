"""Functions and objects of the user's own, named by the Python file that they stand in.

Whoever names such a file has its code run. So a name must come from the user, as an option or an
argument, and never from a file that others may have written, such as a checkpoint.
"""

import hashlib
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from eat.system.files import file_digest
from eat.system.words import nearest

FORM = "FILE.py:NAME"
FOLDER = "eat_own_"  # begins the name of the package that a folder of such files becomes


def is_path(name: str) -> bool:
    """Whether a name is that of something in a Python file: FILE.py, or FILE.py:NAME."""
    return re.fullmatch(r".+\.py(:[^/\\]*)?", name, re.DOTALL) is not None


def file_of(name: str) -> Path:
    """The file of a name for which ``is_path`` holds."""
    return Path(re.sub(r":[^/\\:]*$", "", name))


def in_file_name(name: str) -> str:
    """A name as part of the name of a folder: without the folders and signs that it may have."""
    return re.sub(r"[^\w.-]+", "-", re.split(r"[/\\]", name)[-1])


def digest(name: str) -> str:
    """SHA-256 (hex) of the file of a name; "" for a name that is no path."""
    return file_digest(file_of(name)) if is_path(name) else ""


def load_object(name: str) -> Any:
    """Import a Python file, once in a process, and return what it calls NAME.

    The file becomes part of a private package of its folder, so that ``from .sibling import x``
    finds the files beside it, and files of one name in several folders do not meet.

    Args:
        name: FILE.py:NAME.

    Raises:
        ValueError: there is no such file, it is no Python, it fails or exits while it is imported,
            or it defines no such name.
    """
    path, _, attribute = name.rpartition(":")
    if not path.endswith(".py"):
        raise ValueError(f"{name}: names a file alone: expected {FORM}, what to take from the file")
    defined = vars(_imported(Path(path)))
    if attribute not in defined:
        public = [word for word in defined if not word.startswith("_")]
        near = nearest(attribute, public)
        hint = f"did you mean {near!r}? " if near else ""
        has = f"it has {', '.join(public[:20])}" if public else "it defines nothing"
        raise ValueError(f"{path}: defines no {attribute!r}; {hint}{has}")
    return defined[attribute]


def load_function(name: str) -> Any:
    """``load_object``, for what is to be called.

    Raises:
        ValueError: as there, or it is no function.
    """
    found = load_object(name)
    if not callable(found):
        raise ValueError(f"{name} is {type(found).__name__}: expected a function")
    return found


@contextmanager
def blaming(path: Path | str) -> Iterator[None]:
    """Have what goes wrong in a user's file end in one message with its line.

    Raises:
        ValueError: with the exception and the last line of the file on the way to it.
    """
    try:
        yield
    except SyntaxError as error:
        place = f"{error.filename or path}, line {error.lineno}"
        raise ValueError(f"{place}: {error.msg}: expected Python") from error
    except (Exception, SystemExit) as error:
        own = Path(path).resolve()
        lines = [line for file, line in _lines(error) if Path(file).resolve() == own]
        place = f"{path}, line {lines[-1]}" if lines else f"{path}"
        told = f"{type(error).__name__}: {error}"
        if isinstance(error, SystemExit):
            told = "it calls sys.exit, where it is imported or called; keep that to __main__"
        if isinstance(error, ModuleNotFoundError) and own.with_name(f"{error.name}.py").exists():
            told += f"; of files beside it, write from .{error.name} import ..."
        raise ValueError(f"{place}: {told}") from error


def blamed(error: BaseException) -> str | None:
    """What goes wrong in a file that was loaded, with its line; None if it is none of their code.

    Unlike in ``blaming``, that may be in the middle of a run.
    """
    own = {getattr(module, "__file__", None) for n, module in [*sys.modules.items()]
           if n.startswith(FOLDER)}  # fmt: skip
    places = [f"{file}, line {line}" for file, line in _lines(error) if file in own]
    return f"{places[-1]}: {type(error).__name__}: {error}" if places else None


def _lines(error: BaseException) -> list[tuple[str, int | None]]:
    """File and line of each call that an exception went through."""
    return [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]


def _imported(path: Path) -> ModuleType:
    """The module of a file, imported if it was not."""
    file = path.resolve()
    if not file.is_file():
        raise ValueError(f"{path}: no such file: expected {FORM}")
    folder = f"{FOLDER}{hashlib.sha256(str(file.parent).encode()).hexdigest()[:12]}"
    name = f"{folder}.{file.stem.replace('.', '_')}"
    if name not in sys.modules:
        package = sys.modules.setdefault(folder, ModuleType(folder))
        package.__path__ = [str(file.parent)]
        spec = spec_from_file_location(name, file)
        assert spec is not None and spec.loader is not None, "its name ends in .py"
        module = sys.modules[name] = module_from_spec(spec)
        try:
            with blaming(path):
                spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
