"""TAD66K: mean scores, merged or by theme."""

from pathlib import Path

import pandas as pd

from eat.data.labels.fields import read_csv
from eat.data.labels.formats.build import from_scores
from eat.data.labels.table import LabelError, cut


def read_tad66k(path: str | Path) -> pd.DataFrame:
    """TAD66K (He et al., IJCAI 2022): a CSV with the columns image and score (1..10).

    A file in a folder of ``unmerge`` gets its name as ``theme``. Beside ``unmerge``, the official
    lists of ``merge`` get the theme of each image from there.

    Raises:
        LabelError: the file is wrong, or an image stands in the lists of two themes.
    """
    file = read_csv(path)
    folder, image = file.path.absolute().parent, file.column("image")
    columns = {}
    if folder.parent.name == "unmerge":
        columns["theme"] = pd.Series(file.path.stem, file.fields.index)
    elif (folder.parent / "unmerge").is_dir():
        columns["theme"] = file.text(image).map(read_themes(folder.parent / "unmerge")).fillna("")
    return from_scores(file, image, file.column("score"), 1, 10, columns=columns)


def read_themes(folder: Path) -> dict[str, str]:
    """The theme of each image in the lists by theme.

    Raises:
        LabelError: an image stands in the lists of two themes.
    """
    themes: dict[str, str] = {}
    for path in sorted(folder.glob("*/*.csv")):
        file = read_csv(path)
        for image in file.text(file.column("image")):
            if (other := themes.setdefault(image, path.stem)) != path.stem:
                raise LabelError(
                    f"{path}: {cut(image)} also stands in the list of {cut(other)}: expected each "
                    "image under one theme; remove it from one of the two lists"
                )
    return themes
