"""Statistics of the k-shot protocol."""

import numpy as np
import pytest

from eat.personal.report import Personalization, WorkerResult


def test_statistics_are_those_of_the_protocol() -> None:
    results = [
        WorkerResult("a", 20, [0.5, 0.7], [0.1, 0.2]),
        WorkerResult("b", 20, [0.2, 0.6], [0.3, 0.3]),
        WorkerResult("c", 20, [float("nan"), 0.4], [0.5, 0.5]),
    ]
    found = Personalization("t", {"shots": 10, "repeats": 2}, results)
    row = found.statistics()["personalised"]
    assert row["mean"] == pytest.approx((0.6 + 0.4 + 0.4) / 3)
    assert row["deviation"] == pytest.approx(np.std([0.35, 1.7 / 3], ddof=1))
    assert row["low"] == pytest.approx(0.4) and 0.4 < row["high"] <= 0.6
    assert found.statistics()["difference"]["mean"] == pytest.approx((0.45 + 0.1 - 0.1) / 3)
    assert found.undefined == 1
    assert found.per_worker()["repeats"].tolist() == [2, 2, 1]
    lines = found.markdown().splitlines()
    assert len({line.count("|") for line in lines}) == 1 and "0.467 ± " in lines[2]
