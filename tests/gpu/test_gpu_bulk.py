"""Bulk scoring with one process that has the GPU gives the scores of a scorer."""

from pathlib import Path

import pandas as pd
import pytest
import torch

pytest.importorskip("ray")
pytest.importorskip("simplejpeg")
pytest.importorskip("tensorboardX")


def test_one_process_scores_what_others_decode(
    gpu: torch.device, checkpoint: Path, sample: Path, tmp_path: Path
) -> None:
    from eat.bulk.engine import score_in_bulk
    from eat.config.commands import ScoreOptions
    from eat.scoring import Scorer

    options = ScoreOptions(
        checkpoint=str(checkpoint),
        engine="ray",
        out=str(tmp_path / "scores"),
        device=gpu.type,
        actors=1,
        shard_size=20,
    )
    tally = score_in_bulk([str(sample / "images")], options)
    assert tally.done.images == 64 and len(tally.models) == 1 and not tally.failed
    found = pd.read_parquet(tmp_path / "scores").set_index("key")["score"]
    wanted = {Path(s.image).stem: s.score for s in Scorer(checkpoint)([sample / "images"])}
    assert len(found) == 64
    for key, score in found.items():
        assert score == pytest.approx(wanted[Path(str(key)).stem], abs=5e-3)
