"""ICAA17K: mean scores, of the photograph and of its colours."""

from pathlib import Path

import pandas as pd

from eat.data.labels.fields import read_csv
from eat.data.labels.formats.build import from_scores


def read_icaa17k(path: str | Path) -> pd.DataFrame:
    """ICAA17K (He et al., ICCV 2023): a CSV with the columns ID, color, MOS and probability.

    Returns:
        image ("type/pair/file.jpg"), split "", score (MOS, 0..10), color (0..10), probability.
    """
    file = read_csv(path)
    columns = {
        "color": file.numbers(file.column("color"), 0, 10),
        "probability": file.numbers(file.column("probability"), 0, 1),
    }
    return from_scores(file, file.column("ID"), file.column("MOS"), 0, 10, columns=columns)
