"""Temporary."""

from typing import Any

import numpy as np
import pandas as pd

from eat.data.scales import to_scores
from eat.evaluation.evaluate import measure, predict
from eat.evaluation.evaluate import tabulate as old_tabulate

__all__ = ["mean_scores", "measure", "predict", "tabulate"]


def mean_scores(outputs: np.ndarray, scale: Any, source: Any = None) -> np.ndarray:
    return to_scores(outputs, scale)


def tabulate(outputs: np.ndarray, table: pd.DataFrame, scale: Any) -> pd.DataFrame:
    return old_tabulate(outputs, table, scale, scale)
