"""The way from a checkpoint and options to an evaluation."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from eat.checkpoint import CheckpointInfo, load_checkpoint, read_trained_on
from eat.checkpoint.precision import make_ready
from eat.checkpoint.releases import USUAL_BATCH
from eat.config import DataConfig, TrainConfig
from eat.config.commands import EvaluateOptions
from eat.config.legacy import translate
from eat.config.model import MOST_BATCH, MOST_WORKERS
from eat.data.labels.identity import ImageHashes, fingerprint, hash_images
from eat.data.labels.reading import read_labels
from eat.data.labels.table import LabelError
from eat.data.loading import loaded, make_loader, rows_in_order
from eat.data.registry import DATASETS, DatasetSpec, find_dataset
from eat.data.splits import Splits, read_splits
from eat.evaluation.measure import intervals, measure, predict, tabulate
from eat.evaluation.released import RELEASED
from eat.evaluation.report import Evaluation, seen_note, with_bounds
from eat.evaluation.slices import slice_metrics
from eat.models import AestheticModel, WeightsError
from eat.models.weights import weights_file
from eat.system.device import pick_device
from eat.system.files import file_digest
from eat.system.schema import check_range, typed

MOST_EXAMPLES = 400  # photographs of a kind in a picture
MOST_SAMPLES = 10**6


def evaluate_checkpoint(checkpoint: str | Path | None, options: EvaluateOptions) -> Evaluation:
    """Evaluate a checkpoint on a split of labelled images.

    Args:
        checkpoint: of a run, or one of the authors'; None where ``options.released`` names it.
        options: as documented there.

    Raises:
        WeightsError: the checkpoint cannot be read, or ``options.released`` is not of the authors.
        LabelError: the labels cannot be read, have no such split, or do not fit the images.
        CacheError: the cache was made in another way or of other images.
        ValueError: both checkpoints are given or none, or the data set is unknown.
    """
    check_range("examples", options.examples, 0, MOST_EXAMPLES)
    path, model, info = open_model(checkpoint, options)
    splits, images = _splits(path, info, options)
    split, table = _chosen(splits, options)
    columns = dict.fromkeys(options.slice_by or [])
    for column in columns:  # before any image is read
        slice_metrics(table, column, lambda rows: {})
    notes = []
    if split != "train":
        trained_on = read_trained(path, info, options)
        notes += _image_notes(table, images, splits.dataset, info, trained_on)
    notes += _scale_notes(info, splits.dataset)
    outputs, batch_notes = predict_images(model, info, options, table, images)
    scales = splits.dataset.scales(info.targets), info.scales

    def measured(rows: NDArray[np.int64]) -> dict[str, float]:
        part = outputs[rows], table.iloc[rows], *scales
        return with_bounds(measure(*part), intervals(*part, samples=options.samples))

    slices = [slice_metrics(table, column, measured) for column in columns]
    return Evaluation(
        checkpoint=str(path),
        digest=file_digest(path),
        model=info.model.name,
        trained_on=info.title,
        dataset=splits.dataset.title,
        split=split,
        fingerprint=fingerprint(table),
        metrics=measure(outputs, table, *scales),
        intervals=intervals(outputs, table, *scales, samples=options.samples),
        predictions=tabulate(outputs, table, *scales),
        slices=pd.concat(slices, ignore_index=True) if slices else pd.DataFrame(),
        published=RELEASED[_key(info)].metrics if info.released else {},
        left_out=splits.left_out,
        notes=notes + batch_notes,
        folder=images,
        targets=[*info.scales],
    )


def open_model(
    checkpoint: str | Path | None, options: EvaluateOptions
) -> tuple[Path, AestheticModel, CheckpointInfo]:
    """The model to evaluate, and its file; raises as ``evaluate_checkpoint``."""
    if bool(checkpoint) == bool(options.released):
        raise ValueError("give a run's checkpoint, or --released FILE")
    check_range("batch_size", options.batch_size, 1, MOST_BATCH)
    check_range("workers", options.workers, 0, MOST_WORKERS)
    check_range("samples", options.samples, 0, MOST_SAMPLES)
    path = weights_file(checkpoint or options.released or "")
    model, info = load_checkpoint(path, options.model, options.general)
    if options.released and not info.released:
        raise WeightsError(
            f"{path}: not one of the released checkpoints, but of a run; give it without --released"
        )
    return path, model, info


def run_config(path: Path, info: CheckpointInfo) -> TrainConfig:
    """The options of the run that wrote a checkpoint.

    Raises:
        WeightsError: the checkpoint holds something else in their place.
    """
    try:
        config: TrainConfig = typed(TrainConfig, translate(info.config), "config")
        return config
    except ValueError as error:
        raise WeightsError(f"{path}: the options of its run cannot be read: {error}") from error


def _trained_dataset(path: Path, info: CheckpointInfo, options: EvaluateOptions) -> str:
    """The data set that a model was trained on, by a name that does not import a file by itself.

    Raises:
        LabelError: it is not registered here, and ``options`` do not name the file that has it.
    """
    if info.dataset in DATASETS:
        return info.dataset
    if options.name is not None and find_dataset(options.name).name == info.dataset:
        return options.name
    raise LabelError(
        f"{path}: was trained on the data set {info.dataset!r:.200}, which is not registered here; "
        "give it as --name FILE.py:NAME, or the data set of the labels as --name"
    )


def check_place(path: Path, config: TrainConfig, options: str) -> None:
    """Refuse to open what a checkpoint names, if it does not lie where its run wrote it.

    It may then have been got from elsewhere.

    Raises:
        LabelError: saying to give ``options`` instead.
    """
    here, folder = path.resolve().parent, config.run.folder
    if here != (Path(folder or f"runs/{here.parent.name}") / "checkpoints").resolve():
        place = repr(folder)[:300] if folder else "a folder in runs/"
        raise LabelError(
            f"{path}: does not lie where its run wrote it, {place} seen from where that was "
            "started, and so the labels and images that it names are not opened; give "
            f"{options}"
        )


def _splits(path: Path, info: CheckpointInfo, options: EvaluateOptions) -> tuple[Splits, str]:
    """The label tables and the image folder: those of the options, else those of the run."""
    config = run_config(path, info)
    run, own = config.data, DataConfig() if options.labels else config.data
    labels, images = options.labels or own.labels, options.images or run.images
    if not labels or not images:
        raise LabelError(f"{path}: names no labels and images of its own; give --labels, --images")
    if not (options.labels and options.images):
        check_place(path, config, "--labels and --images")
    if not options.labels:
        config.check()
    name = options.name or _trained_dataset(path, info, options)
    scale = run if name == info.dataset else DataConfig()  # its other labels share the scale
    splits = read_splits(
        name,
        labels,
        images,
        test=options.test or own.test,
        val=own.val,
        targets=[*info.targets] or None,
        val_fraction=own.val_fraction,
        missing=options.missing or run.missing,
        seed=config.run.seed,
        low=scale.low if options.low is None else options.low,
        high=scale.high if options.high is None else options.high,
    )
    return splits, images


def _chosen(splits: Splits, options: EvaluateOptions) -> tuple[str, pd.DataFrame]:
    """Name and table of the split to evaluate; "whole" for labels without splits."""
    tables = {name: table for name, table in splits.tables().items() if len(table)}
    if options.split in tables:
        return options.split, tables[options.split]
    if options.labels and (splits.train["split"] == "").all() and tables.keys() == {"train"}:
        return "whole", splits.train
    raise LabelError(
        f"{options.labels or 'the labels of the run'}: no image of the {options.split} split, "
        f"only of {', '.join(tables)}; give --test or another --split"
    )


def predict_images(
    model: AestheticModel,
    info: CheckpointInfo,
    options: EvaluateOptions,
    table: pd.DataFrame,
    images: str,
) -> tuple[NDArray[np.float64], list[str]]:
    """Outputs (N, K) of the model for the images of a table, and what they depend on, if anything.

    Raises:
        ValueError: the model cannot evaluate so many images in such batches.
    """
    batch_size, notes = _settle_batches(model, info, options)
    model.check_batches(len(table), batch_size, "batch_size")
    device = pick_device(options.device)
    rows, none = rows_in_order(len(table), batch_size), torch.empty(len(table), 0)
    loader = make_loader(
        table, images, none, info.preprocessing, rows, options.workers, cache=options.cache
    )
    pixels, precision = info.preprocessing, options.precision
    model = make_ready(model, pixels, precision, device)
    outputs = predict(model, loaded(loader), len(table), pixels, device, precision)
    if precision != "fp32":
        notes.append(f"precision: {precision}")
    return outputs, notes


def _image_notes(
    table: pd.DataFrame,
    images: str,
    dataset: DatasetSpec,
    info: CheckpointInfo,
    trained_on: ImageHashes | None,
) -> list[str]:
    """Remarks on a test list: its size, and its images that the model was trained on."""
    notes = []
    official = dataset.counts.get("test")
    if official and official != len(table):
        count = f"{len(table)} images; the official test split of {dataset.title} has {official}"
        notes.append(count)
    authors = RELEASED[_key(info)] if info.released else None
    if authors and fingerprint(table) != authors.test_fingerprint:
        notes.append(
            "WARNING: this is not the test split that the released checkpoint belongs to "
            f"({authors.split}); {authors.warning}"
        )
    if trained_on is not None:
        notes.append(seen_note(table, images, trained_on, "test images"))
    elif not info.released:
        notes.append("the checkpoint lists no training images; --trained_on LABELS compares")
    return notes


def read_trained(path: Path, info: CheckpointInfo, options: EvaluateOptions) -> ImageHashes | None:
    """The training images, as the options (by name) or the checkpoint list them."""
    if options.trained_on is None:
        return None if info.released else read_trained_on(path)
    run = run_config(path, info).data
    name = _trained_dataset(path, info, options)
    table = read_labels(name, options.trained_on, low=run.low, high=run.high)
    train = table[table["split"] == "train"]
    return hash_images(train if len(train) else table)


def _key(info: CheckpointInfo) -> tuple[str, str]:
    """Of one of the authors' checkpoints in ``RELEASED``."""
    return info.model.name, info.dataset


def _scale_notes(info: CheckpointInfo, dataset: DatasetSpec) -> list[str]:
    """Remarks on the mapping of scales, where there is one."""
    pairs = zip(info.scales.values(), dataset.scales(info.targets).values(), strict=True)
    bounds = [((source.low, source.high), (target.low, target.high)) for source, target in pairs]
    return [
        f"scores mapped from {info.title} ({source[0]:g}..{source[1]:g}) to {dataset.title} "
        f"({target[0]:g}..{target[1]:g}) by the straight line through the bounds"
        for source, target in dict.fromkeys(bounds)
        if source != target
    ]


def _settle_batches(
    model: AestheticModel, info: CheckpointInfo, options: EvaluateOptions
) -> tuple[int, list[str]]:
    """Images of a batch; and for a model that mixes them, a remark on what its scores depend on."""
    if not model.mixes_images:
        return options.batch_size or USUAL_BATCH, []
    size, averages = options.batch_size or info.batch_size, model.averages_points
    if options.own_rule:
        model.use_own_rule(info.batch_size)
    elif options.own_points:
        model.use_own_points()
    if averages and model.mixes_images:
        note = f"interest points: averaged over batches of {size}, as released"
    elif averages:
        note = "interest points: each image's own"
    elif model.mixes_images:
        note = f"images are compared with one another, in batches of {size} in the list's order"
    else:
        note = f"each image is compared with {info.batch_size} copies of itself, a rule of ours"
    return size, [note]
