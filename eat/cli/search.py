"""``eat search``: a search over options of a run, by Optuna or nni."""

from collections.abc import Sequence
from dataclasses import fields
from functools import partial

from eat.cli.errors import FAILED, guarded
from eat.cli.reproduce import check_sample, run_options
from eat.cli.train import parse_train, run_parser
from eat.config.commands import BestOptions, SearchOptions
from eat.system.processes import world_size
from eat.system.schema import check_range

say = partial(print, flush=True)
ENDED = {"SUCCEEDED", "EARLY_STOPPED", "USER_CANCELED"}  # the last is nni's word for pruned ones


def search_main(argv: Sequence[str], prog: str = "eat search") -> int:
    """Search, and return the exit code: 1 if trials failed, or nni lost some."""
    options = parse(argv, prog)
    given = run_options(argv)
    return guarded(partial(run, options, given, prog), prog)


def parse(argv: Sequence[str], prog: str) -> SearchOptions:
    """Read the command's own options, and check those of a run beside them.

    Raises:
        SystemExit: with code 2 and a message, if an option is unknown or ill-typed.
    """
    parser = run_parser(prog, "Search over options of a run, each trial a run of its own.")
    parser.add_class_arguments(SearchOptions)
    found = parser.parse_args(list(argv))
    return SearchOptions(**{field.name: found[field.name] for field in fields(SearchOptions)})


def check(options: SearchOptions, names: set[str]) -> None:
    """Refuse options that do not go together.

    Args:
        options: the command's own.
        names: of the options of a run that are given or searched over.

    Raises:
        ValueError: naming them.
    """
    check_range("--trials", options.trials, 1, 1_000_000)
    check_range("--concurrency", options.concurrency, 1, 1024)
    check_range("--start_step", options.start_step, 0, 1_000_000)
    if {"--run.folder", "--run.resume"} & names:
        raise ValueError(
            "trials have folders of their own here, and go on by themselves: give --out"
        )
    if world_size() > 1:
        raise ValueError("a search runs in one process: start it without torchrun")
    if options.engine == "optuna" and (options.nni is not None or options.port is not None):
        raise ValueError("--nni and --port belong to --engine nni")
    if options.engine == "nni" and options.storage is not None:
        raise ValueError("--storage belongs to --engine optuna")


def run(options: SearchOptions, given: dict[str, str], prog: str) -> int:
    """Search, and say what came of it."""
    from eat.tuning.results import open_search
    from eat.tuning.search import search
    from eat.tuning.space import read_space
    from eat.tuning.trial import options as named

    space = read_space(options.space)
    check(options, {*given, *(f"--{name}" for name in space.rules)})
    words = [f"{name}={value}" for name, value in given.items()]
    config = parse_train(words, prog=prog)
    config.check()
    check_sample(config, "photos")
    for drawn in space.corners():  # a misspelt name is told now, and not by every trial
        parse_train(words, named(drawn), prog)
    search(options, space, words, config.to_dict(), say)
    found = open_search(options.out, BestOptions())
    counts = found.trials["status"].value_counts().to_dict()
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    say(f"{told}; eat best {options.out} names the best trial")
    # Those that run now are of other machines; of an experiment that is done, they are lost.
    sound = ENDED if options.engine == "nni" else ENDED | {"RUNNING"}
    return 0 if counts.keys() <= sound else FAILED
