"""What the one process of a bulk call does with rows and outputs, without Ray: docs/bulk_plan.md.

    python scripts/benchmark_bulk_call.py

Rows of a shard come in chunks, as models give them, and are gathered and written as one Parquet
file; the names of finished outputs are read as a call that goes on does. Seconds are those of the
CPU.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
from stated import state

from eat.bulk.gathering import Gathering, rows_schema
from eat.bulk.output import OutFolder
from eat.bulk.shards import Shard

CHUNK = 64


def chunk(first: int, count: int, end: bool, drawn: np.random.Generator) -> pa.Table:
    """Rows as a model gives them, with ten votes; with ``end`` the last is the shard's last row."""
    rows = []
    for place in range(first, first + count):
        last = end and place == first + count - 1
        votes = drawn.dirichlet(np.ones(10)).astype(np.float32)
        rows.append({
            "number": 0, "place": place, "end": last, "model": "model", "worked": 0.1,
            "waited": 0.1, "key": f"{place:09}", "score": float(votes @ np.arange(1, 11)),
            "url": f"https://example.org/photos/{drawn.integers(10**12)}/{place}.jpg",
            "votes": votes,
        })  # fmt: skip
    return pa.Table.from_pylist(rows, schema=rows_schema(()))


def cpu_seconds(function: Callable[[], Any], rounds: int) -> float:
    """The least of some rounds."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def finished(count: int) -> dict[str, float]:
    """Seconds and bytes of a call that finds so many outputs; printed by a process of its own."""
    names = [f"{i:06}-{i * 7919:016x}.n10000.e{i % 7}.parquet" for i in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        OutFolder(folder, {})
        for name in names:
            Path(folder, name).touch()
        del names
        before, start = psutil.Process().memory_info().rss, time.process_time()
        out = OutFolder(folder, {})
        seconds = time.process_time() - start
        assert len(out.finished) == count
        return {"s": seconds, "MB": (psutil.Process().memory_info().rss - before) / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=10_000, help="of a shard")
    parser.add_argument("--outputs", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/bulk_call"))
    parser.add_argument("--finished", action="store_true", help="of a process of this script's own")
    args = parser.parse_args()
    if args.finished:
        print(json.dumps(finished(args.outputs)))
        return
    drawn = np.random.default_rng(args.seed)
    starts = range(0, args.images, CHUNK)
    sizes = [min(CHUNK, args.images - first) for first in starts]
    chunks = [chunk(first, size, False, drawn) for first, size in zip(starts, sizes, strict=True)]
    chunks.append(chunk(args.images, 1, True, drawn))
    shard = Shard("000000-0123456789abcdef", "s3://bucket/in/000000.tar")

    def gather() -> pa.Table:
        gathering = Gathering({0: shard})
        (whole,) = [one for part in chunks for one in gathering.add(part)]
        return whole.rows

    rows = gather()
    with tempfile.TemporaryDirectory() as folder:
        out = OutFolder(folder, {})
        seconds = cpu_seconds(lambda: out.write(shard, gather()), args.rounds)
        (path,) = Path(folder).glob("*.parquet")
        size = path.stat().st_size / len(rows)
    call = [sys.executable, __file__, "--finished", "--outputs", str(args.outputs)]
    listed = json.loads(subprocess.run(call, check=True, capture_output=True).stdout)
    measured = {
        "rows gathered and written a second": f"{args.images / seconds:.0f}",
        "bytes of a row": f"{size:.0f}",
        f"CPU seconds to find {args.outputs} outputs": f"{listed['s']:.1f}",
        f"MB to hold {args.outputs} outputs": f"{listed['MB']:.0f}",
    }
    table = pd.DataFrame(measured.items(), columns=["what", "measured"])
    settings = {"seed": args.seed, "images": args.images, "outputs": args.outputs}
    state(table, args.out, "The one process of a bulk call", settings)


if __name__ == "__main__":
    main()
