"""Try spoilt files of every kind: python scripts/fuzz.py --minutes 10 [--kind headers] [--seed 1]

Each batch of inputs runs in a process of its own, with a limit of time and memory for each input.
An input that ends neither in a result nor in one of our errors is kept in a folder of --out. To try
it again, run the command that is printed. Linux alone has the measures of memory.
"""

import argparse
import collections
import faulthandler
import logging
import resource
import shutil
import subprocess
import sys
import time
import traceback
import warnings
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
BATCH = 200  # inputs a process
TURN = 30  # seconds of a batch at most, so that every kind has its turn
SPARE = 4 * 10**9  # bytes that a process may map beside the libraries, to spare the machine


def place_of(error: BaseException) -> str:
    """The error and the last line of eat that it went through: failures alike count as one."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/eat/" in f.filename]
    where = f"{Path(frames[-1].filename).name}-{frames[-1].lineno}" if frames else "fuzzing"
    return f"{type(error).__name__}-{where}"


def run_batch(kind: str, seed: int, out: Path, until: float) -> None:
    """Try a batch of inputs, and append the outcome of each to a file."""
    from fuzzing.kinds import KINDS
    from fuzzing.trial import SECONDS, outcome, write
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    subject = KINDS[kind]
    logging.disable()
    warnings.simplefilter("ignore")
    sound = subject.sound()
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + SPARE, mapped + SPARE))
    current = out / "current" / kind
    log = (out / f"{kind}.log").open("a", buffering=1)

    @seeded(seed)
    @settings(max_examples=BATCH, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(subject.inputs(sound))
    def attempt(files: dict[str, bytes]) -> None:
        if time.time() > until:
            raise KeyboardInterrupt  # which hypothesis passes on
        shutil.rmtree(current, ignore_errors=True)
        write(files, current)
        faulthandler.dump_traceback_later(2 * SECONDS, exit=True)  # where no signal is handled
        try:
            print("error" if outcome(subject.read, current) else "result", file=log)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            name = place_of(error)
            print(name, file=log)
            kept = out / f"{kind}-{name}"
            if not kept.exists():
                write(files, kept)
                (out / f"{kind}-{name}.txt").write_text(traceback.format_exc())
        finally:
            faulthandler.cancel_dump_traceback_later()

    with suppress(KeyboardInterrupt):
        attempt()


def keep_killed(kind: str, seed: int, out: Path) -> None:
    """Keep the input at which a process ended: it was killed, or took no signal."""
    kept, current = out / f"{kind}-ended-{seed}", out / "current" / kind
    if not current.exists():
        sys.exit(f"kind {kind}: its process failed before the first input")
    current.replace(kept)
    with (out / f"{kind}.log").open("a") as log:
        print(f"ended-{seed}", file=log)


def report(kind: str, out: Path) -> int:
    """Print what came of a kind's inputs; returns the number of failures."""
    path = out / f"{kind}.log"
    counts = collections.Counter(path.read_text().split() if path.exists() else [])
    results, errors = counts.pop("result", 0), counts.pop("error", 0)
    failures = counts.total()
    total = results + errors + failures
    print(f"{kind:10}{total:7} inputs:{results:7} results,{errors:7} errors of ours,{failures:5} "
          "failures")  # fmt: skip
    for name, count in counts.most_common():
        kept = out / f"{kind}-{name}"
        print(f"  {count} x {name}: python scripts/fuzz.py --kind {kind} --replay {kept}")
    return failures


def main() -> int:
    from fuzzing.kinds import KINDS
    from fuzzing.samples import content_of
    from fuzzing.trial import try_files

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument(
        "--kind", action="append", choices=KINDS, help="several may be given; all by default"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("fuzz-failures"))
    parser.add_argument("--replay", type=Path, help="folder of an input to try again")
    parser.add_argument("--batch", type=float, help=argparse.SUPPRESS)  # until when
    args = parser.parse_args()
    if args.replay:
        print(try_files(KINDS[args.kind[0]].read, content_of(args.replay)) or "a result")
        return 0
    if args.batch:
        run_batch(args.kind[0], args.seed, args.out, args.batch)
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    end, seed, kinds = time.time() + 60 * args.minutes, args.seed, args.kind or list(KINDS)
    for kind in kinds:
        (args.out / f"{kind}.log").unlink(missing_ok=True)
    while time.time() < end:
        for kind in kinds:
            command = [sys.executable, __file__, "--kind", kind, "--seed", str(seed)]
            until = min(end, time.time() + TURN)
            command += ["--out", str(args.out), "--batch", str(until)]
            if time.time() < end and subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
                keep_killed(kind, seed, args.out)
        seed += 1
    return min(1, sum(report(kind, args.out) for kind in kinds))


if __name__ == "__main__":
    sys.exit(main())
