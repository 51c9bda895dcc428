"""The check of image files: each is decoded to its end and hashed, and the result is kept."""

import csv
import hashlib
import io
import math
import os
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import pandas as pd
from PIL import UnidentifiedImageError
from tqdm import tqdm

from eat.data.decoding import MOST_BYTES, read_image
from eat.data.labels.table import LabelError, cut
from eat.system.files import regular, write_atomically
from eat.system.pool import Pool, unordered

NUMBERS = ("bytes", "mtime_ns", "width", "height")
KINDS = {
    "missing": "labels without a file",
    "empty": "files of 0 bytes",
    "not an image": "files that are no image",
    "damaged": "truncated or broken images",
}
CHUNK = 64  # files a task: enough to hide what handing one over costs


@dataclass
class Check:
    """The result for one file; ``problem`` is empty for a sound image.

    A file that cannot be read has -1 ``bytes``, which no file has, so that it is checked again.
    """

    image: str
    bytes: int
    mtime_ns: int
    width: int = 0
    height: int = 0
    digest: str = ""
    problem: str = ""


def list_files(folder: str | Path, leave: Path) -> Iterator[str]:
    """Paths of all files below a folder but for those in ``leave``, relative, with slashes."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if Path(parent, name).resolve() != leave.resolve()]
        inside = Path(parent).relative_to(folder).as_posix()
        yield from names if inside == "." else (f"{inside}/{name}" for name in names)


def check_file(folder: str, image: str) -> Check:
    """Decode one file to its end, which alone finds truncation, and hash its bytes."""
    path = Path(folder, image)
    try:
        status = path.stat()
        content = regular(path, MOST_BYTES).read_bytes()
    except OSError as error:
        problem = "missing" if isinstance(error, FileNotFoundError) else "damaged"
        return Check(image, -1, -1, problem=problem)
    check = Check(image, status.st_size, status.st_mtime_ns)
    if not status.st_size:
        check.problem = "empty"
        return check
    check.digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    del content  # before the pixels need memory
    try:
        check.width, check.height = read_image(path, upright=False, colours="as_stored").size
    except Exception as error:  # whatever a decoder raises, one file must not end the check
        unknown = isinstance(error.__cause__, UnidentifiedImageError)
        check.problem = "not an image" if unknown else "damaged"
    return check


def _check_chunk(task: tuple[str, list[str]]) -> list[Check]:
    folder, images = task
    return [check_file(folder, image) for image in images]


def check_files(
    folder: str,
    images: list[str],
    journal: Path,
    workers: int | None,
    pool: Pool = unordered,
) -> None:
    """Check files in parallel and append the results to the journal, a CSV of ``Check`` rows.

    A file of the size and time of change that the journal has is not checked again. Only the
    journal grows with the number of files.

    Raises:
        ChildProcessError: a process died. The journal keeps the results until then.
    """
    names = [f.name for f in fields(Check)]
    known = read_checks(journal)
    times = zip(known["bytes"], known["mtime_ns"], strict=True)
    seen = dict(zip(known["image"], times, strict=True))
    todo = [image for image in images if seen.get(image) != _size_and_time(folder, image)]
    # The sound rows alone, so that no row is appended to half a line.
    write_atomically(journal, known.to_csv(index=False, columns=names).encode())
    tasks = ((folder, todo[i : i + CHUNK]) for i in range(0, len(todo), CHUNK))
    bar = tqdm(total=len(images), initial=len(images) - len(todo), desc="check", unit="file",
               disable=None)  # fmt: skip
    with bar, journal.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for checks in pool(
            _check_chunk, tasks, workers, name=lambda task: f"{task[1][0]} to {task[1][-1]}"
        ):
            writer.writerows(map(astuple, checks))
            file.flush()
            bar.update(len(checks))


def _size_and_time(folder: str, image: str) -> tuple[float, float]:
    """Of a file, as the journal has them; nan, which equals nothing, if it cannot be read."""
    try:
        status = os.stat(os.path.join(folder, image))
    except OSError:
        return math.nan, math.nan
    return status.st_size, status.st_mtime_ns


def read_checks(journal: Path) -> pd.DataFrame:
    """The sound rows of a journal, the last one of each image; a half-written line is dropped.

    Raises:
        LabelError: other lines are damaged.
    """
    names = [f.name for f in fields(Check)]
    kinds = dict.fromkeys(names, "str") | dict.fromkeys(NUMBERS, "int64")
    try:
        text = regular(journal).read_text() if journal.exists() else ""
        lines = io.StringIO(text[: text.rfind("\n") + 1] or ",".join(names) + "\n")
        table = pd.read_csv(lines, dtype=kinds, keep_default_na=False)
        if list(table) != names or not table["problem"].isin(["", *KINDS]).all():
            raise ValueError(f"expected {', '.join(names)}, the last of {', '.join(KINDS)}")
    except (ValueError, OverflowError) as error:
        raise LabelError(
            f"{journal}: damaged ({cut(error)}); remove it, and all images are checked again"
        ) from error
    return table.drop_duplicates("image", keep="last")


def repeated(checks: pd.DataFrame, table: pd.DataFrame) -> tuple[list[list[str]], list[list[str]]]:
    """Groups of images with the same bytes, and those of them in more than one split."""
    sound = checks[checks["problem"] == ""]
    twins = sound[sound.duplicated("digest", keep=False)]
    split = dict(zip(table["image"], table["split"], strict=True))
    groups = sorted(sorted(images) for _, images in twins.groupby("digest")["image"])
    return groups, [group for group in groups if len({split[image] for image in group}) > 1]
