"""Bulk scoring on two machines, of which one is lost: no image is, and none comes twice."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from hosts import Host, hosts
from tars import pack

pytest.importorskip("ray", reason="bulk scoring needs pip install 'eat-iaa[ray]'")
ROOT = Path(__file__).parents[2]
# Ray notices a lost machine after half a minute, and here at once.
ENV = {
    "PYTHONPATH": str(ROOT),
    "RAY_AUTH_MODE": "disabled",
    "RAY_worker_niceness": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
NODE = ["--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats"]
SHARDS = 16


def ray_start(host: Host, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *NODE, *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return host.start([*command, f"--node-ip-address={host.address}"], ENV, **pipes)


@pytest.fixture
def cluster() -> Iterator[list[Host]]:
    """Two machines with a core each; the first one's Ray listens at port 6379."""
    # Of a short name, as it holds sockets.
    short = tempfile.TemporaryDirectory(prefix="eat-", dir="/tmp", ignore_cleanup_errors=True)
    with short as folder, hosts(2) as machines:
        first, second = machines
        head = ["--head", "--port=6379", "--include-dashboard=false", f"--temp-dir={folder}"]
        starting = [
            ray_start(first, *head),
            ray_start(second, f"--address={first.address}:6379"),
        ]
        for process in starting:
            printed, _ = process.communicate(timeout=180)
            assert process.returncode == 0, printed
        yield machines


def is_scoring(host: Host) -> bool:
    """True while a process there has a shard: Ray names it after what it does."""
    for pid in host.pids():
        with suppress(OSError):  # it may have ended
            if b"_ScoreShards)).submit" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return True
    return False


@pytest.mark.long
def test_a_machine_that_is_lost_takes_no_image_with_it(
    cluster: list[Host], sample: Path, checkpoint: Path, tmp_path: Path
) -> None:
    first, second = cluster
    images = sorted((sample / "images").iterdir())
    keys = set()
    for shard in range(SHARDS):
        named = {f"{shard:02}-{path.stem}.jpg": path.read_bytes() for path in images}
        named[f"{shard:02}-broken.jpg"] = b"no image"
        pack(tmp_path / f"{shard:02}.tar", named)
        keys |= {name.removesuffix(".jpg") for name in named}
    out = tmp_path / "scores"
    tars = [str(path) for path in sorted(tmp_path.glob("*.tar"))]
    call = ["score", *tars, "--engine", "ray", "--address", f"{first.address}:6379"]
    call += ["--checkpoint", str(checkpoint), "--out", str(out)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    scoring = first.start([sys.executable, "-m", "eat", *call], ENV, **pipes)
    while scoring.poll() is None and not (any(out.glob("*.parquet")) and is_scoring(second)):
        time.sleep(0.02)
    assert scoring.poll() is None, scoring.communicate()[0]
    second.kill()
    printed, _ = scoring.communicate(timeout=180)
    assert scoring.returncode == 0, printed
    rows = pd.concat(map(pd.read_parquet, out.glob("*.parquet")))
    assert sorted(rows["key"]) == sorted(keys)
    assert set(rows["key"][rows["error"].notna()]) == {key for key in keys if "broken" in key}
    found = json.loads((out / "_summary.json").read_text())
    assert found["images"] == found["scored"] + found["errors"] == len(keys)
    assert found["errors"] == SHARDS
