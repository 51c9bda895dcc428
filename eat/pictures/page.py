"""Static pages: a folder that opens in a browser from the disk, without a server or a network."""

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from eat.system.files import finite, partial_folder

ASSETS = Path(__file__).parent / "assets"
MARK = b'<meta name="generator" content="eat">'  # of our own pages
# The files of a page, none of them by a name that a photograph has.
OURS = re.compile(r"(data/)?[\w-]+\.(html|css|js)|thumbs/[0-9a-f]{16}\.jpg")


@contextmanager
def new_page(out: str | Path, assets: Sequence[str]) -> Iterator[Path]:
    """Make a page's folder, which takes its place at the end of the context; after an error, never.

    Args:
        out: the folder. A page of ours in its place is replaced.
        assets: names of shipped files: what the body of index.html holds, styles and scripts.

    Yields:
        A folder to write into, OUT.partial.

    Raises:
        ValueError: ``out`` is there and not a page of ours, or OUT.partial is there.
        OSError: naming the file or folder; the disk may be full.
    """
    out = Path(out)
    check_replaceable(out)
    with partial_folder(out) as partial:
        (partial / "index.html").write_text(index(*assets), encoding="utf-8")
        for name in assets[1:]:
            (partial / name).write_bytes((ASSETS / name).read_bytes())
        yield partial
        check_replaceable(out)
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)


def index(body: str, *assets: str) -> str:
    """The HTML of a page: the head that all share, and its own styles, scripts and body."""
    tags = {".css": '<link rel="stylesheet" href="{}">', ".js": '<script defer src="{}"></script>'}
    found = {
        "title": Path(body).stem.capitalize(),
        "assets": "\n".join(tags[Path(name).suffix].format(name) for name in assets),
        "body": (ASSETS / body).read_text(encoding="utf-8"),
    }
    return (ASSETS / "page.html").read_text(encoding="utf-8").format(**found)


def check_replaceable(out: Path) -> None:
    """Refuse to replace anything but an empty folder and a page of ours with nothing else in it.

    Raises:
        ValueError: something else is there.
    """
    odd = [out] if os.path.lexists(out) else []
    if out.is_dir() and not out.is_symlink() and (is_page(out) or not any(out.iterdir())):
        files = [path for path in out.rglob("*") if not path.is_dir()]
        odd = [path for path in files if not OURS.fullmatch(path.relative_to(out).as_posix())]
    if odd:
        raise ValueError(f"{odd[0]} is there and not of this command's making: give another --out")


def is_page(folder: Path) -> bool:
    """Whether a folder is a page of ours."""
    try:
        with (folder / "index.html").open("rb") as file:
            return MARK in file.read(512)
    except OSError:
        return False


def write_data(page: Path, name: str, value: Any) -> None:
    """Write data/NAME.js for the page's scripts: a browser reads no JSON from the disk.

    NaN becomes null. All but ASCII is escaped, so that no file name can end a string.
    """
    content = json.dumps(finite(value), separators=(",", ":"))
    (page / "data").mkdir(exist_ok=True)
    (page / "data" / f"{name}.js").write_text(f'receive("{name}",{content});\n', encoding="ascii")


def shown(path: str | Path) -> str:
    """A path as text; bytes that are no UTF-8 are escaped by backslashes."""
    return str(path).encode(errors="backslashreplace").decode()


def link(file: str | Path, page: str | Path) -> str:
    """A file's address as seen from a page's folder; any byte but plain letters is %XX."""
    return quote(os.fsencode(os.path.relpath(file, page)))
