"""Speed of EAT beside its plain formulation and timm's Swin, on one machine in one run.

    python scripts/benchmark_model.py
    python scripts/benchmark_model.py --compile --batch 32 64 128 --profile    # for a GPU

The entries take turns, so that a machine whose speed drifts slows them all; images/s is the median
over the rounds, and a ratio the median of the rounds' ratios to Swin in the same precision and to
the first model's plain formulation in fp32. Of several batch sizes each entry's fastest counts.
Every training step uses the same fused Adam. Each entry runs twice and the second time counts: its
weights are cast already, as in an evaluation of many batches, and its memory is there. The process
keeps freed memory, as ``eat`` and ``main_nni.py`` do, but for the plain formulation, which has the
C library's way, as the release has; ``--heap all`` lets it keep memory too, ``--heap none`` none.
"""

import argparse
import ctypes
import platform
import statistics
import time

import timm
import torch
import torch._inductor.config
from plain import Plain
from torch import nn
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

import eat
from eat.heap import MMAP_MAX, TRIM_THRESHOLD, keep_heap

PEER = "swin_base_patch4_window7_224"
Entry = tuple[str, str]  # model, precision


def set_heap(kept: bool) -> None:
    """Keep freed memory, or hand it back as glibc does once its thresholds have grown."""
    keep_heap()
    if not kept and platform.libc_ver()[0] == "glibc":
        libc, mmap_threshold = ctypes.CDLL(None), -3
        libc.mallopt(MMAP_MAX, 65536)
        libc.mallopt(mmap_threshold, 32 * 2**20)
        libc.mallopt(TRIM_THRESHOLD, 64 * 2**20)


class Bench:
    """Models that share images and take turns."""

    def __init__(
        self, names: list[str], size: int, device: torch.device, compiles: bool, heap: str
    ) -> None:
        self.device, self.size, self.heap = device, size, heap
        models: dict[str, nn.Module] = {}
        for name in names:
            models[name] = eat.create_model(name, num_outputs=10, img_size=size)
            models[f"plain {name}"] = Plain(models[name])  # shares the weights
        models[PEER] = timm.create_model(PEER, num_classes=10, img_size=size)
        models = {name: model.to(device) for name, model in models.items()}
        self.adam = {
            name: torch.optim.Adam(model.parameters(), lr=1e-6, fused=True)
            for name, model in models.items()
        }
        self.macs = {name: self._count(model) for name, model in models.items()}
        self.models = models
        for name in [*names, PEER] if compiles else []:
            again = f"{name} compiled"
            self.models[again] = torch.compile(models[name])
            self.macs[again], self.adam[again] = self.macs[name], self.adam[name]

    def _count(self, model: nn.Module) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.eval()(torch.zeros(1, 3, self.size, self.size, device=self.device))
        return counter.get_total_flops() // 2

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def time(self, kind: str, entry: Entry, images: torch.Tensor) -> float:
        """Seconds of one forward pass or training step, the second of two."""
        plain = entry[0].startswith("plain")
        set_heap(self.heap == "all" or (self.heap == "ours" and not plain))
        return getattr(self, kind)(entry, images)

    def forward(self, entry: Entry, images: torch.Tensor) -> float:
        """Seconds of one forward pass."""
        model = self.models[entry[0]].eval()
        cast = torch.autocast(self.device.type, torch.bfloat16, enabled=entry[1] == "bf16")
        # On a CPU a compiled model's weights become constants, as in eat score.
        frozen = torch._inductor.config.patch(freezing=self.device.type == "cpu")
        with torch.no_grad(), cast, frozen:
            model(images)
            start = self._now()
            model(images)
            return self._now() - start

    def train(self, entry: Entry, images: torch.Tensor) -> float:
        """Seconds of one training step."""
        model, adam = self.models[entry[0]].train(), self.adam[entry[0]]
        for _ in range(2):
            start = self._now()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=entry[1] == "bf16"):
                loss = model(images).float().square().mean()
            loss.backward()
            adam.step()
            adam.zero_grad(set_to_none=True)
        return self._now() - start


def matrix_peak(device: torch.device, side: int) -> float:
    """Multiply-adds a second of the fastest of ten large bf16 matrix products."""
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    fastest = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        fastest = min(fastest, time.perf_counter() - start)
    return side**3 / fastest


def measure(bench: Bench, kind: str, entries: list[Entry], batches: list[int], rounds: int) -> dict:
    """For each entry the seconds an image of every round, at its fastest batch; and peak bytes."""
    best: dict[Entry, tuple[list[float], int, int]] = {}
    for batch in batches:
        images = torch.randn(batch, 3, bench.size, bench.size, device=bench.device)
        times: dict[Entry, list[float]] = {entry: [] for entry in entries}
        peak = dict.fromkeys(entries, 0)
        for turn in range(rounds + 1):
            for entry in entries:
                if bench.device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                seconds = bench.time(kind, entry, images)
                if bench.device.type == "cuda":
                    peak[entry] = torch.cuda.max_memory_allocated()
                if turn:  # the first is for warming up
                    times[entry].append(seconds / batch)
        for entry in entries:
            old = best.get(entry)
            if old is None or statistics.median(times[entry]) < statistics.median(old[0]):
                best[entry] = times[entry], batch, peak[entry]
    return best


def report(bench: Bench, kind: str, best: dict, peak: float) -> None:
    """Print a line for each entry."""

    def ratio(base: Entry, entry: Entry) -> str:
        if base not in best:
            return "-"
        pairs = zip(best[base][0], best[entry][0], strict=True)
        return f"{statistics.median(b / own for b, own in pairs):.2f}"

    plain = next(entry for entry in best if entry[0].startswith("plain"))
    for entry, (times, batch, memory) in best.items():
        seconds = statistics.median(times)
        macs = bench.macs[entry[0]] * (3 if kind == "train" else 1) / seconds
        print(
            f"{kind:8}{entry[1]:5}{entry[0]:38}{batch:6}{1 / seconds:10.2f}"
            f"{ratio(plain, entry):>9}{ratio((PEER, entry[1]), entry):>8}"
            f"{macs / peak:8.0%}{memory / 2**30:8.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["eat_base", "eat_base_released"])
    parser.add_argument("--batch", type=int, nargs="+", default=[8], help="the fastest counts")
    parser.add_argument("--size", type=int, default=224, help="side of the images; 224 for windows")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", default=["forward", "train"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument(
        "--heap", choices=["ours", "all", "none"], default="ours", help="who keeps freed memory"
    )
    parser.add_argument("--compile", action="store_true", help="add ours and Swin compiled")
    parser.add_argument("--profile", action="store_true", help="where the first model's step goes")
    parser.add_argument("--peak-side", type=int, help="of the matrices that measure the peak")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    if not torch.cuda.is_available():
        print("No GPU on this machine: these are CPU figures.")
    peak = matrix_peak(device, args.peak_side or (8192 if device.type == "cuda" else 2048))
    bench = Bench(args.models, args.size, device, args.compile, args.heap)
    print(
        f"torch {torch.__version__}, timm {timm.__version__}, {device.type} {where}, "
        f"{torch.get_num_threads()} threads, bf16 matrix product {2 * peak / 1e12:.2f} TFLOP/s"
    )
    print(f"{'':51}{'batch':>6}{'images/s':>10}{'x plain':>9}{'x Swin':>8}{'of peak':>8}{'GiB':>8}")
    entries = [(name, precision) for precision in args.precisions for name in bench.models]
    entries.sort(key=lambda entry: not entry[0].startswith("plain"))
    for kind in args.kinds:
        report(bench, kind, measure(bench, kind, entries, args.batch, args.rounds), peak)
    if args.profile:
        images = torch.randn(max(args.batch), 3, args.size, args.size, device=device)
        with profile() as spent:
            bench.train((args.models[0], args.precisions[-1]), images)
        order = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
        print(spent.key_averages().table(sort_by=order, row_limit=20, max_name_column_width=48))


if __name__ == "__main__":
    main()
