"""Targets of the labels."""

import pandas as pd
import pytest
import torch

from eat.data.dataset import targets
from eat.data.labels.table import LabelError
from eat.data.registry import DATASETS


def test_targets_are_vote_shares_or_scaled_scores() -> None:
    votes = {f"votes_{k}": [float(k == 3), 1.0] for k in range(1, 11)}
    table = pd.DataFrame({"image": ["a", "b"], "score": [3.0, 5.5], **votes})
    shares = targets(table, DATASETS["ava"].scales(), 10)
    assert shares[0].tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    assert torch.allclose(shares[1], torch.full((10,), 0.1))
    scores = targets(table, DATASETS["tad66k"].scales(), 1)
    assert torch.allclose(scores, torch.tensor([[0.3], [0.55]]))
    with pytest.raises(LabelError, match="model has 5 outputs"):
        targets(table, DATASETS["ava"].scales(), 5)
