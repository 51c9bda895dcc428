"""The processes of a pipeline: their cores and GPUs, and a model that fails in one of them."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from eat.data.transforms import Preprocessing

pytest.importorskip("pyarrow", reason="bulk scoring needs pip install 'eat-iaa[ray]'")


@pytest.mark.parametrize(
    ("machines", "gpus", "given", "models", "cores"),
    [
        ([8, 8], 0, {"todo": 1000}, 16, 1),
        ([8, 8], 0, {"todo": 4}, 4, 4),
        ([8, 8], 0, {"todo": 1}, 1, 8),  # no machine has 16
        ([2, 4], 0, {"todo": 1000, "models": 1}, 1, 2),
        ([1, 1], 0, {"todo": 1000, "models": 5}, 5, 1),
        ([64], 0, {"todo": 1}, 1, 16),
        ([8, 8], 2, {"todo": 1, "gpu": True}, 2, 8),
    ],
)
def test_each_process_has_a_place_on_some_machine(
    machines: list[int], gpus: int, given: dict[str, Any], models: int, cores: int
) -> None:
    from eat.bulk.cluster import Cluster
    from eat.bulk.pipeline import plan
    from eat.bulk.shipping import Shipped
    from eat.bulk.work import Decoder

    cluster = Cluster(sum(machines), gpus, min(machines), is_own=False)
    made = plan(cluster, Shipped({}, {}), Decoder(Preprocessing(64)), **given)
    assert (made.models, made.cores, made.apart) == (models, cores, gpus > 0)
    assert made.decoder.threads == cores


def test_shards_whose_model_fails_are_named_with_its_error(tmp_path: Path) -> None:
    from eat.bulk.gathering import Gathering
    from eat.bulk.shards import Shard
    from eat.bulk.work import ChunkScorer, Decoder

    class Failing:
        scales = {"score": None}

        def score_pixels(self, decoded: object) -> None:
            raise RuntimeError("out of memory")

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    shard = Shard("a-1", "a", (str(tmp_path / "a.png"),))
    gathering, scorer = Gathering({7: shard}), ChunkScorer(Failing(), "model")  # type: ignore[arg-type]
    (chunk,) = Decoder(Preprocessing(64))(7, shard)
    (found,) = gathering.add(scorer(chunk))
    assert (found.shard, found.rows) == (shard, None)
    assert found.error == "the model has failed: out of memory"
    assert gathering.left() == []
