"""The steps of scripts/gpu.sh, each in a process of its own with a limit of its own.

A step that fails, hangs or runs out of memory leaves the others. The exit code is 1 if one did.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parent
PART_SECONDS = 520  # of a part; steps that have not begun by then are left out
LIBRARY: tuple[str, ...] = (
    "torch",
    "timm",
    "einops",
    "numpy",
    "safetensors",
    "huggingface_hub",
    "wrapt",
)
INPUT = (*LIBRARY, "scipy", "pandas", "PIL", "torchvision", "simplejpeg")
BULK = (*INPUT, "ray", "pyarrow", "filelock", "tqdm")
RUNS: tuple[str, ...] = (
    *INPUT,
    "accelerate",
    "tensorboardX",
    "google.protobuf",
    "matplotlib",
    "yaml",
)
RUNS += ("filelock", "tqdm")
TESTS = (*RUNS, "pytest")
GPU_TESTS = ["tests/gpu", "tests/models/test_parity.py", "-k", "gpu", "-o", "addopts="]


@dataclass(frozen=True)
class Step:
    """A row of the tables below.

    Attributes:
        name: of the step, and of the function of its script.
        seconds: its limit.
        needs: modules.
        command: what python runs; None for the function in the part's script.
        last: whether it waits for all steps before it.
    """

    name: str
    seconds: int
    needs: tuple[str, ...] = LIBRARY
    command: tuple[str, ...] | None = None
    last: bool = False


RUN_NAMES: tuple[str, ...] = ("fp32", "bf16", "fp16", "bf16_parts", "fp32_compiled")
RUN_NAMES += ("bf16_compiled", "fp16_compiled", "bf16_parts_compiled", "resume")
PARTS: dict[str, tuple[int, list[Step]]] = {  # how many steps at a time, and the steps
    "check": (
        2,
        [
            Step("outputs", 120),
            Step("compiled", 300),
            Step("tests", 400, TESTS, ("-m", "pytest", "-q", "-rs", *GPU_TESTS)),
        ],
    ),
    "train": (
        5,
        [
            *(Step(name, 400, RUNS) for name in RUN_NAMES),
            Step("curves", 60, RUNS, last=True),
        ],
    ),
    "speed": (
        1,
        [
            Step("peak", 40, ("torch",)),
            Step("models", 320),
            Step("profile", 100),
            Step("loader", 60, INPUT),
            Step("nvjpeg", 40, INPUT),
            Step("score", 80, INPUT),
            Step("graphs", 40),
            Step("attention", 60),
            Step("drop_path", 60),
            Step("sampling", 60),
            Step("optimizer", 30),
            Step("bulk", 90, BULK),
        ],
    ),
}


@dataclass
class Outcome:
    """What came of a step: ok, failed, timed out, no time, or what it lacks."""

    name: str
    status: str
    seconds: float
    numbers: Any = None
    output: str = ""


def missing(modules: tuple[str, ...]) -> list[str]:
    """Modules that are not installed."""

    def is_there(name: str) -> bool:
        with contextlib.suppress(ModuleNotFoundError):  # of what it is a part of
            return importlib.util.find_spec(name) is not None
        return False

    return [name for name in modules if not is_there(name)]


class Part:
    """The steps of a part and where their results go."""

    def __init__(
        self, name: str, out: Path, device: str, only: list[str] | None, start: float | None = None
    ) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.name, self.out, self.device = name, out, device
        self.at_once, steps = PARTS[name]
        self.steps = [step for step in steps if only is None or step.name in only]
        self.patience = 10 if device == "cpu" else 1
        self.start = time.monotonic() if start is None else start
        self.outcomes: list[Outcome] = []
        self.writing = threading.Lock()
        self.scratch = Path(tempfile.mkdtemp(prefix="eat-gpu-"))

    def carry_out(self) -> bool:
        """Run all steps; whether all went well."""
        (self.out / f"{self.name}.txt").write_text("")
        with ThreadPoolExecutor(self.at_once) as pool:
            list(pool.map(self._one, (step for step in self.steps if not step.last)))
        for step in self.steps:
            if step.last:
                self._one(step)
        rows = [f"{o.name:22}{o.status:40}{o.seconds:7.1f} s" for o in self.outcomes]
        shutil.rmtree(self.scratch, ignore_errors=True)
        self._tell("\n".join(["", f"{self.name}, {time.monotonic() - self.start:.0f} s:", *rows]))
        return all(outcome.status == "ok" for outcome in self.outcomes)

    def _one(self, step: Step) -> None:
        left = self.patience * PART_SECONDS - (time.monotonic() - self.start)
        if lacks := missing(step.needs):
            outcome = Outcome(step.name, f"not run, lacks {', '.join(lacks)}", 0.0)
        elif left < 5:
            outcome = Outcome(step.name, "not run, no time left", 0.0)
        else:
            outcome = self._run(step, min(self.patience * step.seconds, left))
        text = f"\n== {outcome.name}: {outcome.status}, {outcome.seconds:.1f} s\n{outcome.output}"
        with self.writing:
            self.outcomes.append(outcome)
            self._tell(text)
            content = [{k: v for k, v in vars(o).items() if k != "output"} for o in self.outcomes]
            (self.out / f"{self.name}.json").write_text(json.dumps(content, indent=1))

    def _run(self, step: Step, limit: float) -> Outcome:
        numbers, log = self.scratch / f"{step.name}.json", self.scratch / f"{step.name}.txt"
        command = step.command or (str(SCRIPTS / f"gpu_{self.name}.py"), step.name)
        about = {"EAT_GPU": self.device, "EAT_GPU_JSON": str(numbers), "EAT_GPU_OUT": str(self.out)}
        about |= {"EAT_GPU_SCRATCH": str(self.scratch)}
        begin = time.monotonic()
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=SCRIPTS.parent,
                env=os.environ | about,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(limit)
                status = "ok" if code == 0 else f"failed, exit code {code}"
            except subprocess.TimeoutExpired:
                status = "timed out"
            try:
                os.killpg(process.pid, signal.SIGKILL)  # and what it has started
            except ProcessLookupError:
                pass
            process.wait()
        found = None
        with contextlib.suppress(OSError, ValueError):  # none, or cut off by the limit
            found = json.loads(numbers.read_text())
        text = log.read_text(errors="replace")
        return Outcome(step.name, status, round(time.monotonic() - begin, 1), found, text)

    def _tell(self, text: str) -> None:
        print(text, flush=True)
        with (self.out / f"{self.name}.txt").open("a") as file:
            file.write(text + "\n")


def main() -> int:
    start = time.monotonic()  # the first import of torch takes its time too
    parser = argparse.ArgumentParser(prog="gpu.sh", description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("out", type=Path, help="folder of the results")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="of the part")
    args = parser.parse_args()
    names = [step.name for step in PARTS[args.part][1]]
    if unknown := set(args.only or ()) - set(names):
        parser.error(f"no step {', '.join(sorted(unknown))} in {args.part}: {', '.join(names)}")
    if lacks := missing(TESTS):
        print(f"not installed here: {', '.join(lacks)}; wheels/ may hold them, see scripts/gpu.sh")
    if "torch" not in missing(LIBRARY) and args.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            print("torch finds no GPU here; --device cpu tries the script", file=sys.stderr)
            return 1
    try:
        part = Part(args.part, args.out.absolute(), args.device, args.only, start)
    except OSError as error:
        parser.error(f"{args.out}: no folder for the results: {error.strerror}")
    return 0 if part.carry_out() else 1


if __name__ == "__main__":
    sys.exit(main())
