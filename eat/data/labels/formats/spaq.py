"""SPAQ: mean scores and attributes."""

from pathlib import Path

import pandas as pd

from eat.data.labels.fields import read_csv, read_with
from eat.data.labels.formats.build import from_scores, snake_case


def read_spaq(path: str | Path) -> pd.DataFrame:
    """SPAQ (Fang et al., CVPR 2020): a split's CSV, or the original spreadsheet (.xlsx, .csv).

    A split's file has image_id, MOS and attributes in 0..10. The original has "Image name", and
    all its numbers are in 0..100 and are divided by 10.

    Returns:
        image, split "", score (0..10), and attributes such as brightness.

    Raises:
        LabelError: also if it is a spreadsheet and openpyxl is not installed.
    """
    path = Path(path)
    sheet = path.suffix.lower() == ".xlsx"
    file = read_with(pd.read_excel, path, "openpyxl") if sheet else read_csv(path)
    original = file.find("Image name")
    image, mos = original or file.column("image_id", "Image name"), file.column("MOS")
    high = 100 if original else 10
    file.numbers(mos, 0, high)
    attributes = {
        snake_case(name): file.numbers(name) * (10 / high)
        for name in file.fields.columns
        if name not in (image, mos)
    }
    return from_scores(file, image, mos, 0, 10, scale=10 / high, columns=attributes)
