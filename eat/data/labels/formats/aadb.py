"""AADB: mean scores and attributes."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eat.data.labels.fields import read_blank_separated, read_bytes
from eat.data.labels.formats.build import from_scores
from eat.data.labels.formats.own import read_table
from eat.data.labels.table import LabelError, check_repeats, quote, validate
from eat.data.registry import AADB_ATTRIBUTES


def read_aadb(path: str | Path) -> pd.DataFrame:
    """AADB (Kong et al., ECCV 2016): ``imgListXRegression_score.txt``, or ``AADBinfo.mat``.

    Lists of attributes that lie beside a score list are joined to it. No single ratings are
    published: a ``.csv`` is a table of your own, such as image, worker, score.

    Returns:
        image, split ("" from a list), score (0..1), and attributes (-1..1) such as color_harmony.
    """
    path = Path(path)
    if path.suffix.lower() == ".csv":
        return read_table(path, 0, 1)
    if path.suffix.lower() == ".mat":
        return _read_aadb_mat(path)
    for name in AADB_ATTRIBUTES:
        if path.stem.endswith(f"Regression_{name}"):
            raise LabelError(
                f"{path}: found the attribute {name}, expected scores; give the list that ends in "
                "_score.txt: attributes beside it are joined to it"
            )
    file = read_blank_separated(path, ["image", "score"])
    table = from_scores(file, "image", "score", 0, 1)
    for name, column in AADB_ATTRIBUTES.items():
        beside = path.with_name(path.name.replace("Regression_score.", f"Regression_{name}."))
        if beside != path and beside.is_file():
            table[column] = _read_attribute(beside, table["image"])
    return table


def _read_attribute(path: Path, images: pd.Series) -> NDArray[np.float64]:
    file = read_blank_separated(path, ["image", "score"])
    check_repeats(file.fields, path)
    values = file.numbers("score", -1, 1).set_axis(file.text("image"))
    odd = sorted(set(images) ^ set(values.index))
    if odd:
        raise LabelError(
            f"{path}: {len(odd)} images stand only here or only in the scores: {quote(odd)}; "
            "expected the same images; copy the files again"
        )
    return values.loc[images].to_numpy()


def _read_aadb_mat(path: Path) -> pd.DataFrame:
    from scipy.io import loadmat  # costs as much as the rest of this package

    read_bytes(path)
    try:
        content = loadmat(path)
        parts = []
        for split in ("train", "test"):
            names = [_unwrap(cell) for cell in content[f"{split}NameList"].ravel()]
            scores = content[f"{split}Score"].ravel()
            parts.append(pd.DataFrame({"image": names, "split": split, "score": scores}))
    except Exception as error:  # scipy raises half a dozen kinds for a damaged file
        raise LabelError(
            f"{path}: cannot be read as AADBinfo.mat ({type(error).__name__}: {error}); expected "
            "trainNameList, trainScore, testNameList and testScore; copy the file again"
        ) from error
    return validate(pd.concat(parts, ignore_index=True), 0, 1, path)


def _unwrap(cell: object) -> object:
    while isinstance(cell, np.ndarray):
        cell = cell.item()
    return cell
