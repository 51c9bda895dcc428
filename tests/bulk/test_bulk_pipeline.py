"""A cluster's cores and GPUs, shared among processes."""

import pytest

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
    machines: list[int], gpus: int, given: dict[str, int], models: int, cores: int
) -> None:
    from eat.bulk.cluster import Cluster
    from eat.bulk.pipeline import plan
    from eat.bulk.shipping import Shipped
    from eat.bulk.work import Decoder

    cluster = Cluster(sum(machines), gpus, min(machines), is_own=False)
    made = plan(cluster, Shipped({}, {}), Decoder(Preprocessing(64)), **given)
    assert (made.models, made.cores, made.apart) == (models, cores, gpus > 0)
    assert made.decoder.threads == cores
