"""Log, metrics and curves of a run."""

import json
import logging
import math
import os
import platform
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from tensorboardX import SummaryWriter

from eat.checkpoint import CheckpointInfo
from eat.config import TrainConfig
from eat.config.run import METRICS, metric_prefixes
from eat.data.splits import Splits
from eat.evaluation.points import Health, collapsed
from eat.models import AestheticModel
from eat.system.files import append_line, finite, json_object, write_atomically
from eat.system.processes import is_main
from eat.system.schema import typed
from eat.training.folder import SPLITS
from eat.training.sharding import own
from eat.training.state import Progress
from eat.training.trackers import Trackers

log = logging.getLogger("eat")


@contextmanager
def logging_to(folder: Path) -> Iterator[None]:
    """Log to the terminal and to train.log in a run's folder; in other processes, errors alone."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if is_main():
        handlers.append(logging.FileHandler(folder / "train.log"))
    else:
        handlers[0].setLevel(logging.ERROR)
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()


def describe_data(config: TrainConfig, splits: Splits, eval_split: str) -> None:
    """Log the images of each split, and the split that chooses the best epoch."""
    sizes = [f"{len(table)} {SPLITS[name]}" for name, table in splits.tables().items()]
    log.info("data: %s, %s images", splits.dataset.title, ", ".join(sizes))
    if splits.left_out:
        log.warning("%d labelled images have no file and are left out", len(splits.left_out))
    hint = "; --data.val_fraction 0.1 would hold images out for that"
    log.info("%s on the %s split chooses the best epoch%s", config.run.metric,
             SPLITS[eval_split], hint if eval_split == "test" else "")  # fmt: skip


def describe_model(
    config: TrainConfig, info: CheckpointInfo, model: AestheticModel, accelerator: Accelerator
) -> None:
    """Log the model, where it is trained, and how a step's images are divided."""
    log.info(
        "model: %s, %.2f M parameters, %d outputs, %d pixels, on %s in %s",
        info.model.name,
        sum(p.numel() for p in model.parameters()) / 1e6,
        info.model.num_outputs,
        info.model.img_size[0],
        accelerator.device,
        config.run.precision,
    )
    if cropped := model.cropped_pixels:
        log.warning(
            "its patches leave out the last %d pixels at the right and at the bottom of each image;"
            " --data.size %d leaves out none", cropped, info.model.img_size[0] - cropped,
        )  # fmt: skip
    if config.run.sharded:
        shards = sum(own(p).numel() for p in model.parameters()) / 1e6
        log.info("run.sharded: a process keeps %.2f M of the parameters", shards)
    processes, micro_batches = accelerator.num_processes, config.run.accumulation_steps
    if processes * micro_batches == 1:
        return
    log.info("a step's %d images: %d processes, %d micro-batches each",
             config.optim.batch_size, processes, micro_batches)  # fmt: skip
    if model.mixes_images:
        log.warning(
            "this model mixes the images of a micro-batch, so that its results depend on the "
            "numbers of processes and accumulation steps"
        )


def describe_beginning(folder: Path) -> None:
    """Warn if torchrun has started the run again, and there is nothing to continue from."""
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
        log.warning("torchrun has started the run again, and %s on %s holds no state: the run "
                    "begins anew; after its first state this means that the machines do not share "
                    "that folder", folder, platform.node())  # fmt: skip


def describe_continuation(progress: Progress, before: int, processes: int) -> None:
    """Log where a run continues, and by how many processes if their number has changed."""
    if before != processes:
        log.warning("continuing with %d in place of %d processes: sums are rounded otherwise, so "
                    "that the results are not the same to the bit", processes, before)  # fmt: skip
    log.info("continuing after epoch %d, batch %d", progress.epoch, progress.batch)


# What a line of metrics.jsonl has, whatever the version and the data set.
NEEDED = ("epoch", "train_loss", "srcc", "plcc", "accuracy")


def scalars(line: dict[str, Any]) -> dict[str, float]:
    """The values of a line of metrics.jsonl, under the names of TensorBoard and the trackers."""
    named: dict[str, float | None] = {}
    group = "train"
    for name, value in line.items():
        if name == "split":
            group = value
        elif name == "points":
            for block, health in value.items():
                named |= {f"points/{statistic}/{block}": health[statistic] for statistic in health}
        else:
            named[f"{group}/{name}"] = value
    return {name: math.nan if value is None else value for name, value in named.items()}


class EpochLog:
    """The epochs of a run, in ``metrics.jsonl``, ``curves/``, the log and the run's trackers.

    What is recorded after the finished ``epochs`` is removed: those epochs run again.
    """

    def __init__(self, config: TrainConfig, folder: Path, split: str, epochs: int) -> None:
        self.file = folder / "metrics.jsonl"
        self.split = split
        self.prefixes = metric_prefixes(config.data.targets or ("score",)).values()
        lines, self.earlier = self._read(epochs) if self.file.exists() else ([], [])
        write_atomically(self.file, "".join(f"{line}\n" for line in lines).encode())
        if len(lines) < epochs:
            log.warning("%s: lacks %d of %d epochs", self.file, epochs - len(lines), epochs)
        purge = epochs + 1 if lines else None
        self.curves = SummaryWriter(str(folder / "curves"), purge_step=purge)
        finished = {int(line["epoch"]): scalars(line) for line in self.earlier}
        self.trackers = Trackers(config, folder, finished)

    def _read(self, epochs: int) -> tuple[list[str], list[dict[str, Any]]]:
        """Lines of the first epochs, and what they hold; one that a power cut tore is left out."""
        lines, found = [], []
        for line in self.file.read_text(errors="replace").splitlines():
            try:
                entry = json_object(line)
                typed(dict[str, dict[str, float | None]], entry.get("points", {}), "points")
                row = entry | {"split": None, "points": None}
                row = typed(dict[str, float | None], row, "line")
                kept = {name: row[name] for name in NEEDED}["epoch"] <= epochs and "split" in entry
            except (ValueError, TypeError, KeyError):
                log.warning("%s: a damaged line is left out: %.60r", self.file, line)
                continue
            if kept:
                lines.append(line)
                found.append(entry)
        return lines, found

    def earlier_metrics(self) -> Iterator[dict[str, float]]:
        """The metrics of each epoch that an earlier start has finished."""
        for line in self.earlier:
            names = list(line)[list(line).index("split") + 1 :]
            yield {name: math.nan if line[name] is None else line[name] for name in names}

    def write(self, record: dict[str, float], metrics: dict[str, float], health: Health) -> None:
        """Add an epoch: its number, learning rate, loss and speed, its metrics and points."""
        points = {"points": health} if health else {}
        line = finite(record | points | {"split": self.split} | metrics)
        append_line(self.file, json.dumps(line))
        for name, value in scalars(line).items():
            if math.isfinite(value):  # of others tensorboardX tells on stderr
                self.curves.add_scalar(name, value, record["epoch"])
        self.trackers.log(scalars(line), int(record["epoch"]))
        log.info(
            "epoch %d: loss %.4f, %s: %s (%.0f images/s)",
            record["epoch"],
            record["train_loss"],
            SPLITS[self.split],
            ", ".join(
                f"{prefix}{name} {metrics[prefix + name]:.4f}"
                for prefix in self.prefixes
                for name in METRICS
            ),
            record["images_per_second"],
        )
        if blocks := collapsed(health):
            log.warning(
                "the interest points of %s have fallen onto one spot (standard deviation %s)",
                ", ".join(blocks),
                ", ".join(f"{health[name]['points']:.3f}" for name in blocks),
            )

    def __enter__(self) -> "EpochLog":
        return self

    def __exit__(self, kind: object, error: BaseException | None, *_: object) -> None:
        """Write what the curves still hold back, and tell the trackers how the run ended."""
        self.curves.close()
        stopped = 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
        self.trackers.finish(getattr(error, "exit_code", stopped) if error else 0)
