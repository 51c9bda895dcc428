"""Bulk scoring proved on drawn JPEGs in tars: speed beside ``eat score``, memory, and kills.

    python scripts/prove_bulk.py --checkpoint best.safetensors --images 10000 100000
    python scripts/prove_bulk.py --checkpoint best.safetensors --images 10000 100000 --alone
    python scripts/prove_bulk.py --checkpoint best.safetensors --images 100000 --kills 3

First: for each number of images, ``eat score`` on a folder of them and ``eat score --engine ray``
on tars of them, one after the other, with images/s of the whole commands and the peak resident
memory of all their processes: every 0.5 s the sum of their proportional set sizes (PSS,
/proc/PID/smaps_rollup), in which a page that several share, such as one of the object store, counts
once. With ``--alone``: the latter only. With ``--kills``: the run by Ray is interrupted by SIGKILL
at random moments, of the command, of all processes, of one of Ray's workers, in turn, and started
again after each. All check that every key has one row, that rows are scored or have an error, and
that these are of the broken files.
"""

import argparse
import io
import os
import random
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import simplejpeg
from PIL import Image
from stated import state

BROKEN = 499  # each so many'th file is none that can be read
MARK = "EAT_PROVE_BULK"  # in the environment of all processes of one command
EAT = [sys.executable, "-m", "eat", "score"]
VICTIMS = "the command", "all processes", "a worker of Ray's"  # without which Ray goes on


def is_broken(number: int) -> bool:
    return number % BROKEN == BROKEN - 1


def draw(number: int, seed: int) -> bytes:
    """A JPEG of 2 to 10 kB: blurred colours and some noise, of various sizes and qualities."""
    drawn = np.random.default_rng([seed, number])
    if is_broken(number):
        return drawn.bytes(number % 5000)
    width, height = (int(side) for side in drawn.integers(96, 192, 2))
    coarse = drawn.integers(0, 256, (*drawn.integers(2, 12, 2), 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noise = drawn.integers(0, 1 + drawn.integers(1, 24), (height, width, 1), dtype=np.uint8)
    pixels = np.maximum(np.asarray(smooth), noise)
    return simplejpeg.encode_jpeg(pixels, quality=int(drawn.integers(70, 95)))


def draw_shard(shard: int, folder: Path, size: int, seed: int) -> None:
    """One tar and the same files in a folder; what is there is left."""
    path = folder / "tars" / f"{shard:06}.tar"
    if path.exists():
        return
    files = folder / "files" / f"{shard:06}"
    files.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_suffix(".partial")
    with tarfile.open(partial_path, "w") as tar:
        for number in range(shard * size, (shard + 1) * size):
            content = draw(number, seed)
            (files / f"{number:09}.jpg").write_bytes(content)
            entry = tarfile.TarInfo(f"{number:09}.jpg")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    partial_path.rename(path)


def draw_all(args: argparse.Namespace, count: int) -> None:
    (args.data / "tars").mkdir(parents=True, exist_ok=True)
    one = partial(draw_shard, folder=args.data, size=args.shard, seed=args.seed)
    with ProcessPoolExecutor() as pool:
        list(pool.map(one, range(count // args.shard)))


def started_with(mark: str) -> list[psutil.Process]:
    """All processes that a command started, also those that lost their parents."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            pass
    return found


def resident(processes: list[psutil.Process]) -> int:
    """Bytes of memory, those that several share counted once."""
    total = 0
    for process in processes:
        try:
            text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except OSError:  # it has ended
            continue
        total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return 1024 * total


@dataclass
class Command:
    """A command that runs, and the peak of its processes' memory so far."""

    arguments: list[str]
    mark: str = field(default_factory=lambda: str(time.monotonic_ns()))
    peak: int = 0

    def __enter__(self) -> "Command":
        self.began = time.monotonic()
        self.log = Path(f"/tmp/eat-prove-{self.mark}.log").open("w+")
        self.process = subprocess.Popen(
            self.arguments,
            env=os.environ | {MARK: self.mark},
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.sampling = threading.Thread(target=self._sample)
        self.sampling.start()
        return self

    def _sample(self) -> None:
        while self.process.poll() is None:
            self.peak = max(self.peak, resident(started_with(self.mark)))
            time.sleep(0.5)

    def wait(self) -> float:
        """Seconds that it ran for. Exit code 1 says that there were broken images."""
        code = self.process.wait()
        seconds = time.monotonic() - self.began
        if code not in (0, 1):
            self.log.seek(0)
            sys.exit(f"{self.arguments}: exit code {code}\n{self.log.read()[-5000:]}")
        return seconds

    def __exit__(self, *_: object) -> None:
        self.process.wait()
        self.sampling.join()
        self.log.close()
        Path(self.log.name).unlink()
        left = gone(self.mark)
        if left:
            sys.exit(f"{self.arguments}: these processes were left: {left}")


def gone(mark: str, seconds: float = 30) -> list[str]:
    """Wait for the end of all of a command's processes; the names of those that are left."""
    for _ in range(int(seconds / 0.1)):
        left = started_with(mark)
        if not left:
            return []
        time.sleep(0.1)
    return [process.name() for process in left]


def scored(out: Path) -> pd.DataFrame:
    """Key, score and error of each row of a folder's Parquet files."""
    parts = [pd.read_parquet(path, columns=["key", "score", "error"]) for path in
             sorted(out.glob("*.parquet"))]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def check(rows: pd.DataFrame, count: int) -> int:
    """Every key once, with a score, or an error if it is broken; how many errors."""
    times = Counter(rows["key"])
    expected = {f"{number:09}" for number in range(count)}
    missing, more = expected - times.keys(), [key for key, n in times.items() if n > 1]
    unknown = times.keys() - expected
    if missing or more or unknown:
        sys.exit(f"{len(missing)} keys missing, {len(more)} more than once, {len(unknown)} unknown")
    has_error = rows["error"].fillna("") != ""
    broken = rows["key"].map(lambda key: is_broken(int(key)))
    if (has_error != broken).any() or (rows["score"].isna() != broken).any():
        sys.exit("rows with errors are not those of the broken files")
    return int(has_error.sum())


def ray_command(args: argparse.Namespace, count: int, out: Path) -> list[str]:
    tars = [str(path) for path in shards(args, count, "tars", ".tar")]
    return [*EAT, *tars, "--engine", "ray", "--out", str(out), "--checkpoint", args.checkpoint]


def shards(args: argparse.Namespace, count: int, kind: str, suffix: str = "") -> list[Path]:
    return [args.data / kind / f"{shard:06}{suffix}" for shard in range(count // args.shard)]


def speeds(args: argparse.Namespace, count: int) -> Iterator[dict[str, object]]:
    """``eat score`` and the engine on the same images; a row each."""
    csv, out = args.data / "local.csv", args.data / "scores"
    folders = [str(path) for path in shards(args, count, "files")]
    if not args.alone:
        with Command([*EAT, *folders, "--out", str(csv), "--checkpoint", args.checkpoint]) as local:
            seconds = local.wait()
        yield measured("eat score", count, seconds, local.peak)
    with Command(ray_command(args, count, out)) as ray:
        seconds = ray.wait()
    rows = scored(out)
    check(rows, count)
    if not args.alone:
        alone = pd.read_csv(csv, usecols=["image", "score"])
        alone = alone.set_index(alone["image"].map(lambda path: Path(path).stem))["score"]
        difference = (alone - rows.set_index("key")["score"]).abs().max()
        print(f"scores differ by {difference:.1e} at most")
        if not difference <= 1e-5:
            sys.exit("scores differ by more than 1e-5")
    yield measured("eat score --engine ray", count, seconds, ray.peak)
    shutil.rmtree(out)


def measured(name: str, count: int, seconds: float, peak: int) -> dict[str, object]:
    return {
        "run": f"{name}, {count} images",
        "s": f"{seconds:.1f}",
        "images/s": f"{count / seconds:.1f}",
        "peak memory MB": f"{peak / 1e6:.0f}",
    }


def kills(args: argparse.Namespace, count: int) -> Iterator[dict[str, object]]:
    """The engine killed again and again, and continued; a row for each start."""
    out = args.data / "killed"
    total = len(shards(args, count, "tars"))
    chance = random.Random(args.seed)
    for number in range(args.kills + 1):
        victim = VICTIMS[number % len(VICTIMS)] if number < args.kills else "nothing"
        before = done(out)
        goal = before + chance.random() * (total - before) / (args.kills + 1 - number)
        with Command(ray_command(args, count, out)) as ray:
            while victim != "nothing" and done(out) <= goal and ray.process.poll() is None:
                time.sleep(0.1)
            time.sleep(chance.random())
            killed = kill(victim, ray, chance)
            if not killed or victim == "a worker of Ray's":
                ray.wait()
        yield {
            "start": str(number + 1),
            "killed": victim if killed else "nothing",
            "shards before": str(before),
            "shards after": str(done(out)),
        }
    rows = scored(out)
    print(f"{len(rows)} rows, {check(rows, count)} with an error, {rows['key'].nunique()} keys")
    shutil.rmtree(out)


def kill(victim: str, command: Command, chance: random.Random) -> bool:
    """Send SIGKILL; False if there is nothing to kill, as the command has ended before."""
    if victim == "nothing" or command.process.poll() is not None:
        return False
    victims = started_with(command.mark)
    if victim == "the command":
        victims = [process for process in victims if process.pid == command.process.pid]
    elif victim == "a worker of Ray's":  # as Ray names those that read and score shards
        victims = [process for process in victims if "MapBatches" in command_line(process)]
        victims = [chance.choice(victims)] if victims else []
    for process in victims:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return bool(victims)


def command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has ended
        return ""


def done(out: Path) -> int:
    return len([*out.glob("*.parquet")])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--shard", type=int, default=1000, help="images of a tar")
    parser.add_argument("--alone", action="store_true", help="without eat score beside it")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=Path("bulk"), help="folder of what is drawn")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    if any(count % args.shard for count in args.images):
        parser.error(f"--images: expected multiples of --shard {args.shard}")
    args.data /= f"{args.seed}-{args.shard}"
    draw_all(args, max(args.images))
    for left in ("scores", "killed"):
        shutil.rmtree(args.data / left, ignore_errors=True)
    work = kills if args.kills else speeds
    rows = [row for count in args.images for row in work(args, count)]
    what, name = "beside eat score", "bulk"
    if args.alone:
        what, name = "its memory", "bulk_memory"
    if args.kills:
        what, name = "killed and continued", "bulk_kills"
    settings = {"seed": args.seed, "model": Path(args.checkpoint).name, "images": max(args.images)}
    state(pd.DataFrame(rows), args.out or Path("results") / name, f"Bulk scoring, {what}", settings)


if __name__ == "__main__":
    main()
