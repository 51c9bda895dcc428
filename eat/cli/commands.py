"""The commands but ``train``: a row each, and what it calls."""

import csv
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eat.cli.errors import FAILED
from eat.cli.photographs import (
    run_compare,
    run_demo,
    run_gallery,
    run_points,
    run_saliency,
    run_score,
)
from eat.config.commands import (
    BestOptions,
    CompareOptions,
    EvaluateOptions,
    ModelsOptions,
    PrepareOptions,
    SampleOptions,
    ScoreOptions,
)
from eat.config.demo import DemoOptions
from eat.config.personal import AdaptOptions, PersonalizeOptions
from eat.config.pictures import GalleryOptions, PointsOptions, ReportOptions, SaliencyOptions
from eat.config.sharing import ExportOptions, ShareOptions
from eat.system.schema import check_range


def run_evaluate(checkpoint: str | None, options: EvaluateOptions) -> int:
    """Evaluate a checkpoint: metrics on screen, as JSON, CSV and Markdown, and predictions."""
    from eat.evaluation.choices import evaluate_choices
    from eat.evaluation.evaluate import evaluate_checkpoint
    from eat.system.files import check_folder

    if options.out is not None:
        check_folder(options.out)
    evaluate = evaluate_choices if options.pairs else evaluate_checkpoint
    evaluation = evaluate(checkpoint, options)
    folder = Path(evaluation.checkpoint).parent
    beside = folder.parent if folder.name == "checkpoints" else Path()
    out = Path(options.out or beside / ("pairs" if options.pairs else "eval"))
    print(evaluation.table())
    print(*evaluation.write(out, options.predictions), sep="\n")
    if options.examples:
        from eat.evaluation.measure import first_target
        from eat.pictures.examples import draw_examples

        picture = out / "examples.png"
        predictions = first_target(evaluation.predictions)
        draw_examples(predictions, evaluation.folder, picture, options.examples)
        print(picture)
    return 0


def run_prepare(name: str, options: PrepareOptions) -> int:
    """Check a data set. Exit code 1 if something in it needs a decision."""
    from eat.data.prepare import prepare

    if options.engine == "local":
        if options.address is not None:
            raise ValueError("--address is for --engine ray alone")
        report = prepare(name, options)
    else:
        from eat.bulk.pool import ray_pool

        with ray_pool(options.address, [options.images, options.out]) as pool:
            report = prepare(name, options, pool)
    print(report.summary())
    return 0 if report.ok or options.leave_out else FAILED


def run_adapt(ratings: str, options: AdaptOptions) -> int:
    """Make a personal model and say what it is worth."""
    from eat.personal.own import adapt

    made = adapt(ratings, **asdict(options))
    for note in made.notes:
        sys.stderr.write(f"eat adapt: {note}\n")
    print(f"{made.out}: {made.words()}")
    return 0


def run_personalize(checkpoint: str, options: PersonalizeOptions) -> int:
    """Adapt a model to each test worker and print both models' correlations."""
    from eat.personal.protocol import personalize

    result = personalize(checkpoint, options)
    print(result.table())
    print(result.markdown())
    return 0


def run_export(checkpoint: str, options: ExportOptions) -> int:
    """Write a checkpoint as a file for another runtime."""
    from eat.sharing.export import export

    card = export(checkpoint, options)
    shape = ", ".join(map(str, card["input"]["shape"]))
    kind = "drawn images" if card["drawn"] else "photographs"
    print(f"{options.out}: {card['input']['name']} ({shape}) -> {', '.join(card['outputs'])}")
    print(f"at most {card['difference']:.1e} from PyTorch on {card['images']} {kind}")
    if options.labels:
        print("SRCC {srcc:.4f} of the checkpoint, {srcc_of_file:.4f} of the file".format(**card))
    return 0


def run_report(runs: list[str], options: ReportOptions) -> int:
    """Make a page of runs."""
    from eat.pictures.report import make_report

    print(make_report(runs, options.out))
    return 0


def run_share(checkpoint: str, options: ShareOptions) -> int:
    """Write a checkpoint as a folder or repository for others."""
    from eat.sharing.hub import share

    print(share(checkpoint, options.out, options.model, options.general))
    return 0


def run_sample(folder: str, options: SampleOptions) -> int:
    """Make the sample data set."""
    from eat.sample.make import make_sample, make_workers

    given = asdict(options)
    workers = given.pop("workers")
    check_range("workers", workers, 0)
    made = make_sample(folder, **given)
    print(made)
    if workers:
        print(make_workers(made, workers=workers, seed=options.seed))
    return 0


def run_models(pattern: str | None, options: ModelsOptions) -> int:
    """List the named models, with what is published of them."""
    from eat.models.listing import BESIDE, describe_models, in_words

    records = describe_models(pattern or "")
    if options.format == "json":
        print(json.dumps(records, indent=2))
    elif options.format == "csv":
        rows = [
            {name: "; ".join(map(str, v)) if isinstance(v, list | tuple) else v
             for name, v in record.items() if name != "settings"}
            for record in records
        ]  # fmt: skip
        table = csv.DictWriter(sys.stdout, rows[0], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    else:
        print(*map(in_words, records), BESIDE, sep="\n")
    return 0


def run_best(experiment: str, options: BestOptions) -> int:
    """Name the best trial of a search, and write its config and the table of all trials."""
    from eat.tuning.results import best, chosen

    search, trial, out = best(experiment, options)
    counts = search.trials["status"].value_counts()
    known = ", ".join(filter(None, (search.name, search.platform)))
    print(f"search {search.id} ({known}): "
          f"{', '.join(f'{count} {status}' for status, count in counts.items())}")  # fmt: skip
    values = ", ".join(f"{name} {trial[name]}" for name in chosen(search.trials))
    print(f"best trial   {trial['trial']}: {trial['final']:.4f} with {values}")
    print(f"config       {out / 'config.yaml'}")
    print(f"trials       {out / 'trials.csv'}")
    if trial["checkpoint"]:
        print(f"checkpoint   {trial['checkpoint']}")
    else:
        print(f"its run is not on this machine, but in {trial['folder']} where it ran; the config "
              "holds what the search chose, to be given after the trial command's own")  # fmt: skip
    return 0


@dataclass(frozen=True)
class Command:
    """A subcommand. ``run`` takes the positional argument and the options to the exit code.

    Attributes:
        help: of the command, in a line.
        positional: name and help of the argument without dashes; None if there is none.
        nargs: of that argument, as in argparse.
    """

    help: str
    positional: tuple[str, str] | None
    options: type
    run: Callable[[Any, Any], int]
    nargs: str | None = None


COMMANDS = {
    "evaluate": Command(
        "metrics of a checkpoint on labelled images",
        ("checkpoint", "also as --checkpoint: of a run, or one of the authors' .pth files"),
        EvaluateOptions,
        run_evaluate,
        nargs="?",
    ),
    "score": Command(
        "scores of photographs",
        ("images", "files, folders or glob patterns"),
        ScoreOptions,
        run_score,
        nargs="+",
    ),
    "compare": Command(
        "which of several photographs, or crops of one",
        ("photographs", "files, folders, glob patterns, or crops: 'photo.jpg[WIDTHxHEIGHT+X+Y]'"),
        CompareOptions,
        run_compare,
        nargs="+",
    ),
    "prepare": Command(
        "check a data set before training on it",
        ("name", "data set"),
        PrepareOptions,
        run_prepare,
    ),
    "personalize": Command(
        "k-shot adaptation to single raters",
        ("checkpoint", "the general model, also as --checkpoint"),
        PersonalizeOptions,
        run_personalize,
    ),
    "adapt": Command(
        "a personal model of one person's ratings or choices",
        ("ratings", "file with the columns image and score, or winner and loser"),
        AdaptOptions,
        run_adapt,
    ),
    "best": Command(
        "the best trial of a search, and a table of all",
        ("experiment", "its folder, nni's id of it, or Optuna's journal or database"),
        BestOptions,
        run_best,
    ),
    "models": Command(
        "the named models, and what is published of them",
        ("pattern", "part of a name, or a pattern such as eat_*; all if none is given"),
        ModelsOptions,
        run_models,
        nargs="?",
    ),
    "points": Command(
        "picture of where a model looks",
        ("photographs", "files, a row each"),
        PointsOptions,
        run_points,
        nargs="+",
    ),
    "saliency": Command(
        "picture of what a score comes from",
        ("photographs", "files, a row each"),
        SaliencyOptions,
        run_saliency,
        nargs="+",
    ),
    "export": Command(
        "a model as ONNX or PyTorch's exported program",
        ("checkpoint", "also as --checkpoint: of a run, or one of the authors' .pth files"),
        ExportOptions,
        run_export,
    ),
    "gallery": Command(
        "page of photographs by their scores",
        ("photographs", "files, folders or glob patterns"),
        GalleryOptions,
        run_gallery,
        nargs="+",
    ),
    "demo": Command(
        "local web page of a model: scores, comparisons, a personal model",
        None,
        DemoOptions,
        run_demo,
    ),
    "report": Command(
        "page of a run, or of several side by side",
        ("runs", "folders of runs"),
        ReportOptions,
        run_report,
        nargs="+",
    ),
    "share": Command(
        "a model as a folder or hub repository, with its card",
        ("checkpoint", "also as --checkpoint: of a run, or one of the authors' .pth files"),
        ShareOptions,
        run_share,
    ),
    "sample": Command(
        "make the sample data set",
        ("folder", "where the data set goes"),
        SampleOptions,
        run_sample,
    ),
}
