"""The way from a checkpoint and a file of choices to an evaluation."""

from pathlib import Path

import numpy as np
import pandas as pd

from eat.config.commands import EvaluateOptions
from eat.data.labels.choices import read_choices
from eat.data.labels.identity import fingerprint
from eat.data.labels.table import LabelError
from eat.data.scales import mean_scores
from eat.data.splits import with_images
from eat.evaluation.evaluate import (
    check_place,
    open_model,
    predict_images,
    read_trained,
    run_config,
)
from eat.evaluation.metrics import bootstrap_interval
from eat.evaluation.pairs import Array, Rows, choice_metrics, pair_credit, pairs_of_sets, set_credit
from eat.evaluation.report import Evaluation, seen_note
from eat.system.files import file_digest

# Options of labels, which choices are not.
OF_LABELS = ("labels", "low", "high", "test", "split", "slice_by", "examples")


def evaluate_choices(checkpoint: str | Path | None, options: EvaluateOptions) -> Evaluation:
    """Evaluate a checkpoint on what people chose: the better of two, the best and worst of a set.

    Scores are those of the first target. Photographs are scored once, in the order of the file.

    Args:
        checkpoint: as for ``evaluate_checkpoint``.
        options: with ``pairs``, and without those of labels.

    Raises:
        WeightsError, CacheError: as ``evaluate_checkpoint``.
        LabelError: the file cannot be read or does not fit the images.
        ValueError: as ``evaluate_checkpoint``, or an option of labels is given.
    """
    for name in OF_LABELS:
        if getattr(options, name) != getattr(EvaluateOptions(), name):
            raise ValueError(f"--{name} is for labels: leave it out, or give no --pairs")
    choices = read_choices(str(options.pairs))
    path, model, info = open_model(checkpoint, options)
    config = run_config(path, info)
    images = options.images or config.data.images
    if not images:
        raise LabelError(f"{path}: names no images of its own; give --images")
    if not options.images:
        check_place(path, config, "--images")
    choices, table, left_out = _with_files(
        choices, images, options.missing or config.data.missing, options.pairs
    )
    trained_on = read_trained(path, info, options)
    notes = ["the checkpoint lists no training images; --trained_on LABELS compares"]
    if trained_on is not None:
        notes = [seen_note(table, images, trained_on, "images")]
    outputs, batch_notes = predict_images(model, info, options, table, images)
    target, scores = next(iter(mean_scores(outputs, info.scales).items()))
    if len(info.scales) > 1:
        notes.append(f"by {target}, the first target")
    judged = _judge_pairs if "winner" in choices else _judge_sets
    predictions, earned, pairs = judged(choices, pd.Series(scores, table["image"]))
    by_lot = choice_metrics(judged(choices, pd.Series(0.0, table["image"]))[1])
    notes.append("by lot: " + ", ".join(f"{name} {value:.4f}" for name, value in by_lot.items()))
    if ties := int((pairs == 0.5).sum()):
        notes.append(f"{ties} of {len(pairs)} pairs have equal scores, and count half")
    counts, slices = {"pairs": len(pairs), "images": len(table)}, pd.DataFrame()
    if "set" in choices:
        names = pd.factorize(choices["set"])[1]
        slices = pd.DataFrame(
            {"column": "set", "slice": name, "pairs": int(own[1]), **choice_metrics(own[None])}
            for name, own in zip(names, earned, strict=True)
        )
        counts |= {"sets": len(names)}
    return Evaluation(
        checkpoint=str(path),
        digest=file_digest(path),
        model=info.model.name,
        trained_on=info.title,
        dataset=Path(str(options.pairs)).name,
        split="",
        fingerprint=fingerprint(table),
        metrics=choice_metrics(earned),
        intervals=_intervals(earned, options.samples),
        predictions=predictions,
        counts=counts,
        slices=slices,
        left_out=left_out,
        notes=notes + batch_notes,
        folder=images,
    )


def _with_files(
    choices: pd.DataFrame, images: str, missing: str, source: object
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Choices whose images have files, the table of these images, and the other images.

    A set lacks its best or worst, maybe, if it lacks an image, and is left out whole.
    """
    columns = ["winner", "loser"] if "winner" in choices else ["image"]
    named = pd.DataFrame({"image": choices[columns].to_numpy().ravel()}).drop_duplicates()
    _, left_out = with_images(named, images, missing)
    absent = choices[columns].isin(left_out).any(axis=1)
    if "image" in choices:
        absent = absent.groupby(choices["set"]).transform("any")
    choices = choices[~absent].reset_index(drop=True)
    if choices.empty:
        raise LabelError(f"{source}: no choice is left whose images are all in {images}")
    used = pd.unique(choices[columns].to_numpy().ravel())
    return choices, pd.DataFrame({"image": used}), left_out


Judged = tuple[pd.DataFrame, Array, Array]  # predictions, what each unit earned, what each pair


def _judge_pairs(choices: pd.DataFrame, predicted: pd.Series) -> Judged:
    """Of pairs; those of a set are one unit."""
    places = pd.Series(range(len(predicted)), predicted.index)
    pairs = np.stack([places[choices[name]] for name in ("winner", "loser")], axis=1)
    credit = pair_credit(predicted.to_numpy(), pairs)
    winner, loser = predicted.to_numpy()[pairs].T
    predictions = choices.assign(
        winner_predicted=winner, loser_predicted=loser, margin=winner - loser, right=credit
    )
    units = np.arange(len(pairs))
    if "set" in choices:
        units = pd.factorize(choices["set"])[0]
    return predictions, _sums(units, credit), credit


def _judge_sets(choices: pd.DataFrame, predicted: pd.Series) -> Judged:
    """Of sets."""
    units = pd.factorize(choices["set"])[0]
    scores, merit = predicted[choices["image"]].to_numpy(), choices["merit"].to_numpy()
    pairs = pairs_of_sets(merit, units)
    credit = pair_credit(scores, pairs)
    earned = np.hstack((_sums(units[pairs[:, 0]], credit), set_credit(scores, merit, units)))
    return choices.assign(predicted=scores), earned, credit


def _sums(units: Rows, credit: Array) -> Array:
    """Sum of the credits and number of the pairs of each unit: (U, 2)."""
    return np.stack((np.bincount(units, credit), np.bincount(units)), axis=1)


def _intervals(earned: Array, samples: int) -> dict[str, tuple[float, float]]:
    """95% bootstrap interval over pairs, or over sets, of each metric; empty for 0 samples."""
    if samples == 0 or len(earned) < 2:
        return {}
    low, high = bootstrap_interval(
        lambda rows: list(choice_metrics(rows).values()), earned, samples=samples
    )
    names = choice_metrics(earned)
    return dict(zip(names, zip(low.tolist(), high.tolist(), strict=True), strict=True))
