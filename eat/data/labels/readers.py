"""One reader per published label file format, each from a path to a checked label table."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from eat.data.labels.fields import (
    LabelFile,
    read_blank_separated,
    read_bytes,
    read_csv,
    read_ids,
    read_text,
    read_with,
)
from eat.data.labels.table import LabelError, LabelWarning, error_at, quote, validate, vote_columns

VOTES = [f"votes_{k}" for k in range(1, 11)]
AVA_RELEASED = ["image_id", *(f"score{k}" for k in range(2, 12)), "tag1", "tag2", "tag3"]
AADB_ATTRIBUTES = {
    "BalacingElements": "balancing_elements",  # their spelling
    "ColorHarmony": "color_harmony",
    "Content": "content",
    "DoF": "dof",
    "Light": "light",
    "MotionBlur": "motion_blur",
    "Object": "object",
    "Repetition": "repetition",
    "RuleOfThirds": "rule_of_thirds",
    "Symmetry": "symmetry",
    "VividColor": "vivid_color",
}
FLICKR_TEST_WORKERS = "test_workers_ID.csv"
SNAKE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[\s\-]+")


def snake_case(name: str) -> str:
    """colorScore_mean -> color_score_mean."""
    return SNAKE.sub("_", name.strip()).lower()


def read_ava(
    path: str | Path, tags: str | Path | None = None, challenges: str | Path | None = None
) -> pd.DataFrame:
    """AVA (Murray et al., CVPR 2012): ``AVA.txt``, or a .csv of the released random split.

    Args:
        path: AVA.txt (index, image id, votes for 1..10, two tags, challenge), or a CSV with the
            header image_id, score2..score11, tag1, tag2, tag3, where scoreK+1 counts votes for K.
        tags: file of numbers and names; None takes tags.txt beside the labels, if there is one.
        challenges: the same, challenges.txt.

    Returns:
        image ("ID.jpg"), split "", score (mean vote, 1..10), votes_1..votes_10, tag1, tag2 and
        challenge (names, or numbers without a name, "" for 0).

    Raises:
        LabelError: the file, or a file of names, is damaged or has other columns.
    """
    path = Path(path)
    if path.suffix.lower() == ".csv":
        file = read_csv(path)
        _refuse_shifted_votes(file)
        names = AVA_RELEASED
    else:
        names = ["index", "image id", *(f"votes for {k}" for k in range(1, 11))]
        names += ["tag 1", "tag 2", "challenge"]
        file = read_blank_separated(path, names)
        file.numbers("index", whole=True)
    ids, votes, topics = names[-14], names[-13:-3], names[-3:]
    image_ids = file.text(ids)
    odd = ~image_ids.str.fullmatch("[0-9]+")
    if odd.any():
        raise error_at(path, file.fields, odd, ids, "a whole number", "correct it")
    table = {"image": image_ids + ".jpg"}
    table |= {f"votes_{k + 1}": file.numbers(name, 0, whole=True) for k, name in enumerate(votes)}
    tag_names = _names_beside(path, tags, "tags.txt")
    challenge_names = _names_beside(path, challenges, "challenges.txt")
    lists = {"tag1": tag_names, "tag2": tag_names, "challenge": challenge_names}
    for (column, known), topic in zip(lists.items(), topics, strict=True):
        numbers = file.numbers(topic, 0, 1e6, whole=True).astype(int)
        names = {k: known.get(k, str(k) if k else "") for k in numbers.unique()}
        table[column] = numbers.map(names)
    return from_votes(table, path, np.arange(1, 11))


def _names_beside(path: Path, given: str | Path | None, name: str) -> dict[int, str]:
    beside = path.with_name(name)
    if given is None and not beside.is_file():
        return {}
    return read_names(given or beside)


def _refuse_shifted_votes(file: LabelFile) -> None:
    missing = [name for name in AVA_RELEASED if name not in file.fields.columns]
    if missing:
        raise LabelError(
            f"{file.path}, line 1: no column {missing[0]}; found "
            f"{', '.join(file.fields.columns)}; expected {', '.join(AVA_RELEASED)}. In the "
            "released files score2 counts the votes for 1 and score11 those for 10: with score1 to "
            "score10 every vote may be off by one. Rename the columns if you know which score each "
            "counts, or give the votes as votes_1 to votes_10 of data set 'table'"
        )


def from_votes(table: dict, path: Path, values: np.ndarray) -> pd.DataFrame:
    """A checked table from image and vote columns, with the mean of ``values`` as its score."""
    frame = pd.DataFrame(table)
    votes = frame[vote_columns(frame)].to_numpy()
    # an image without votes is refused by the check of the votes
    frame.insert(1, "score", votes @ values / np.maximum(votes.sum(axis=1), 1e-12))
    frame.insert(1, "split", "")
    return validate(frame, values[0], values[-1], path)


def read_names(path: str | Path) -> dict[int, str]:
    """AVA's tags.txt or challenges.txt: a number, a blank and a name on each line.

    Raises:
        LabelError: a line has no whole number or no name.
    """
    names = {}
    for line, text in enumerate(read_text(path).split("\n"), start=1):
        number, _, name = text.strip().partition(" ")
        if number and not (number.isdecimal() and name):
            raise LabelError(
                f"{path}, line {line}: found {text!r}, expected a number and a name; correct it"
            )
        if number:
            names[int(number)] = name.strip()
    return names


def _read_scores(
    file: LabelFile,
    image: str,
    score: str,
    low: float,
    high: float,
    *,
    scale: float = 1.0,
    rename: Callable[[str], str] = snake_case,
    used: tuple[str, ...] = (),
    **columns: pd.Series,
) -> pd.DataFrame:
    """A table from an image and a score column, with the file's other columns under new names."""
    table = {"image": file.text(image), "split": "", "score": file.numbers(score) * scale}
    rest = {rename(name): values for name, values in file.rest([image, score, *used]).items()}
    return validate(pd.DataFrame({**table, **rest, **columns}), low, high, file.path)


def read_tad66k(path: str | Path) -> pd.DataFrame:
    """TAD66K (He et al., IJCAI 2022): a CSV with the columns image and score (1..10).

    A file in a folder of ``unmerge`` gets its name as ``theme``.

    Returns:
        image, split "", score, and theme.

    Raises:
        LabelError: the file is damaged or has other columns.
    """
    file = read_csv(path)
    by_theme = file.path.absolute().parent.parent.name == "unmerge"
    theme = {"theme": pd.Series(file.path.stem, file.fields.index)} if by_theme else {}
    return _read_scores(file, file.column("image"), file.column("score"), 1, 10, **theme)


def read_flickr_aes(path: str | Path) -> pd.DataFrame:
    """FLICKR-AES (Ren et al., ICCV 2017): ratings of each worker (.csv), or mean scores (.txt).

    The CSV has the columns worker, imagePair and score (1..5). If test_workers_ID.csv lies beside
    it, ratings of those workers are split "test" and the others "train". The text file has a file
    name and a score in 0..1, which is multiplied by 5, on each line.

    Returns:
        image, split, score (rating 1..5 with ``worker``; or mean 0..5 without).

    Warns:
        LabelWarning: a worker rated an image more than once; the mean of the ratings stands.

    Raises:
        LabelError: the file, or the list of workers, is damaged or has other columns.
    """
    path = Path(path)
    if path.suffix.lower() == ".txt":
        file = read_blank_separated(path, ["image", "score"])
        file.numbers("score", 0, 1)
        return _read_scores(file, "image", "score", 0, 5, scale=5)
    file = read_csv(path)
    names = [file.column(name) for name in ("worker", "imagePair", "score")]
    table = _read_ratings(file, *names, 1, 5)
    listed = path.with_name(FLICKR_TEST_WORKERS)
    if listed.is_file():
        table["split"] = np.where(table["worker"].isin(read_ids(listed)), "test", "train")
    return table


def _read_ratings(
    file: LabelFile, worker: str, image: str, score: str, low: float, high: float
) -> pd.DataFrame:
    """One row per image and worker; repeated ratings become their mean, with a warning."""
    table = pd.DataFrame(
        {"image": file.text(image), "worker": file.text(worker), "score": file.numbers(score)}
    )
    keys = ["image", "worker"]
    repeats = table[table.duplicated(keys)]
    if len(repeats):
        warnings.warn(
            f"{file.path}: {len(repeats)} ratings repeat a worker's rating of the same image, such "
            f"as {quote(repeats['image'])}; the mean of them stands for each",
            LabelWarning,
            stacklevel=3,
        )
        means = table.groupby(keys, sort=False)["score"].transform("mean")
        table = table.assign(score=means)[~table.duplicated(keys)]
    table.insert(1, "split", "")
    return validate(table, low, high, file.path)


def read_aadb(path: str | Path) -> pd.DataFrame:
    """AADB (Kong et al., ECCV 2016): ``imgListXRegression_score.txt``, or ``AADBinfo.mat``.

    Lists of attributes that lie beside a score list are joined to it.

    Returns:
        image, split ("" from a list), score (0..1), and attributes (-1..1) such as color_harmony.

    Raises:
        LabelError: a file is damaged, is no score list, or lists other images than the scores.
    """
    path = Path(path)
    if path.suffix.lower() == ".mat":
        return _read_aadb_mat(path)
    for name in AADB_ATTRIBUTES:
        if path.stem.endswith(f"Regression_{name}"):
            raise LabelError(
                f"{path}: found the attribute {name}, expected scores; give the list that ends in "
                "_score.txt: attributes beside it are joined to it"
            )
    file = read_blank_separated(path, ["image", "score"])
    table = _read_scores(file, "image", "score", 0, 1)
    for name, column in AADB_ATTRIBUTES.items():
        beside = path.with_name(path.name.replace("Regression_score.", f"Regression_{name}."))
        if beside != path and beside.is_file():
            table[column] = _read_attribute(beside, table["image"])
    return table


def _read_attribute(path: Path, images: pd.Series) -> np.ndarray:
    file = read_blank_separated(path, ["image", "score"])
    file.numbers("score", -1, 1)
    values = _read_scores(file, "image", "score", -1, 1).set_index("image")["score"]
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


def read_icaa17k(path: str | Path) -> pd.DataFrame:
    """ICAA17K (He et al., ICCV 2023): a CSV with the columns ID, color, MOS and probability.

    Returns:
        image ("type/pair/file.jpg"), split "", score (MOS, 0..10), color (0..10), probability.

    Raises:
        LabelError: the file is damaged or has other columns.
    """
    file = read_csv(path)
    color, probability = file.column("color"), file.column("probability")
    return _read_scores(
        file, file.column("ID"), file.column("MOS"), 0, 10,
        used=(color, probability),
        color=file.numbers(color, 0, 10),
        probability=file.numbers(probability, 0, 1),
    )  # fmt: skip


def read_spaq(path: str | Path) -> pd.DataFrame:
    """SPAQ (Fang et al., CVPR 2020): a split's CSV, or the original spreadsheet (.xlsx, .csv).

    A split's file has image_id, MOS and attributes in 0..10. The original has "Image name", and
    all its numbers are in 0..100 and are divided by 10.

    Returns:
        image, split "", score (0..10), and attributes such as brightness.

    Raises:
        LabelError: the file is damaged or has other columns, or it is a spreadsheet and openpyxl
            is not installed.
    """
    path = Path(path)
    file = (
        read_with(pd.read_excel, path, "openpyxl")
        if path.suffix.lower() == ".xlsx"
        else read_csv(path)
    )
    original = file.find("Image name")
    image, mos = original or file.column("image_id", "Image name"), file.column("MOS")
    high = 100 if original else 10
    file.numbers(mos, 0, high)
    attributes = {
        snake_case(name): file.numbers(name) * (10 / high)
        for name in file.fields.columns
        if name not in (image, mos)
    }
    used = tuple(file.fields.columns)
    return _read_scores(file, image, mos, 0, 10, scale=10 / high, used=used, **attributes)


def read_para(path: str | Path) -> pd.DataFrame:
    """PARA (Yang et al., CVPR 2022): PARA-GiaaTrain.csv, PARA-GiaaTest.csv or PARA-Images.csv.

    Columns are found by name: sessionId, imageName; aestheticScore_1.0 to aestheticScore_5.0 in
    steps of 0.5 and aestheticScore_mean; or userId and aestheticScore.

    Returns:
        image ("session/name"), split "", score (1..5); ``worker`` from PARA-Images.csv, else
        votes_1..votes_9 for 1.0, 1.5, ..., 5.0, theme (the scene) and the other columns, such as
        quality_score_mean.

    Warns:
        LabelWarning: a worker rated an image more than once; the mean of the ratings stands.

    Raises:
        LabelError: the file is damaged or has other columns.
    """
    file = read_csv(path)
    session, name = file.column("sessionId", "session"), file.column("imageName", "image")
    for column in (session, name):
        _refuse_empty(file, column)
    image = file.text(session) + "/" + file.text(name)
    worker = file.find("userId", "user")
    if worker:
        score = file.column("aestheticScore", "score")
        paths = LabelFile(file.path, file.fields.assign(**{name: image}))
        return _read_ratings(paths, worker, name, score, 1, 5)
    bins = [file.column(f"aestheticScore_{k / 2:.1f}", f"{k / 2:.1f}") for k in range(2, 11)]
    columns = {f"votes_{k + 1}": file.numbers(bin_, 0) for k, bin_ in enumerate(bins)}
    scene, mean = file.find("semantic"), file.find("aestheticScore_mean", "mean")
    used = [session, name, *bins, *filter(None, (scene, mean))]
    columns |= {"theme": file.text(scene)} if scene else {}
    columns |= {snake_case(key): values for key, values in file.rest(used).items()}
    table = from_votes({"image": image, **columns}, file.path, np.linspace(1, 5, 9))
    if mean:
        table["score"] = file.numbers(mean, 1, 5).to_numpy()
    return table


def _refuse_empty(file: LabelFile, column: str) -> None:
    empty = file.text(column) == ""
    if empty.any():
        line = file.fields.index[np.flatnonzero(empty)[0]]
        raise LabelError(
            f"{file.path}, line {line}, column {column}: found nothing, expected a name; fill it in"
        )
