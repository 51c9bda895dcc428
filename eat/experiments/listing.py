"""What experiments there are, the data that they need, and what they would cost."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path

from eat.config import TrainConfig
from eat.config.personal import PersonalizeOptions
from eat.data.registry import DATASETS, find_dataset
from eat.experiments.table import Configure, Experiment, Row, configs_of
from eat.experiments.workers import PAPER_WORKERS
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
    trained = {  # rows may share a model
        (row.train_on, str(config)): macs * config.optim.epochs
        for (row, config), (macs, _) in zip(configs, counts, strict=True)
    }
    # A training step costs about three forward passes.
    macs = 3 * sum(trained.values()) * (images or 0) * seeds
    total = f", about {macs:.1e} multiply-adds" if images else ""
    names = ", ".join(dict.fromkeys(str(config.model.name) for _, config in configs))
    models = f"{len(trained)} {'rows' if len(trained) == len(configs) else 'models'}"
    lines = [
        f"{experiment.name:9} {experiment.where}: {experiment.title}",
        f"needs {spec.title} (--data.labels, --data.images){paper}",
        f"{models} x {seeds} seeds = {len(trained) * seeds} trainings of {names}{total}",
    ]
    if experiment.personalised:
        costs = [(row, macs) for (row, _), (macs, _) in zip(configs, counts, strict=True)]
        lines[2:2] = needed_for_workers(experiment)
        lines.append(adaptation_cost(experiment, costs, seeds))
    if rows:
        lines += [cost_line(row, *c) for (row, _), c in zip(configs, counts, strict=True)]
    return f"\n{'':10}".join(lines)


def needed_for_workers(experiment: Experiment) -> list[str]:
    """Lines of the data that test workers need besides."""
    lines = [
        "needs single workers' ratings (--personal.labels, if the labels are others) and, if none",
        "are marked, its test workers (--personal.test_workers or --personal.num_test_workers)",
    ]
    if experiment.second:
        title = DATASETS[experiment.second].title
        lines.append(f"needs a second data set (--second.data.name ...), in the paper {title}")
    return lines


def adaptation_cost(experiment: Experiment, rows: Sequence[tuple[Row, int]], seeds: int) -> str:
    """A line of what the adaptation costs with as many workers as in the paper.

    Args:
        rows: each with its model's multiply-adds for an image.
        seeds: general models of each.
    """
    usual = PersonalizeOptions(name="", labels="", images="")
    counts = [PAPER_WORKERS.get(experiment.paper_data(row.test_on), 0) for row, _ in rows]
    images = sum(n * (row.shots or 0) * macs for n, (row, macs) in zip(counts, rows, strict=True))
    total = 3 * images * usual.repeats * usual.epochs * seeds
    workers = " and ".join(map(str, dict.fromkeys(counts)))
    return (
        f"adaptation to {workers} workers, {usual.repeats} draws of {usual.epochs} steps each: "
        f"about {total:.1e} multiply-adds"
    )


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
    model = asdict(config.model)
    settings = model["settings"] | {"enhance": model["enhance"]}
    return _count(str(config.model.name), config.data.size, json.dumps(settings))


@cache
def _count(name: str, size: int | None, settings: str) -> tuple[int, int]:
    made = without_content(lambda: create_model(name, img_size=size, **json.loads(settings)))
    return count_macs(*made), sum(parameter.numel() for parameter in made[0].parameters())
