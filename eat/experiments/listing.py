"""What experiments there are, the data that they need, and what they would cost."""

import json
from functools import cache
from pathlib import Path

from eat.config import TrainConfig
from eat.data.registry import find_dataset
from eat.experiments.table import Configure, Experiment, Row, configs_of
from eat.models import create_model
from eat.models.cost import count_macs, without_content
from eat.training.setup import read_run_splits


def describe(experiment: Experiment, configure: Configure, seeds: int, *, rows: bool) -> str:
    """An experiment in a few lines, and on request a line more for each row."""
    configs = configs_of(experiment, configure)
    base = configs[0][1]
    spec, images = find_dataset(base.data.name), train_images(base)
    counts = [count(config) for _, config in configs]
    paper = "" if base.data.name == experiment.data else f"; the paper takes {experiment.data}"
    macs = sum(m * c.optim.epochs for (m, _), (_, c) in zip(counts, configs, strict=True))
    # A training step costs about three forward passes.
    total = f", about {3 * macs * images * seeds:.1e} multiply-adds" if images else ""
    lines = [
        f"{experiment.name:9} {experiment.where}: {experiment.title}",
        f"needs {spec.title} (--data.labels, --data.images){paper}",
        f"{len(configs)} rows x {seeds} seeds = {len(configs) * seeds} trainings of "
        f"{base.model.name}{total}",
    ]
    if rows:
        lines += [cost_line(row, *c) for (row, _), c in zip(configs, counts, strict=True)]
    return f"\n{'':10}".join(lines)


def cost_line(row: Row, macs: int, params: int) -> str:
    """A row's cost for an image, as counted and as published."""
    published = {"G": row.published.gflops, "M": row.published.mparams}
    paper = ", ".join(f"{value:g} {unit}" for unit, value in published.items() if value)
    printed = f"   paper: {paper}" if paper else ""
    return f"{row.name:60}{macs / 1e9:9.3f} G{params / 1e6:9.2f} M{printed}"


def train_images(config: TrainConfig) -> int | None:
    """Training images of a run, by the official split or else by the labels that are there."""
    official = find_dataset(config.data.name).counts.get("train")
    if official is None and config.data.labels and Path(config.data.labels).exists():
        return len(read_run_splits(config).train)
    return official


def count(config: TrainConfig) -> tuple[int, int]:
    """Multiply-adds for an image, and parameters, of a run's model."""
    return _count(str(config.model.name), config.data.size, json.dumps(config.model.settings))


@cache
def _count(name: str, size: int | None, settings: str) -> tuple[int, int]:
    made = without_content(lambda: create_model(name, img_size=size, **json.loads(settings)))
    return count_macs(*made), sum(parameter.numel() for parameter in made[0].parameters())
