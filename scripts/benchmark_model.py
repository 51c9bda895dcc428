"""Speed of EAT beside its plain formulation and timm's Swin, on one machine in one run.

    python scripts/benchmark_model.py
    python scripts/benchmark_model.py --compile bf16 --batch 64 128 256    # for a GPU

Each model lives in a process of its own. They take turns, so that a machine whose speed drifts
slows them all; images/s is the median over the rounds, and a ratio the median of the rounds' ratios
to Swin in the same precision and to the first model's plain formulation in the first precision. Of
several batch sizes each entry's fastest counts; entries of different ones did not take turns. A
turn runs twice and the second time counts, and the first rounds do not: by then weights are cast,
as in an evaluation of many batches, and memory is there. A batch that a GPU has no memory for does
not count. Compiled models take the first batch size alone, and compile at the same time.

EAT and Swin have what ``eat`` and ``main_nni.py`` give a model: a heap that keeps freed memory, and
fused Adam. The plain formulation has what the authors' release has: the C library's heap and
PyTorch's default Adam. With ``--alike`` it has ours, and the models alone differ.
"""

import argparse
import contextlib
import json
import math
import multiprocessing
import platform
import statistics
import time
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import timm
import torch
import torch._inductor.config
from plain import Plain
from torch import nn
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

import eat
from eat.system.device import autocast
from eat.system.heap import keep_heap

PEER = "swin_base_patch4_window7_224"
PLAIN, COMPILED = "plain ", " compiled"
WARM_UP = 3  # rounds
Entry = tuple[str, str]  # model, precision


class Runner:
    """A model in a process of its own."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        ours = args.alike or not name.startswith(PLAIN)
        if ours:
            keep_heap()
        self.device, self.size = torch.device(args.device), args.size
        bare = name.removeprefix(PLAIN).removesuffix(COMPILED)
        model: nn.Module
        if bare == PEER:
            model = timm.create_model(PEER, num_classes=10, img_size=self.size)
        else:
            model = eat.create_model(bare, num_outputs=10, img_size=self.size)
        if name.startswith(PLAIN):
            model = Plain(model)
        model = model.to(self.device)
        self.macs = self._count(model)
        self.adam = torch.optim.Adam(model.parameters(), lr=1e-6, fused=ours)
        self.model = torch.compile(model, dynamic=False) if name.endswith(COMPILED) else model

    def _count(self, model: nn.Module) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.eval()(torch.zeros(1, 3, self.size, self.size, device=self.device))
        return counter.get_total_flops() // 2

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def turn(self, kind: str, precision: str, batch: int) -> tuple[float, int]:
        """Seconds of the second of two passes or steps, and the peak of GPU memory in bytes.

        They are infinite if there is too little memory.
        """
        images = torch.randn(batch, 3, self.size, self.size, device=self.device)
        cast = autocast(self.device, precision)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        try:
            seconds = (self._train if kind == "train" else self._forward)(images, cast)
        except torch.OutOfMemoryError:
            self.adam.zero_grad(set_to_none=True)
            seconds = math.inf
        peak = 0
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated()
            torch.cuda.empty_cache()  # for the next one's turn
        return seconds, peak

    def _forward(self, images: torch.Tensor, cast: AbstractContextManager[Any]) -> float:
        self.model.eval()
        # On a CPU a compiled model's weights become constants, as in eat score.
        frozen = torch._inductor.config.patch(freezing=self.device.type == "cpu")
        with torch.no_grad(), cast, frozen:
            self.model(images)
            start = self._now()
            self.model(images)
            return self._now() - start

    def _train(self, images: torch.Tensor, cast: AbstractContextManager[Any]) -> float:
        self.model.train()
        for _ in range(2):
            start = self._now()
            with cast:
                loss = self.model(images).float().square().mean()
            loss.backward()
            self.adam.step()
            self.adam.zero_grad(set_to_none=True)
        return self._now() - start

    def spent(self, precision: str, batch: int) -> str:
        """A table of where two training steps go."""
        with profile() as steps:
            self.turn("train", precision, batch)
        order = f"self_{self.device.type}_time_total"
        return steps.key_averages().table(sort_by=order, row_limit=20, max_name_column_width=48)


def serve(tasks: Connection, name: str, args: argparse.Namespace) -> None:
    """The process of a model: answers its multiply-adds for an image, then each task."""
    runner = Runner(name, args)
    tasks.send(runner.macs)
    with contextlib.suppress(EOFError):  # no more tasks
        while True:
            method, *task = tasks.recv()
            tasks.send(getattr(runner, method)(*task))


class Bench:
    """Models that take turns."""

    def __init__(self, args: argparse.Namespace) -> None:
        names = [PLAIN + name for name in args.models] + [*args.models, PEER]
        if args.compile:
            names += [name + COMPILED for name in (*args.models, PEER)]
        spawn = multiprocessing.get_context("spawn")
        self.pipes: dict[str, Connection] = {}
        for name in names:
            self.pipes[name], theirs = spawn.Pipe()
            spawn.Process(target=serve, args=(theirs, name, args), daemon=True).start()
            theirs.close()  # theirs alone, so that its end is noticed
        self.macs = {name: self.ask(name) for name in names}

    def ask(self, name: str, *task: Any) -> Any:
        """What a model's process answers: to no task, its multiply-adds."""
        try:
            if task:
                self.pipes[name].send(task)
            return self.pipes[name].recv()
        except (EOFError, OSError):
            raise SystemExit(
                f"the process of {name} ended. If it says nothing above, memory ran out: expected "
                "about 5 GB a model at batch 8; take a smaller --batch or fewer --models"
            ) from None

    def prepare(self, kind: str, entries: list[Entry], batch: int) -> None:
        """Compile all that is compiled, at the same time."""
        compiled = [entry for entry in entries if entry[0].endswith(COMPILED)]
        for name, precision in compiled:
            self.pipes[name].send(("turn", kind, precision, batch))
        for name, _ in compiled:
            self.ask(name)

    def measure(self, kind: str, entries: list[Entry], batches: list[int], rounds: int) -> dict:
        """For each entry the seconds an image by round, at its fastest batch; and peak bytes."""
        best: dict[Entry, tuple[list[float], int, int]] = {}
        self.prepare(kind, entries, batches[0])
        for i, batch in enumerate(batches):
            if i:
                entries = [entry for entry in entries if not entry[0].endswith(COMPILED)]
            times: dict[Entry, list[float]] = {entry: [] for entry in entries}
            peak = dict.fromkeys(entries, 0)
            for turn in range(WARM_UP + rounds):
                for name, precision in entries:
                    seconds, memory = self.ask(name, "turn", kind, precision, batch)
                    peak[name, precision] = max(memory, peak[name, precision])
                    if turn >= WARM_UP:
                        times[name, precision].append(seconds / batch)
            for entry in entries:
                old = best.get(entry)
                if old is None or statistics.median(times[entry]) < statistics.median(old[0]):
                    best[entry] = times[entry], batch, peak[entry]
        return best

    def report(self, kind: str, best: dict, peak: float) -> list[dict[str, Any]]:
        """Print a line for each entry, and return a row."""

        def ratio(base: Entry, entry: Entry) -> str:
            if base not in best:
                return "-"
            pairs = zip(best[base][0], best[entry][0], strict=True)
            return f"{statistics.median(b / own for b, own in pairs):.2f}"

        plain = next(entry for entry in best if entry[0].startswith(PLAIN))
        rows = []
        for entry, (times, batch, memory) in best.items():
            seconds = statistics.median(times)
            macs = self.macs[entry[0]] * (3 if kind == "train" else 1) / seconds
            print(
                f"{kind:8}{entry[1]:5}{entry[0]:38}{batch:6}{1 / seconds:10.2f}"
                f"{ratio(plain, entry):>9}{ratio((PEER, entry[1]), entry):>8}"
                f"{macs / peak:8.0%}{memory / 2**30:8.1f}"
            )
            row = {"kind": kind, "model": entry[0], "precision": entry[1], "batch": batch}
            row |= {"images_per_second": 1 / seconds, "of_peak": macs / peak}
            rows.append(row | {"gib": memory / 2**30})
        return rows


def matrix_peak(device: torch.device, side: int, dtype: torch.dtype = torch.bfloat16) -> float:
    """Multiply-adds a second of the fastest of ten large matrix products."""
    a = torch.randn(side, side, device=device, dtype=dtype)
    fastest = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        fastest = min(fastest, time.perf_counter() - start)
    return side**3 / fastest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["eat_base"])
    parser.add_argument("--batch", type=int, nargs="+", default=[8], help="the fastest counts")
    parser.add_argument("--size", type=int, default=224, help="side of the images; 224 for windows")
    parser.add_argument("--rounds", type=int, default=5, help=f"beside {WARM_UP} to warm up")
    parser.add_argument("--kinds", nargs="+", default=["forward", "train"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--alike", action="store_true", help="our heap and Adam for all")
    parser.add_argument("--plain", nargs="+", default=["fp32", "bf16"], help="its precisions")
    parser.add_argument("--compile", nargs="+", default=[], help="precisions of compiled models")
    parser.add_argument("--profile", action="store_true", help="where the first model's step goes")
    parser.add_argument("--peak-side", type=int, help="of the matrices that measure the peak")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    if not torch.cuda.is_available():
        print("No GPU on this machine: these are CPU figures.")
    peak = matrix_peak(device, args.peak_side or (8192 if device.type == "cuda" else 2048))
    bench = Bench(args)
    print(
        f"torch {torch.__version__}, timm {timm.__version__}, {device.type} {where}, "
        f"{torch.get_num_threads()} threads, bf16 matrix product {2 * peak / 1e12:.2f} TFLOP/s"
    )
    print(f"{'':51}{'batch':>6}{'images/s':>10}{'x plain':>9}{'x Swin':>8}{'of peak':>8}{'GiB':>8}")
    entries = [
        (name, precision)
        for precision in args.precisions
        for name in bench.pipes
        if precision in (args.plain if name.startswith(PLAIN) else args.precisions)
        and (precision in args.compile or not name.endswith(COMPILED))
    ]
    entries.sort(key=lambda entry: not entry[0].startswith(PLAIN))
    rows: list[dict[str, Any]] = []
    for kind in args.kinds:
        best = bench.measure(kind, entries, args.batch, args.rounds)
        rows += bench.report(kind, best, peak)
        if args.json is not None:
            args.json.write_text(json.dumps(rows))
    if args.profile:
        print(bench.ask(args.models[0], "spent", args.precisions[-1], max(args.batch)))


if __name__ == "__main__":
    main()
