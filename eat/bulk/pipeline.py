"""The work as a data set of Ray's: shards in, rows of scores out."""

import pickle
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import torch

from eat.bulk.cluster import Cluster
from eat.bulk.shards import Shard
from eat.bulk.shipping import Shipped
from eat.bulk.work import ChunkScorer, Decoder, ahead
from eat.system.heap import keep_heap

# Times that a shard may end a process, as a file that crashes its decoder does, or a lost machine.
TRIES = 2
MOST_THREADS = 16


@dataclass(frozen=True)
class Pipeline:
    """Processes that decode and score.

    Apart, some decode for others that run the model, as on GPUs. Else each process does both, with
    as many threads as it has cores: pixels need not be handed over, and no core waits for another.

    Attributes:
        shipped: the model.
        decoder: that fits it.
        models: processes that run it.
        cores: of each process that decodes.
        device: of the models: cuda, of which each takes one, or cpu.
        apart: decode in other processes.
    """

    shipped: Shipped
    decoder: Decoder
    models: int
    cores: int
    device: str
    apart: bool

    def rows(self, shards: Mapping[int, Shard]) -> Iterator[pa.Table]:
        """Rows of shards, which have numbers, as ``Gathering`` takes them.

        Raises:
            RayError: the processes cannot be started.
        """
        import ray.data

        items = [{"number": n, "shard": pickle.dumps(shard)} for n, shard in shards.items()]
        data = ray.data.from_items(items, override_num_blocks=len(items))
        # A shard at a time, so that none waits in one process while another has nothing to do.
        models = ray.data.ActorPoolStrategy(
            size=self.models, max_tasks_in_flight_per_actor=2 if self.apart else 1
        )
        lasting = {"max_restarts": -1, "max_task_retries": TRIES - 1}
        if self.apart:
            pixels = data.map_batches(
                _decode,
                fn_args=(self.decoder,),
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=self.cores,
                max_retries=TRIES - 1,
            )
            scores = pixels.map_batches(
                _ScoreChunks,
                fn_constructor_args=(self.shipped, self.device),
                batch_size=None,
                batch_format="numpy",
                compute=models,
                num_gpus=1 if self.device == "cuda" else 0,
                **lasting,
            )
        else:
            scores = data.map_batches(
                _ScoreShards,
                fn_constructor_args=(self.shipped, self.decoder, self.device, self.cores),
                batch_size=1,
                batch_format="pyarrow",
                compute=models,
                num_cpus=self.cores,
                **lasting,
            )
        yield from scores.iter_batches(batch_size=None, batch_format="pyarrow")


def plan(
    cluster: Cluster,
    shipped: Shipped,
    decoder: Decoder,
    *,
    todo: int,
    models: int | None = None,
    threads: int | None = None,
    gpu: bool = False,
) -> Pipeline:
    """Share the cores among processes, of which each takes a shard at a time.

    Args:
        todo: shards.
        models: processes that run the model; None takes one a GPU, or one a core.
        threads: of each process that decodes; None takes as many as it has cores.
        gpu: whether the model runs on GPUs.
    """
    models = models or (cluster.gpus if gpu else min(cluster.cores, todo))
    decoding = min(cluster.cores, todo) if gpu else models
    cores = min(max(cluster.cores // decoding, 1), cluster.smallest, MOST_THREADS)
    decoder = replace(decoder, threads=threads or cores)
    return Pipeline(shipped, decoder, models, cores, "cuda" if gpu else "cpu", apart=gpu)


def _shards_of(batch: pa.Table) -> Iterator[tuple[int, Shard]]:
    for row in batch.to_pylist():
        yield row["number"], pickle.loads(row["shard"])


def _decode(batch: pa.Table, decoder: Decoder) -> Iterator[dict[str, Any]]:
    """Chunks of shards."""
    keep_heap()
    for number, shard in _shards_of(batch):
        yield from decoder(number, shard)


class _ScoreChunks:
    """A model for chunks of any shards."""

    def __init__(self, shipped: Shipped, device: str) -> None:
        keep_heap()
        self._score = ChunkScorer(shipped.scorer(device=device), uuid.uuid4().hex)

    def __call__(self, batch: dict[str, Any]) -> pa.Table:
        return self._score(batch)


class _ScoreShards:
    """A model, and what decodes for it."""

    def __init__(self, shipped: Shipped, decoder: Decoder, device: str, cores: int) -> None:
        keep_heap()
        torch.set_num_threads(cores)
        self._decoder = decoder
        self._score = ChunkScorer(shipped.scorer(device=device), uuid.uuid4().hex)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for number, shard in _shards_of(batch):
            for chunk in ahead(self._decoder(number, shard)):
                yield self._score(chunk)
