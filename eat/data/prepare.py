"""The check of a data set before hours are spent on it: ``prepare``."""

import csv
import hashlib
import io
import json
import os
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

import pandas as pd
from PIL import UnidentifiedImageError
from tqdm import tqdm

from eat.data.cache import cache_path, make_cache
from eat.data.labels.identity import fingerprint
from eat.data.labels.reading import PREPARED, read_labels
from eat.data.labels.table import LabelError, LabelWarning
from eat.data.registry import find_dataset
from eat.data.transforms import Preprocessing, read_image
from eat.system.files import write_atomically
from eat.system.pool import unordered

SMALL = 64  # pixels; the models take no smaller side
NUMBERS = ("bytes", "mtime_ns", "width", "height")
CHUNK = 64  # files a task: enough to hide what handing one over costs
MENDING = {
    "missing": "labels without a file",
    "empty": "files of 0 bytes",
    "not an image": "files that are no image",
    "damaged": "truncated or broken images",
}


@dataclass
class Check:
    """What one file turned out to be; ``problem`` is empty for a sound image.

    A file that cannot be read has -1 ``bytes``, which no file has, so that it is checked again.
    """

    image: str
    bytes: int
    mtime_ns: int
    width: int = 0
    height: int = 0
    digest: str = ""
    problem: str = ""


@dataclass
class Report:
    """What ``prepare`` found.

    Attributes:
        dataset: title of the data set.
        counts: images in each split, as labelled.
        official: images in each official split.
        scores: lowest and highest score.
        problems: kind (missing, empty, not an image, damaged) to images.
        duplicates: groups of sound images with the same bytes.
        leaks: those of the groups that stand in more than one split.
        small: images with a side under 64 pixels.
        unlabelled: files in the image folder without a label.
        warnings: what reading the labels warned of.
        fingerprint: of all labelled images.
        out: folder of the report.
        cleaned: whether a cleaned table was written there.
        caches: what was cached, a line a side.
    """

    dataset: str
    counts: dict[str, int]
    official: dict[str, int]
    scores: tuple[float, float]
    problems: dict[str, list[str]] = field(default_factory=dict)
    duplicates: list[list[str]] = field(default_factory=list)
    leaks: list[list[str]] = field(default_factory=list)
    small: list[str] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    fingerprint: str = ""
    out: str = ""
    cleaned: bool = False
    caches: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every labelled image is sound and stands in one split only."""
        return not any(self.problems.values()) and not self.leaks

    def summary(self) -> str:
        """The report as text for a terminal."""
        sizes = []
        for split in [*self.counts, *(s for s in self.official if s not in self.counts)]:
            count, official = self.counts.get(split, 0), self.official.get(split)
            note = "" if official in (None, count) else f" (official: {official})"
            sizes.append(f"{count} {split or 'without a split'}{note}")
        lines = [f"{self.dataset}: {', '.join(sizes)}; scores {self.scores[0]:g} to "
                 f"{self.scores[1]:g}"]  # fmt: skip
        found = {MENDING[kind]: images for kind, images in self.problems.items()}
        found["groups of files with the same bytes"] = [" = ".join(g) for g in self.duplicates]
        found["of these in more than one split"] = [" = ".join(g) for g in self.leaks]
        found[f"images with a side under {SMALL} pixels"] = self.small
        found["files without a label"] = self.unlabelled
        for what, names in found.items():
            examples = f": {', '.join(names[:3])}" + (", ..." if len(names) > 3 else "")
            lines.append(f"  {len(names):>7} {what}{examples if names else ''}")
        lines += [f"  warning: {text}" for text in self.warnings]
        if self.cleaned:
            lines.append(f"cleaned labels in {self.out}: train with --data.labels {self.out}")
        else:
            lines.append("no cleaned labels: mend the files, or go on without them by "
                         "--leave_out true")  # fmt: skip
        lines += self.caches
        lines.append(f"full report in {self.out}/report.json")
        # Names that are not UTF-8 cannot be printed as they are.
        return "\n".join(lines).encode("utf-8", "backslashreplace").decode()


def prepare(
    name: str,
    labels: str,
    images: str,
    out: str,
    *,
    test: str | None = None,
    val: str | None = None,
    workers: int | None = None,
    leave_out: bool = False,
    cache: int | list[int] | None = None,
    interpolation: Literal["bicubic", "bilinear"] = "bicubic",
    upright: bool = True,
    decode: Literal["exact", "fast"] = "fast",
) -> Report:
    """Check a data set's labels and image files, write a cleaned label table and cache pixels.

    Results are written to ``out/checks.csv`` as they come, and a second call checks only files that
    are new or changed. ``out/report.json`` holds the report, ``out/labels.csv`` and
    ``out/prepared.json`` the cleaned table, which ``read_labels`` takes as the labels; it is
    written if all is sound, or if ``leave_out`` says to go on without missing and broken images.
    Duplicates are reported and stay.

    Args:
        name: a row of the data set registry.
        labels: label file or folder.
        images: image folder.
        out: folder for the results.
        test: label file or id list of the test split.
        val: the same of the validation split.
        workers: processes that decode images; None takes one a core.
        leave_out: leave missing and broken images out of the cleaned table, and record them.
        cache: side in pixels, or several, to squeeze the sound images to. They are packed into
            out/cache-SIDE.npy, side x side x 3 bytes an image, which training takes by --data.cache
            OUT. A run with a random crop wants data.train_resize and data.size.
        interpolation: of the cache, as data.interpolation of the runs that use it.
        upright: of the cache, as data.upright.
        decode: of the cache, as data.decode.

    Raises:
        LabelError: the labels are wrong: their columns, numbers, ranges, repeats or splits; or they
            lie in ``out``, where they would be written over.
        NotADirectoryError: there is no image folder.
        ChildProcessError: a checking process was killed; another call goes on from there.
        CacheError: the disk has no room for the cache.
        ValueError: a side of the cache is below 64 pixels.
    """
    folder = Path(out)
    sides = [cache] if isinstance(cache, int) else cache or []
    if any(side < SMALL for side in sides):
        raise ValueError(f"cache is {cache}: expected sides of at least {SMALL} pixels")
    if not Path(images).is_dir():
        raise NotADirectoryError(f"{images}: no such image folder; give the right --images")
    _refuse_others_labels(folder, Path(labels))
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LabelWarning)
        table = read_labels(name, labels, test=test, val=val)
    dataset = find_dataset(name)
    present = set(list_files(images, leave=folder))
    # Linked folders are not listed, so that links in a circle end.
    here = pd.Series(
        [name in present or os.path.isfile(os.path.join(images, name)) for name in table["image"]],
        dtype=bool,
    )
    check_files(images, table.loc[here, "image"].tolist(), folder / "checks.csv", workers)
    checks = read_checks(folder / "checks.csv")
    checks = checks[checks["image"].isin(set(table["image"][here]))]
    problems = {kind: sorted(checks.loc[checks["problem"] == kind, "image"]) for kind in MENDING}
    problems["missing"] = sorted([*problems["missing"], *table.loc[~here, "image"]])
    duplicates, leaks = repeated(checks, table)
    sound = checks[checks["problem"] == ""]
    report = Report(
        dataset=dataset.title,
        counts=table["split"].value_counts().to_dict(),
        official=dataset.counts,
        scores=(float(table["score"].min()), float(table["score"].max())),
        problems=problems,
        duplicates=duplicates,
        leaks=leaks,
        small=sorted(sound.loc[sound[["width", "height"]].min(axis=1) < SMALL, "image"]),
        unlabelled=sorted(present - set(table["image"])),
        warnings=[str(w.message) for w in caught if issubclass(w.category, LabelWarning)],
        fingerprint=fingerprint(table),
        out=str(folder),
    )
    reasons = {image: kind for kind, broken in problems.items() for image in broken}
    report.cleaned = leave_out or not reasons
    if report.cleaned:
        write_table(folder, table[~table["image"].isin(reasons)], name, images, reasons)
    else:
        for stale in (PREPARED, "labels.csv"):
            (folder / stale).unlink(missing_ok=True)
    for side in sides:
        how = Preprocessing(side, None, interpolation, upright=upright, decode=decode)
        report.caches.append(cache_line(folder, images, table, sound, reasons, how, workers))
    write_atomically(folder / "report.json", json.dumps(asdict(report), indent=2).encode())
    return report


def cache_line(
    folder: Path,
    images: str,
    table: pd.DataFrame,
    sound: pd.DataFrame,
    broken: dict[str, str],
    how: Preprocessing,
    workers: int | None,
) -> str:
    """Cache the sound images in the order of their labels; returns what was done."""
    readable = table.loc[~table["image"].isin(broken), "image"].unique()
    order = sound.set_index("image").loc[readable].rename_axis("image")
    contents = make_cache(folder, images, order.reset_index(), broken, how, workers)
    path, left = cache_path(folder, how.size), len(contents.broken)
    note = f", {left} broken ones not in it" if left else ""
    return (f"cache {path}: {len(contents.images)} images, {path.stat().st_size / 1e9:.2f} GB"
            f"{note}: train with --data.cache {folder}")  # fmt: skip


def _refuse_others_labels(folder: Path, labels: Path) -> None:
    """The results include a labels.csv, which must not take the place of one that was given."""
    inside = labels.resolve() in (folder.resolve(), folder.resolve() / "labels.csv")
    foreign = (folder / "labels.csv").exists() and not (folder / "checks.csv").exists()
    if inside or foreign:
        raise LabelError(
            f"{folder}: holds labels that the results would be written over; give another --out"
        )


def write_table(
    folder: Path, table: pd.DataFrame, name: str, images: str, reasons: dict[str, str]
) -> None:
    """Write the cleaned labels, then the note that makes the folder one of prepared labels."""
    write_atomically(folder / "labels.csv", table.to_csv(index=False).encode())
    numeric = {c: str(table[c].dtype) for c in table if pd.api.types.is_numeric_dtype(table[c])}
    note = {
        "dataset": name,
        "images": str(images),
        "numeric": numeric,
        "fingerprint": fingerprint(table),
        "left_out": reasons,
    }
    write_atomically(folder / PREPARED, json.dumps(note, indent=2).encode())


def list_files(folder: str | Path, leave: Path) -> Iterator[str]:
    """Paths of all files below a folder but for those in ``leave``, relative, with slashes."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if Path(parent, name).resolve() != leave.resolve()]
        inside = Path(parent).relative_to(folder).as_posix()
        yield from names if inside == "." else (f"{inside}/{name}" for name in names)


def check_file(folder: str, image: str) -> Check:
    """Decode one file whole, which alone finds truncation, and hash its bytes."""
    path = Path(folder, image)
    try:
        status = path.stat()
        content = path.read_bytes()
    except OSError as error:
        problem = "missing" if isinstance(error, FileNotFoundError) else "damaged"
        return Check(image, -1, -1, problem=problem)
    check = Check(image, status.st_size, status.st_mtime_ns)
    if not status.st_size:
        check.problem = "empty"
        return check
    check.digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    try:
        check.width, check.height = read_image(path, upright=False).size
    except Exception as error:  # whatever a decoder raises, one file must not end the check
        unknown = isinstance(error.__cause__, UnidentifiedImageError)
        check.problem = "not an image" if unknown else "damaged"
    return check


def _check_chunk(task: tuple[str, list[str]]) -> list[Check]:
    folder, images = task
    return [check_file(folder, image) for image in images]


def check_files(folder: str, images: list[str], journal: Path, workers: int | None) -> None:
    """Check files in parallel and append what is found to the journal, a CSV of ``Check`` rows.

    Files whose size and time of change stand in the journal already are left alone. Nothing but
    the journal grows with their number.

    Raises:
        ChildProcessError: a process was killed from outside. The journal keeps what was found.
    """
    names = [f.name for f in fields(Check)]
    known = read_checks(journal)
    seen = dict(
        zip(known["image"], zip(known["bytes"], known["mtime_ns"], strict=True), strict=True)
    )
    todo = []
    for image in images:
        try:
            status = os.stat(os.path.join(folder, image))
        except OSError:
            todo.append(image)
            continue
        if seen.get(image) != (status.st_size, status.st_mtime_ns):
            todo.append(image)
    # The sound rows alone, so that what is appended does not follow half a line.
    write_atomically(journal, known.to_csv(index=False, columns=names).encode())
    tasks = ((folder, todo[i : i + CHUNK]) for i in range(0, len(todo), CHUNK))
    bar = tqdm(total=len(images), initial=len(images) - len(todo), desc="check", unit="file",
               disable=None)  # fmt: skip
    with bar, journal.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for checks in unordered(_check_chunk, tasks, workers):
            writer.writerows([getattr(check, name) for name in names] for check in checks)
            file.flush()
            bar.update(len(checks))


def read_checks(journal: Path) -> pd.DataFrame:
    """The sound rows of a journal, the last one of each image; a half-written line is dropped.

    Raises:
        LabelError: other lines are damaged.
    """
    names = [f.name for f in fields(Check)]
    text = journal.read_text() if journal.exists() else ""
    whole = io.StringIO(text[: text.rfind("\n") + 1] or ",".join(names) + "\n")
    kinds = dict.fromkeys(names, "str") | dict.fromkeys(NUMBERS, "int64")
    try:
        table = pd.read_csv(whole, dtype=kinds, keep_default_na=False)
    except ValueError as error:
        raise LabelError(
            f"{journal}: damaged ({error}); remove it, and all images are checked again"
        ) from error
    return table.drop_duplicates("image", keep="last")


def repeated(checks: pd.DataFrame, table: pd.DataFrame) -> tuple[list[list[str]], list[list[str]]]:
    """Groups of images with the same bytes, and those of them in more than one split."""
    sound = checks[checks["problem"] == ""]
    twins = sound[sound.duplicated("digest", keep=False)]
    split = dict(zip(table["image"], table["split"], strict=True))
    groups = sorted(sorted(images) for _, images in twins.groupby("digest")["image"])
    return groups, [group for group in groups if len({split[image] for image in group}) > 1]
