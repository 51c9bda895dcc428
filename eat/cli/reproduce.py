"""``eat reproduce``: a table or figure of the paper, as rows of training runs."""

import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from eat.cli.errors import FAILED, guarded
from eat.cli.train import as_options, parse_train, run_parser
from eat.cli.workers import (
    GROUPS,
    Given,
    add_workers,
    given_options,
    is_workers_option,
    quick_options,
)
from eat.config import TrainConfig
from eat.config.commands import ReproduceOptions
from eat.config.files import shipped_configs
from eat.system.processes import world_size
from eat.system.schema import check_range
from eat.system.stops import Interrupted, exit_with_signal
from eat.tuning import trial as tuning

if TYPE_CHECKING:
    from eat.experiments.runner import Search
    from eat.experiments.table import Configure, Experiment

say = partial(print, flush=True)
QUICK = {"--optim.epochs": "2", "--optim.warmup_epochs": "0", "--data.workers": "0"}


def reproduce_main(argv: Sequence[str], prog: str = "eat reproduce") -> int:
    """Reproduce an experiment, or all, and return the exit code: 1 if rows failed.

    A trial of nni that a signal has stopped ends by that signal instead.
    """
    tuning.end_with_parent()
    code = guarded(lambda: run(*parse(argv, prog), run_options(argv), argv, prog), prog)
    if tuning.in_experiment():
        exit_with_signal(code)
    return code


def parse(argv: Sequence[str], prog: str) -> tuple[str | None, ReproduceOptions, Given]:
    """Read the command's own options, and check those of a run beside them.

    Raises:
        SystemExit: with code 2 and a message, if an option is unknown or ill-typed.
    """
    about = "Train, evaluate and report the rows of a table or figure of the paper."
    parser = run_parser(prog, about)
    help = "such as table5, all, or a file as those in configs/experiments"
    parser.add_argument("name", type=str | None, nargs="?", help=help)
    parser.add_class_arguments(ReproduceOptions)
    for group, options in GROUPS.items():
        parser.add_class_arguments(options, group)
    found = parser.parse_args(list(argv))
    own = {field.name: found[field.name] for field in fields(ReproduceOptions)}
    return found["name"], ReproduceOptions(**own), given_options(found)


def run_options(argv: Sequence[str]) -> dict[str, str]:
    """The options of a run in a command line: those with dotted names, and the config."""
    found, words = {}, iter(argv)
    for word in words:
        name, given, value = word.partition("=")
        if name.startswith("--") and ("." in name or name == "--config"):
            found[name] = value if given else next(words, "")
    return {name: value for name, value in found.items() if not is_workers_option(name)}


def check(name: str | None, options: ReproduceOptions, given: Mapping[str, str]) -> None:
    """Refuse options that do not go together.

    Raises:
        ValueError: naming them.
    """
    if name is None and not options.list:
        raise ValueError("no experiment is named: give one, or all, or --list true")
    check_range("--seeds", options.seeds, 1, 1000)
    if "--run.folder" in given or "--run.resume" in given:
        raise ValueError(
            "runs have folders of their own here, and go on by themselves: give --runs"
        )
    if world_size() > 1:
        raise ValueError("runs in one process: start it several times instead of by torchrun")
    if options.engine == "local" and (options.nni is not None or options.port is not None):
        raise ValueError("--nni and --port belong to --engine nni")


def run(
    name: str | None,
    options: ReproduceOptions,
    workers: Given,
    given: dict[str, str],
    argv: Sequence[str],
    prog: str,
) -> int:
    """Reproduce the experiments of a name, one after the other."""
    from eat.experiments.listing import describe
    from eat.experiments.table import find_experiments

    check(name, options, given)
    experiments = find_experiments(name or "all")
    trial = tuning.job() if options.engine == "nni" else None
    complete, left_out = True, 0
    for experiment in experiments:
        label = f"{experiment.name}: "  # of its runs, among those of all experiments
        if trial is not None and not trial.startswith(label):
            continue
        seeds = options.seeds or (1 if options.quick else experiment.seeds)
        own = quick_data(experiment, options, given) | given
        made = configure(experiment, options, own, prog)
        if options.list:
            print(describe(experiment, made, seeds, rows=name is not None), flush=True)
            continue
        try:
            experiment = ready(experiment, made, workers, options)
        except ValueError as error:
            if name != "all":
                raise
            print(f"{experiment.name} is left out: {error}", flush=True)
            left_out += 1
            continue
        out = Path(options.out or ("runs/quick" if options.quick else "results"))
        if options.out is None or len(experiments) > 1:
            out /= experiment.name
        work = work_of(experiment, out, options, argv, trial and trial.removeprefix(label))
        try:
            complete &= work(
                experiment,
                made,
                seeds=seeds,
                out=out,
                runs=Path(options.runs),
                command=shlex.join(["eat", "reproduce", *argv]),
                say=say,
            )
        except Interrupted as stop:
            by = signal.Signals(stop.exit_code - 128).name
            sys.stderr.write(f"{prog}: stopped by {by}; the same command goes on from here\n")
            return stop.exit_code
        made_files = (out / f"{experiment.name}.{kind}" for kind in ("csv", "md", "png", "pdf"))
        print(*(path for path in made_files if path.exists()), sep="\n")
    return 0 if complete and left_out < len(experiments) else FAILED


def ready(
    experiment: "Experiment", made: "Configure", workers: Given, options: ReproduceOptions
) -> "Experiment":
    """The experiment, if what it needs is there, with its test workers.

    Raises:
        ValueError: a sample, a package, ratings or workers are missing; it says how to get them.
    """
    from eat.experiments.photographs import check_photographs

    check_sample(made({}), experiment.task)
    check_photographs(experiment)
    return (
        add_workers(experiment, made, workers, options) if experiment.personalised else experiment
    )


def work_of(
    experiment: "Experiment",
    out: Path,
    options: ReproduceOptions,
    argv: Sequence[str],
    trial: str | None,
) -> Callable[..., bool]:
    """What carries out an experiment's runs, or the one that a trial of nni has."""
    from eat.experiments.runner import reproduce, reproduce_one

    if trial is not None:
        return partial(reproduce_one, name=trial, report=report)
    return partial(reproduce, search=nni_search(experiment.name, out, options, argv))


def quick_data(
    experiment: "Experiment", options: ReproduceOptions, given: Mapping[str, str]
) -> dict[str, str]:
    """Options of a quick run's data: a small sample, which is made if it is not there."""
    other = {"--data.labels", "--config"} & given.keys() or given.get("--data.name", "sample")
    if not options.quick or other != "sample":
        return {}
    if options.list:
        return {"--data.name": "sample"}
    runs = Path(options.runs)
    if experiment.personalised:
        return quick_options(runs)
    return quick_sample(runs, experiment.task)


def nni_search(
    name: str, out: Path, options: ReproduceOptions, argv: Sequence[str]
) -> "Search | None":
    """Runs of an experiment as trials of nni, each of which is this same command; None without."""
    if options.engine == "local":
        return None

    def search(runs: list[str], each: Callable[[], object]) -> None:
        from eat.tuning.grid import search

        search(
            name,
            [f"{name}: {run}" for run in runs],
            ["reproduce", *argv],
            out / "nni",
            machines=options.nni,
            port=options.port,
            each=each,
            say=say,
        )

    return search


def report(metrics: dict[str, float], final: bool) -> None:
    """Report to nni, of which this process is a trial."""
    tuning.report(metrics, "srcc", final=final)


def check_sample(config: TrainConfig, task: str) -> None:
    """Refuse a sample that is not there, or is of another task, and say how it is made."""
    from eat.sample.make import task_of

    labels, usual = config.data.labels, task == "photos"
    if not labels or (usual and config.data.name != "sample"):
        return
    make = "make the sample by eat sample " + (labels if usual else f"FOLDER --task {task}")
    if not Path(labels).exists():
        raise ValueError(f"{labels}: no such folder: {make}")
    if not usual and task_of(labels) != task:
        raise ValueError(f"{labels}: no sample of the task {task}, which is needed here: {make}")


def quick_sample(runs: Path, task: str) -> dict[str, str]:
    """Options of a run on a small sample, which is made if it is not there."""
    from eat.sample.make import make_sample

    folder = runs / ("sample" if task == "photos" else task)
    made = make_sample(folder, train=160, test=64, size=96, task=task)
    labels = {"--data.labels": str(made), "--data.images": str(made / "images")}
    return {"--data.name": "sample"} | labels


def configure(
    experiment: "Experiment", options: ReproduceOptions, given: dict[str, str], prog: str
) -> "Configure":
    """From a row's options to those of its run.

    Later ones win: the config, the experiment's, quick's, those on the command line, the row's. If
    there is no config among them it is the shipped one for the data set, with the paper's training.
    """
    name = given.get("--data.name", experiment.data)
    shipped = next((n for n in (name, f"{name}_paper") if n in shipped_configs()), "ava_paper")
    config = {"--config": given.get("--config", shipped), "--run.keep": "1"}
    if "--config" not in given:
        config["--data.name"] = name
        config["--model.settings.anchor_points"] = "false"  # the sample's config has them
    common = config | as_options(experiment.options) | (QUICK if options.quick else {})
    words = [f"{option}={value}" for option, value in (common | given).items()]

    return lambda row: parse_train(words, row, prog)
