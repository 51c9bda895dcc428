"""TAD66K: mean scores, merged or by theme."""

from pathlib import Path

import pandas as pd

from eat.data.labels.fields import read_csv
from eat.data.labels.formats.build import from_scores


def read_tad66k(path: str | Path) -> pd.DataFrame:
    """TAD66K (He et al., IJCAI 2022): a CSV with the columns image and score (1..10).

    A file in a folder of ``unmerge`` gets its name as ``theme``.
    """
    file = read_csv(path)
    by_theme = file.path.absolute().parent.parent.name == "unmerge"
    theme = {"theme": pd.Series(file.path.stem, file.fields.index)} if by_theme else {}
    return from_scores(file, file.column("image"), file.column("score"), 1, 10, columns=theme)
