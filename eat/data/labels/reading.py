"""The one way from a data set's name and label files to a label table."""

import io
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from eat.data.labels.fields import ID_HEADERS, read_bytes, read_ids, read_text
from eat.data.labels.table import (
    LabelError,
    LabelWarning,
    check_repeats,
    check_targets,
    cut,
    quote,
    validate,
    vote_columns,
    warn,
)
from eat.data.registry import PLAIN, DatasetSpec, find_dataset
from eat.system.schema import typed

PathLike = str | Path
PREPARED = "prepared.json"  # marks a folder of labels that eat prepare has cleaned


def read_labels(
    name: str,
    labels: PathLike | Sequence[PathLike],
    *,
    low: float | None = None,
    high: float | None = None,
    test: PathLike | None = None,
    val: PathLike | None = None,
    targets: Sequence[str] | None = None,
    allow_overlap: bool = False,
) -> pd.DataFrame:
    """Read a data set's labels: one row per image, columns as in :mod:`eat.data.labels.table`.

    Args:
        name: a row of :data:`eat.data.registry.DATASETS`.
        labels: a label file, several, a folder with the published files under their names, or one
            that ``eat prepare`` wrote.
        low: lowest score of the data set ``table``, as in ``find_dataset``.
        high: highest score.
        test: a label file or folder of the test split, or a list of image ids (with or without the
            file's suffix), one on a line, that marks the test images in ``labels``; where the
            labels name workers it may list workers, whose images are then test images. Takes the
            place of the test file of a folder. Where it is given, images without a split become
            "train".
        val: the same for the validation split.
        targets: columns that must be there and hold numbers on their scales; None asks for none
            but the score.
        allow_overlap: keep images that stand in two splits on both sides.

    Returns:
        Files with ratings of workers give their mean for each image; such an image is in the test
        split if any of its ratings is (then in "val", "train", or none). FLICKR-AES scores are
        means of ratings 1..5 or, where there is only the score file in 0..1, 5 times that score.

    Warns:
        LabelWarning: ids of a list have no label (AVA's lists hold such ids), or test images have
            file name and score of a training image (ICAA17K holds such copies).

    Raises:
        ValueError: there is no such data set, or the bounds are no scale or not for it.
        LabelError: a file is wrong; an image stands in two splits, or twice in one.
    """
    dataset = find_dataset(name, low, high)
    scales = dataset.scales(targets) if targets else {}
    paths = [labels] if isinstance(labels, str | Path) else labels
    if len(paths) == 1 and (Path(paths[0]) / PREPARED).is_file():
        return check_targets(_read_prepared(dataset, Path(paths[0]), test, val), scales, paths[0])
    parts: dict[str, list[Path]] = {"": []}
    for path in paths:
        for split, files in _published_files(dataset, Path(path)).items():
            parts.setdefault(split, []).extend(files)
    for split, given in (("test", test), ("val", val)):
        if given is not None:
            found = _published_files(dataset, Path(given)).values()
            parts[split] = [path for files in found for path in files]
    id_lists = {split: list(filter(is_id_list, parts.get(split, []))) for split in ("val", "test")}
    tables = [
        _assign(check_targets(dataset.read(path), scales, path), split, path)
        for split, files in parts.items()
        for path in files
        if path not in id_lists.get(split, [])
    ]
    source = ", ".join(str(path) for path in paths)
    table = _join(tables, source)
    if "worker" in table:
        table = _assign_workers(table, id_lists)
        table = _mean_over_workers(table)
    for split, files in id_lists.items():
        for path in files:
            table = _assign(table, split, path, _listed(table, path))
    if test is not None or val is not None or any(id_lists.values()):
        table["split"] = table["split"].replace("", "train")
    _check_overlap(table, source, allow_overlap)
    _warn_of_copies(table, source)
    if name == "table" and low is None and high is None:
        _warn_of_half_a_scale(table, source)
    return table


@dataclass
class Prepared:
    """The note beside labels that ``eat prepare`` has cleaned.

    Attributes:
        dataset: name of the data set.
        images: image folder.
        numeric: dtype of each column of numbers.
        fingerprint: of the images.
        left_out: images that are missing or broken, and why.
        bounds: lowest and highest score; older notes have none.
    """

    dataset: str
    images: str
    numeric: dict[str, str]
    fingerprint: str = ""
    left_out: dict[str, str] = field(default_factory=dict)
    bounds: tuple[float, float] | None = None


def _read_prepared(
    dataset: DatasetSpec, folder: Path, test: PathLike | None, val: PathLike | None
) -> pd.DataFrame:
    """The cleaned table that ``eat prepare`` wrote into a folder."""
    try:
        note: Prepared = typed(Prepared, json.loads(read_bytes(folder / PREPARED)), "note")
        table = _typed_table(read_bytes(folder / "labels.csv"), note.numeric)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        if isinstance(error, LabelError):
            raise
        raise LabelError(
            f"{folder}: {PREPARED} or labels.csv is not as eat prepare wrote it ({cut(error)}); "
            "run it again"
        ) from error
    if note.dataset != dataset.name:
        raise LabelError(
            f"{folder}: holds prepared labels of {cut(note.dataset)!r}, expected {dataset.name!r}; "
            "name that data set, or give another folder"
        )
    low, high = note.bounds or (dataset.low, dataset.high)
    if (low, high) != (dataset.low, dataset.high):
        raise LabelError(
            f"{folder}: prepared with scores from {low:g} to {high:g}, expected {dataset.low:g} to "
            f"{dataset.high:g}; give --data.low {low:g} --data.high {high:g} {PLAIN}"
        )
    if test is not None or val is not None:
        raise LabelError(
            f"{folder}: prepared labels have their splits already; give the test and validation "
            "lists to eat prepare instead"
        )
    return validate(table, dataset.low, dataset.high, folder / "labels.csv")


def _typed_table(content: bytes, numeric: dict[str, str]) -> pd.DataFrame:
    """A table as text, its columns of numbers with their dtypes."""
    table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    for column, name in numeric.items():
        text, kind = table[column], pd.api.types.pandas_dtype(name)
        if not pd.api.types.is_numeric_dtype(kind):
            raise ValueError(f"column {cut(column)} is of {cut(name)}: expected numbers")
        table[column] = text == "True" if kind == "bool" else text.replace("", "nan").astype(kind)
    return table


def read_ratings(
    name: str, labels: PathLike, *, low: float | None = None, high: float | None = None
) -> pd.DataFrame:
    """Read single ratings, from their file or the folder with the published one.

    Args:
        name: of the data set.
        labels: the file or folder.
        low: lowest score of the data set ``table``.
        high: highest score of it.

    Returns:
        One row per image and worker: image, split, worker, score. ``split`` is "test" for the
        workers of FLICKR-AES's test_workers_ID.csv and "train" for others, if that list lies beside
        the ratings, else "". Of a data set without published ratings, a CSV is read as a table of
        your own (image, worker, score) on the data set's scale.

    Raises:
        ValueError: there is no such data set.
        LabelError: the file is wrong, or does not tell who rated.
    """
    dataset = find_dataset(name, low, high)
    path = Path(labels)
    if path.is_dir():
        files = [path / file for file in dataset.ratings if (path / file).is_file()]
        if not files:
            raise LabelError(
                f"{path}: found no ratings of single workers for {dataset.title}, expected "
                f"{' or '.join(dataset.ratings) or 'none: none are published'}; give the file"
            )
        path = files[0]
    if not dataset.ratings and path.suffix.lower() == ".csv":  # none are published
        dataset = find_dataset("table", dataset.low, dataset.high)
    table = dataset.read(path)
    if "worker" not in table:
        raise LabelError(
            f"{path}: found mean scores, expected a rating and a worker in each row; give the file "
            "of single ratings"
        )
    return table[["image", "split", "worker", "score"]]


def is_id_list(path: PathLike) -> bool:
    """True for a file that lists ids, one on a line, instead of labels."""
    suffix = Path(path).suffix.lower()
    if suffix not in (".txt", ".csv"):
        return suffix == ".jpgl"
    with warnings.catch_warnings():  # whoever reads the file will warn
        warnings.simplefilter("ignore", LabelWarning)
        first = read_text(path).strip().split("\n")[0].strip()
    if suffix == ".txt":
        return len(first.replace(",", " ").split()) == 1
    return "," not in first and (first.casefold() in ID_HEADERS or ";" not in first)


def _published_files(dataset: DatasetSpec, path: Path) -> dict[str, list[Path]]:
    """Label files by split: the file itself, or those of the first layout a folder fits."""
    if not path.is_dir():
        return {"": [path]}
    for layout in dataset.layouts:
        found = {split: sorted(path.glob(name.rstrip("?"))) for split, name in layout.items()}
        if all(found[split] or name.endswith("?") for split, name in layout.items()):
            return {split: files for split, files in found.items() if files}
    known = " or ".join("+".join(layout.values()) for layout in dataset.layouts)
    raise LabelError(
        f"{path}: found no labels of {dataset.title}, expected {known} (? may be absent); give the "
        "folder that holds them, or a label file"
    )


def _assign(
    table: pd.DataFrame, split: str, source: Path, rows: pd.Series | None = None
) -> pd.DataFrame:
    """Put rows (None for all) into a split, unless they are in another."""
    if not split:
        return table
    chosen = pd.Series(True, table.index) if rows is None else rows
    other = table[chosen & ~table["split"].isin(["", split])]
    if len(other):
        raise LabelError(
            f"{source}: {len(other)} images for the {split} split are in the split "
            f"{other['split'].iloc[0]} already: {quote(other['image'])}; expected one split for "
            "each; remove them from one"
        )
    return table.assign(split=table["split"].mask(chosen, split))


def _join(tables: list[pd.DataFrame], source: str) -> pd.DataFrame:
    if not tables:
        raise LabelError(f"{source}: found only lists of ids, expected labels; give a label file")
    table = pd.concat(tables, ignore_index=True)
    if table[vote_columns(table)].isna().any(axis=None):
        raise LabelError(f"{source}: some of the files have votes and some have not; give the same")
    if "worker" in table and table["worker"].isna().any():
        raise LabelError(f"{source}: some of the files name workers and some do not; give the same")
    for column in table.columns:
        if not pd.api.types.is_numeric_dtype(table[column]):
            table[column] = table[column].fillna("")
    return table


def _assign_workers(table: pd.DataFrame, id_lists: dict[str, list[Path]]) -> pd.DataFrame:
    """Put the ratings of listed workers into a split; such lists are taken out of ``id_lists``."""
    for split, files in id_lists.items():
        for path in list(files):
            rated = table["worker"].isin(read_ids(path))
            if rated.any():
                table = _assign(table, split, path, rated)
                table["split"] = table["split"].replace("", "train")
                files.remove(path)
    return table


def _mean_over_workers(table: pd.DataFrame) -> pd.DataFrame:
    ranked = ["", "train", "val", "test"]
    check_repeats(table, "the label files")
    table = table.drop(columns="worker").assign(split=table["split"].map(ranked.index))
    how = {
        name: "mean" if pd.api.types.is_numeric_dtype(values) else "first"
        for name, values in table.drop(columns="image").items()
    }
    means = table.groupby("image", sort=False, as_index=False).agg(how | {"split": "max"})
    return means.assign(split=means["split"].map(ranked.__getitem__))


def _listed(table: pd.DataFrame, path: Path) -> pd.Series:
    """Mark the rows that a list of ids names: (N,) bool."""
    ids = set(read_ids(path))
    images = table["image"]
    stems = images.str.replace(r"\.[^./]*$", "", regex=True)
    unknown = sorted(ids - set(images) - set(stems))
    if len(unknown) == len(ids):
        raise LabelError(
            f"{path}: none of its {len(ids)} ids is a labelled image: found {quote(unknown)}, "
            f"expected ids such as {images.iloc[0]}; give the list of this data set"
        )
    if unknown:
        warn(
            f"{path}: {len(unknown)} of {len(ids)} ids have no label and are left out: "
            f"{quote(unknown)}"
        )
    return images.isin(ids) | stems.isin(ids)


def _check_overlap(table: pd.DataFrame, source: str, allow_overlap: bool) -> None:
    for _, rows in table.groupby("split"):
        check_repeats(rows, source)
    shared = table.loc[table.duplicated("image"), "image"].drop_duplicates()
    if len(shared) and not allow_overlap:
        splits = table.loc[table["image"] == shared.iloc[0], "split"]
        raise LabelError(
            f"{source}: {len(shared)} images stand in two splits, such as {quote(shared)} (the "
            f"first in {' and '.join(name or 'none' for name in splits)}): what a model is tested "
            "on would be trained on. Remove them from the training labels, or give the test images "
            "as a list of ids"
        )


def _warn_of_half_a_scale(table: pd.DataFrame, source: str) -> None:
    """Five stars are a common scale, and lie within the scale that is taken without bounds."""
    if table["score"].max() <= 5 and not vote_columns(table):
        least, most = table["score"].min(), table["score"].max()
        warn(
            f"{source}: the scores, {least:g} to {most:g}, are taken as on the scale 1..10; if "
            f"theirs is 1..5, give --data.low 1 --data.high 5 {PLAIN}"
        )


def _warn_of_copies(table: pd.DataFrame, source: str) -> None:
    """ICAA17K holds the same photo under several folders, in both splits."""
    if not table["image"].str.contains("/", regex=False).any():
        return
    files = table["image"].str.rsplit("/", n=1).str[-1]
    keys = pd.MultiIndex.from_arrays([files, table["score"]])
    test = keys[table["split"] == "test"]
    copies = test.isin(keys[table["split"] == "train"])
    if copies.any():
        names = table.loc[table["split"] == "test", "image"][copies]
        warn(
            f"{source}: {copies.sum()} of {len(test)} test images have the file name and the score "
            f"of a training image: {quote(names)}; they are copies that a model has seen"
        )
