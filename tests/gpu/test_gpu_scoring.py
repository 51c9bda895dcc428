"""On a GPU photographs get the scores that they get on the CPU."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("simplejpeg")
pytest.importorskip("tensorboardX")


@pytest.mark.parametrize(
    ("precision", "most"), [("fp32", 5e-3), ("bf16", 0.1), ("fp16", 0.02)]
)  # TF32 in convolutions
@pytest.mark.parametrize("batch_size", [1, 5, 16])
def test_scores_are_those_of_the_cpu(
    precision: Any, most: float, batch_size: int, gpu: torch.device, checkpoint: Path, sample: Path
) -> None:
    from eat.scoring import Scorer

    def scores(**options: Any) -> np.ndarray:
        found = list(Scorer(checkpoint, **options)([sample / "images"]))
        assert len(found) == 64 and not any(score.error for score in found)
        return np.array([score.score for score in found])

    wanted = scores(device="cpu")
    found = scores(device=gpu.type, precision=precision, batch_size=batch_size)
    assert np.abs(found - wanted).max() < most
