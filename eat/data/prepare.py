"""The check of a data set before hours are spent on it: ``prepare``."""

import json
import os
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from eat.config.commands import PrepareOptions
from eat.config.run import MIN_SIZE
from eat.data.cache import MAX_SIDE, RESIZING, cache_path, make_cache
from eat.data.checks import KINDS, check_files, list_files, read_checks, repeated
from eat.data.labels.identity import fingerprint
from eat.data.labels.reading import PREPARED, Prepared, read_labels
from eat.data.labels.table import LabelError, LabelWarning, quote
from eat.data.registry import DatasetSpec, find_dataset
from eat.data.transforms import Preprocessing
from eat.system.files import write_atomically
from eat.system.pool import Pool, unordered
from eat.system.schema import check_range


@dataclass
class Report:
    """Findings of ``prepare``.

    Attributes:
        dataset: title of the data set.
        counts: images in each split, as labelled.
        official: images in each official split.
        scores: lowest and highest score.
        problems: kind (missing, empty, not an image, damaged) to images.
        duplicates: groups of sound images with the same bytes.
        leaks: those of the groups that are in more than one split.
        small: images with a side under 64 pixels.
        unlabelled: files in the image folder without a label.
        warnings: of reading the labels.
        fingerprint: of all labelled images.
        out: folder of the report.
        cleaned: true if a cleaned table was written there.
        caches: a line for each cached side.
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
        """True if every labelled image is sound and in one split only."""
        return not any(self.problems.values()) and not self.leaks

    def summary(self) -> str:
        """The report as text for a terminal."""
        sizes = []
        for split in [*self.counts, *(s for s in self.official if s not in self.counts)]:
            count, official = self.counts.get(split, 0), self.official.get(split)
            note = "" if official in (None, count) else f" (official: {official})"
            sizes.append(f"{count} {split or 'without a split'}{note}")
        low, high = self.scores
        lines = [f"{self.dataset}: {', '.join(sizes)}; scores {low:g} to {high:g}"]
        found = {KINDS[kind]: images for kind, images in self.problems.items()}
        found["groups of files with the same bytes"] = [" = ".join(g) for g in self.duplicates]
        found["of these in more than one split"] = [" = ".join(g) for g in self.leaks]
        found[f"images with a side under {MIN_SIZE} pixels"] = self.small
        found["files without a label"] = self.unlabelled
        for title, names in found.items():
            lines.append(f"  {len(names):>7} {title}{': ' if names else ''}{quote(names)}")
        lines += [f"  warning: {text}" for text in self.warnings]
        cleaned = f"cleaned labels in {self.out}: train with --data.labels {self.out}"
        none = "no cleaned labels: mend the files, or go on without them by --leave_out true"
        lines.append(cleaned if self.cleaned else none)
        lines += [*self.caches, f"full report in {self.out}/report.json"]
        return "\n".join(lines)


def prepare(name: str, options: PrepareOptions, pool: Pool = unordered) -> Report:
    """Check a data set's labels and image files, write a cleaned label table and cache pixels.

    Results are written to ``out/checks.csv`` as they come, and a second call checks only files that
    are new or changed. ``out/report.json`` holds the report, ``out/labels.csv`` and
    ``out/prepared.json`` the cleaned table, which ``read_labels`` takes as the labels; it is
    written if all is sound, or if ``leave_out`` says to go on without missing and broken images.
    Duplicates are reported and stay. ``pool`` has the files checked and the cache filled.

    Raises:
        LabelError: the labels are wrong, or lie in ``out``, where they would be written over.
        NotADirectoryError: there is no image folder.
        ChildProcessError: a checking process died; another call goes on from there.
        CacheError: the disk has no room for the cache.
        ValueError: a side of the cache is out of range, or as ``find_dataset``.
    """
    folder, images = Path(options.out), options.images
    sides = [options.cache] if isinstance(options.cache, int) else options.cache or []
    check_range("cache", sides, MIN_SIZE, MAX_SIDE)
    if not Path(images).is_dir():
        raise NotADirectoryError(f"{images}: no such image folder; give the right --images")
    _refuse_others_labels(folder, Path(options.labels))
    dataset = find_dataset(name, options.low, options.high)
    folder.mkdir(parents=True, exist_ok=True)
    table, warned = _read_labels(name, options)
    present = set(list_files(images, leave=folder))
    # Linked folders are not listed, so that links in a circle end.
    here = table["image"].map(
        lambda name: name in present or os.path.isfile(os.path.join(images, name))
    )
    check_files(images, table["image"][here].tolist(), folder / "checks.csv", options.workers,
                pool)  # fmt: skip
    checks = read_checks(folder / "checks.csv")
    checks = checks[checks["image"].isin(table["image"][here])]
    problems = {kind: sorted(checks.loc[checks["problem"] == kind, "image"]) for kind in KINDS}
    problems["missing"] = sorted([*problems["missing"], *table["image"][~here]])
    duplicates, leaks = repeated(checks, table)
    sound = checks[checks["problem"] == ""]
    broken = {image: kind for kind, found in problems.items() for image in found}
    report = Report(
        dataset=dataset.title,
        counts={str(split): int(n) for split, n in table["split"].value_counts().items()},
        official=dataset.counts,
        scores=(float(table["score"].min()), float(table["score"].max())),
        problems=problems,
        duplicates=duplicates,
        leaks=leaks,
        small=sorted(sound.loc[sound[["width", "height"]].min(axis=1) < MIN_SIZE, "image"]),
        unlabelled=sorted(present - set(table["image"])),
        warnings=warned,
        fingerprint=fingerprint(table),
        out=str(folder),
        cleaned=options.leave_out or not broken,
    )
    if report.cleaned:
        _write_table(folder, table[~table["image"].isin(broken)], dataset, images, broken)
    else:
        for stale in (PREPARED, "labels.csv"):
            (folder / stale).unlink(missing_ok=True)
    readable = table.loc[~table["image"].isin(broken), "image"].unique()
    in_order = sound.set_index("image").loc[readable].rename_axis("image").reset_index()
    report.caches = [_cache(side, options, in_order, broken, pool) for side in sides]
    write_atomically(folder / "report.json", json.dumps(asdict(report), indent=2).encode())
    return report


def _read_labels(name: str, options: PrepareOptions) -> tuple[pd.DataFrame, list[str]]:
    """The label table, and the warnings of reading it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LabelWarning)
        table = read_labels(
            name,
            options.labels,
            low=options.low,
            high=options.high,
            test=options.test,
            val=options.val,
        )
    return table, [str(w.message) for w in caught if issubclass(w.category, LabelWarning)]


def _cache(
    side: int, options: PrepareOptions, checks: pd.DataFrame, broken: dict[str, str], pool: Pool
) -> str:
    """Cache the sound images, resized to a side; returns a line of the report."""
    how = Preprocessing(side, **{name: getattr(options, name) for name in RESIZING})
    # A copy, as the cache adds images that can be decoded and not resized.
    contents = make_cache(
        options.out, options.images, checks, dict(broken), how, options.workers, pool
    )
    path, left = cache_path(options.out, side), len(contents.broken)
    note = f", {left} broken ones not in it" if left else ""
    return (
        f"cache {path}: {len(contents.images)} images, {path.stat().st_size / 1e9:.2f} GB{note}: "
        f"train with --data.cache {Path(options.out)}"
    )


def _refuse_others_labels(folder: Path, labels: Path) -> None:
    """The results include a labels.csv, which must not replace one that was given."""
    inside = labels.resolve() in (folder.resolve(), folder.resolve() / "labels.csv")
    foreign = (folder / "labels.csv").exists() and not (folder / "checks.csv").exists()
    if inside or foreign:
        raise LabelError(
            f"{folder}: holds labels that the results would be written over; give another --out"
        )


def _write_table(
    folder: Path, table: pd.DataFrame, dataset: DatasetSpec, images: str, broken: dict[str, str]
) -> None:
    """Write the cleaned labels, then the note that makes the folder one of prepared labels."""
    write_atomically(folder / "labels.csv", table.to_csv(index=False).encode())
    numeric = {
        str(c): str(table[c].dtype) for c in table if pd.api.types.is_numeric_dtype(table[c])
    }
    note = Prepared(
        dataset=dataset.name,
        images=images,
        numeric=numeric,
        fingerprint=fingerprint(table),
        left_out=broken,
        bounds=(dataset.low, dataset.high),
    )
    write_atomically(folder / PREPARED, json.dumps(asdict(note), indent=2).encode())
