"""Tars read by Ray's ``read_webdataset``, and by our reader inside a map of Ray's.

    python scripts/benchmark_webdataset.py

Both count the bytes of all members of the same tars, in turns. Seconds are those of the processors,
of a machine that does nothing else.
"""

import argparse
import io
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import ray.data
from stated import state

from eat.bulk.cluster import ray_cluster
from eat.bulk.reading import read_shard
from eat.bulk.shards import Shard

SIZES = 5_000, 100_000  # bytes of a member
BATCH = 64


def make_tars(folder: Path, count: int, tars: int, size: int) -> list[str]:
    """Tars with members of random bytes."""
    drawn = np.random.default_rng(size)
    paths = [folder / f"{size}-{number:03}.tar" for number in range(tars)]
    for number, path in enumerate(paths):
        with tarfile.open(path, "w") as tar:
            for member in range(number, count, tars):
                entry = tarfile.TarInfo(f"{member:08}.jpg")
                entry.size = size
                tar.addfile(entry, io.BytesIO(drawn.bytes(size)))
    return [str(path) for path in paths]


def by_ray(tars: list[str]) -> int:
    data = ray.data.read_webdataset(tars, decoder=None)
    sizes = data.map_batches(
        lambda batch: pa.table({"bytes": [len(content) for content in batch["jpg"]]}),
        batch_size=BATCH,
    )
    return int(sizes.sum("bytes"))


def by_ours(tars: list[str]) -> int:
    def read(row: dict[str, str]) -> list[dict[str, int]]:
        items = read_shard(Shard("shard", row["item"]))
        return [{"bytes": len(item.content)} for item in items]

    data = ray.data.from_items(tars, override_num_blocks=len(tars))
    return int(data.flat_map(read).sum("bytes"))


def cpu_seconds() -> float:
    """Of all processes of this machine, as those of Ray come and go."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


def measured(
    read: Callable[[list[str]], int], tars: list[str], expected: int
) -> tuple[float, float]:
    """Seconds of the processors, and of the clock."""
    before, start = cpu_seconds(), time.perf_counter()
    found = read(tars)
    if found != expected:
        raise SystemExit(f"{read.__name__}: {found} bytes, expected {expected}")
    return cpu_seconds() - before, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("results/webdataset"))
    parser.add_argument("--members", type=int, default=10_000)
    parser.add_argument("--tars", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    ways = {"read_webdataset": by_ray, "ours": by_ours}
    rows = []
    with tempfile.TemporaryDirectory() as folder, ray_cluster(None):
        ray.data.DataContext.get_current().max_errored_blocks = 0
        for size in SIZES:
            tars = make_tars(Path(folder), args.members, args.tars, size)
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
            for _ in range(args.rounds + 1):  # the first starts the processes
                for name, read in ways.items():
                    found[name].append(measured(read, tars, args.members * size))
            for name, times in found.items():
                cpu, clock = (min(column) for column in zip(*times[1:], strict=True))
                title = f"{name}, {size // 1000} kB a member"
                rows.append({"reader": title, "processor s": f"{cpu:.2f}", "s": f"{clock:.2f}"})
    settings = {"seed": "sizes", "members": args.members, "tars": args.tars, "rounds": args.rounds}
    state(pd.DataFrame(rows), args.out, "Reading tars on Ray", settings)


if __name__ == "__main__":
    main()
