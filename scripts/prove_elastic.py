"""Random kills of a run on two hosts that torchrun starts again, and the same run left alone.

    python scripts/prove_elastic.py --runs 5 --kills 4

The hosts are network namespaces of this machine (root and iproute2 are needed). Each run trains
one process on each host. After a random time within each start a random one of them is killed.
Weights and metrics must then be those of the run that was left alone, bit for bit.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import yaml
from safetensors.torch import load_file
from stated import state

from eat.config import DataConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig
from eat.sample.make import make_sample
from eat.training.state import state_files

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))
from hosts import Host, hosts  # noqa: E402

SMALL = {"dims": [16, 32, 32, 64], "heads": [1, 1, 2, 4], "stages": ["L", "S", "LE", "E"]}
LIMIT = 600.0  # seconds of a run
SPREAD = 3.0  # seconds, within which a kill follows a start
KEPT = ("epoch", "lr", "train_loss", "emd", "mse", "srcc")


def options(sample: Path, folder: Path) -> Path:
    """The config file of a run of 300 steps, with a state after each."""
    config = TrainConfig(
        data=DataConfig(
            "sample", labels=str(sample), images=str(sample / "images"), size=64, workers=0
        ),
        model=ModelConfig("eat_nano", settings=SMALL | {"drop_path_rate": 0.3}),
        optim=OptimConfig(epochs=30, batch_size=10, lr=1e-3, ema=0.9),
        run=RunConfig(str(folder), device="cpu", resume="auto", save_steps=1),
    )
    file = folder.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(config.to_dict()))
    return file


def start(pair: list[Host], config: Path, restarts: int) -> list[subprocess.Popen[str]]:
    """torchrun on each host."""
    torchrun = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    torchrun += [f"--max-restarts={restarts}", "--rdzv-backend=c10d"]
    torchrun += [f"--rdzv-endpoint={pair[0].address}:29500"]
    script = [str(ROOT / "main_nni.py"), "--config", str(config)]
    found = []
    for host in pair:
        own = [f"--local-addr={host.address}", f"--rdzv-conf=is_host={int(host is pair[0])}"]
        command = [sys.executable, *torchrun, *own, *script]
        with config.with_suffix(f".{host.address}.log").open("w") as log:
            env = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "eth0"}
            found.append(host.start(command, env, stdout=log, stderr=subprocess.STDOUT))
    return found


def rank_on(host: Host) -> psutil.Process | None:
    """The training process on a host, if it runs."""
    for pid in host.pids():
        try:
            process = psutil.Process(pid)
            words = process.cmdline()
        except psutil.NoSuchProcess:
            continue
        if str(ROOT / "main_nni.py") in words and "torch.distributed.run" not in words:
            return process
    return None


def starts(folder: Path) -> int:
    """How often a run has begun or gone on, as its folder knows."""
    file = folder / "starts.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def newest(folder: Path) -> int:
    """The step of a run's last state; 0 without."""
    files = state_files(folder / "checkpoints")
    return int(files[0].name.split("-")[1]) if files else 0


def disturbed(
    pair: list[Host], config: Path, kills: int, chance: random.Random
) -> list[dict[str, Any]]:
    """A row for each kill of a run.

    Raises:
        SystemExit: it fails, or does not end.
    """
    folder = config.with_suffix("")
    started, end = start(pair, config, kills), time.monotonic() + LIMIT
    rows: list[dict[str, Any]] = []
    seen, killed = 0, 0.0
    while any(process.poll() is None for process in started):
        if time.monotonic() > end:
            raise SystemExit(f"{folder}: still running after {LIMIT:.0f} s")
        time.sleep(0.05)
        if starts(folder) == seen:
            continue
        seen = starts(folder)
        if rows:
            rows[-1]["s until it went on"] = f"{time.monotonic() - killed:.1f}"
        if len(rows) == kills:
            break
        time.sleep(chance.uniform(0, SPREAD))
        host = chance.randrange(2)
        if (victim := rank_on(pair[host])) is not None:
            rows.append({"kill": len(rows) + 1, "host": host + 1, "after step": newest(folder)})
            victim.kill()
            killed = time.monotonic()
    if any(process.wait(LIMIT) for process in started):
        logs = [file.read_text() for file in folder.parent.glob(f"{folder.name}.*.log")]
        raise SystemExit(f"{folder}: failed\n" + "\n".join(logs))
    return rows


def outcome(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Weights, and the metrics of each epoch."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    weights = load_file(folder / "checkpoints" / "last.safetensors")
    return weights, [{name: row[name] for name in KEPT} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("results/elastic"))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--kills", type=int, default=4, help="of each run")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    rows = []
    with tempfile.TemporaryDirectory() as temporary, hosts(2) as pair:
        folder = Path(temporary)
        sample = make_sample(folder / "sample", train=100, test=20, size=96)
        disturbed(pair, options(sample, folder / "alone"), 0, chance)
        weights, metrics = outcome(folder / "alone")
        for number in range(1, args.runs + 1):
            name = f"run{number}"
            found = disturbed(pair, options(sample, folder / name), args.kills, chance)
            others, theirs = outcome(folder / name)
            same = theirs == metrics and all(weights[k].equal(others[k]) for k in weights)
            rows += [{"run": number} | row | {"same": same} for row in found]
            print(f"{name}: {len(found)} kills, {'the same' if same else 'DIFFERENT'}", flush=True)
    settings = {"seed": args.seed, "runs": args.runs}
    state(pd.DataFrame(rows), args.out, "Random kills of a run on two hosts", settings)
    sys.exit(not all(row["same"] for row in rows))


if __name__ == "__main__":
    main()
