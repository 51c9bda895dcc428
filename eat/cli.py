"""The command line: ``eat COMMAND ...``, and the options of ``main_nni.py``."""

import difflib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from eat.config import DataConfig, FaultConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig
from eat.config.files import find_config
from eat.signatures import signature_of
from eat.system.heap import keep_heap
from eat.system.processes import is_main
from eat.system.stops import Interrupted, TrainingError, interruptible

# How jsonargparse words an option that it does not know: on the command line, and in a file.
UNKNOWN_OPTION = re.compile(
    r"arguments: --([\w.]+)|Group '([\w.]+)' does not accept option '(\w+)'"
    r"|Option '([\w.]+)' is not accepted"
)
FAILED, USAGE = 1, 2  # exit codes: some work could not be done, and the call itself was wrong


class Parser(ArgumentParser):
    """A parser whose errors are one paragraph, with the nearest valid option."""

    def error(self, message: str, *args: Any, **kwargs: Any) -> NoReturn:
        """Print the message, and what was probably meant, and exit with code 2."""
        sys.stderr.write(f"{self.prog}: error: {message.strip()}{self._hint(message)}\n")
        sys.exit(USAGE)

    def _hint(self, message: str) -> str:
        keys = [o[2:] for action in self._actions for o in action.option_strings if o[:2] == "--"]
        unknown = UNKNOWN_OPTION.search(message)
        if unknown:
            name = ".".join(part for part in unknown.groups() if part)
            near = difflib.get_close_matches(name, keys, n=1)
            if near:
                return f"\nDid you mean --{near[0]}? {self.prog} --help explains it."
        return f"\n{self.prog} --help explains every option."


class ConfigFile(ActionConfigFile):
    """A YAML file of options: a path, or the name of a shipped one."""

    def __call__(
        self, parser: Any, cfg: Any, values: Any, option_string: str | None = None
    ) -> None:
        """Read the file's options into those that are parsed."""
        try:
            path = find_config(values)
        except ValueError as error:
            parser.error(str(error))
        super().__call__(parser, cfg, str(path), option_string)


def add_train_arguments(parser: Parser) -> None:
    """The options of a training run: a YAML file, and every field of TrainConfig by dotted name."""
    parser.add_argument(
        "--config",
        action=ConfigFile,
        help="YAML file of options, or the name of a shipped one, such as sample; later ones win.",
    )
    parser.add_class_arguments(DataConfig, "data")
    parser.add_class_arguments(ModelConfig, "model")
    parser.add_class_arguments(OptimConfig, "optim")
    parser.add_class_arguments(RunConfig, "run")
    parser.add_class_arguments(FaultConfig, "faults")


def train_config(parser: Parser, options: Namespace) -> TrainConfig:
    """Parsed options as a TrainConfig."""
    made = parser.instantiate_classes(options)
    return TrainConfig(made.data, made.model, made.optim, made.run, made.faults)


def parse_train(
    argv: Sequence[str] | None, parameters: dict[str, Any] | None = None, prog: str = "main_nni.py"
) -> TrainConfig:
    """Read a training run's options.

    Args:
        argv: the command line; None takes the process's.
        parameters: dotted option names and values that win over it, from a search.
        prog: the command's name in messages.

    Raises:
        SystemExit: with code 2 and a message, if an option is unknown or ill-typed.
    """
    parser = Parser(
        prog=prog,
        allow_abbrev=False,
        description="Train a model. Options may stand in a YAML file.",
    )
    add_train_arguments(parser)
    argv = list(sys.argv[1:] if argv is None else argv)
    argv += [
        f"--{name}={json.dumps(value)}" if not isinstance(value, str) else f"--{name}={value}"
        for name, value in (parameters or {}).items()
    ]
    return train_config(parser, parser.parse_args(argv))


def run_train(config: TrainConfig) -> int:
    """Train, tell nni where there is one, and say where the results lie."""
    from eat.pictures.draw import draw_curves, draw_predictions
    from eat.training.trainer import train
    from eat.tuning import trial as tuning

    if tuning.in_experiment():  # a trial that nni starts again continues
        config.run.folder, config.run.resume = tuning.trial_folder(), "auto"

    def report(metrics: dict[str, float], final: bool) -> None:
        tuning.report(metrics, config.run.metric, final=final)

    folder, metrics = train(config, report)
    if not is_main():
        return 0
    import pandas as pd

    draw_curves(folder, folder / "curves.png")
    draw_predictions(pd.read_csv(folder / "predictions.csv"), folder / "predictions.png")
    print(
        f"SRCC {metrics['srcc']:.4f}  PLCC {metrics['plcc']:.4f}  "
        f"accuracy {metrics['accuracy']:.4f}"
    )
    print(f"checkpoint   {folder / 'checkpoints' / 'best.safetensors'}")
    print(f"curves       {folder / 'curves.png'}, or tensorboard --logdir {folder / 'curves'}")
    print(f"predictions  {folder / 'predictions.csv'}, {folder / 'predictions.png'}")
    return 0


def add_function(parser: Parser, module: str, name: str, skip: Sequence[str] = ()) -> None:
    """A function's parameters as options, checked by its types, explained by its docstring."""
    function = signature_of(module, name)
    add = (
        parser.add_class_arguments if isinstance(function, type) else parser.add_function_arguments
    )
    add(function, skip=set(skip))


def add_evaluate_arguments(parser: Parser) -> None:
    """Options of ``eat evaluate``."""
    parser.add_argument("checkpoint", type=str | None, nargs="?", help="a run's checkpoint")
    parser.add_argument("--released", type=str | None, help="instead: a checkpoint of the authors'")
    add_function(
        parser, "eat.evaluation.evaluate", "evaluate_checkpoint", skip=["checkpoint", "released"]
    )
    parser.add_argument(
        "--out",
        type=str | None,
        help="folder for the results; default: eval, beside the checkpoints",
    )
    parser.add_argument(
        "--predictions",
        type=Literal["csv", "parquet"],
        default="csv",
        help="format of the predictions",
    )


def run_evaluate(options: dict[str, Any]) -> int:
    """Evaluate a checkpoint: metrics on screen, as JSON, CSV and Markdown, and predictions."""
    from eat.evaluation.evaluate import evaluate_checkpoint

    own, released = options.pop("checkpoint"), options.pop("released")
    if bool(own) == bool(released):
        raise ValueError("give a run's checkpoint, or --released FILE")
    beside = Path("eval") if released else Path(own).parent.parent / "eval"
    out, form = options.pop("out") or beside, options.pop("predictions")
    evaluation = evaluate_checkpoint(own or released, released=bool(released), **options)
    print(evaluation.table())
    print(*evaluation.write(out, form), sep="\n")
    return 0


def add_score_arguments(parser: Parser) -> None:
    """Options of ``eat score``."""
    parser.add_argument("images", type=str, nargs="+", help="files, folders or glob patterns")
    add_function(parser, "eat.scoring", "Scorer")
    parser.add_argument(
        "--format",
        type=Literal["csv", "jsonl"],
        default="csv",
        help="CSV, or one JSON object a line",
    )
    parser.add_argument("--out", type=str | None, help="file to write; default: the terminal")


def run_score(options: dict[str, Any]) -> int:
    """Score photographs. Exit code 1 if some could not be read."""
    from eat.scoring import Score, Scorer, as_csv, as_json_lines

    images, form, out = (options.pop(name) for name in ("images", "format", "out"))
    scorer = Scorer(**options)
    failed: list[Score] = []

    def watched() -> Iterator[Score]:
        for score in interruptible(scorer(images)):
            if score.error:
                failed.append(score)
            yield score

    lines = as_json_lines(watched()) if form == "jsonl" else as_csv(watched(), scorer.num_votes)
    write_lines(lines, out)
    for score in failed:
        sys.stderr.write(f"eat score: not scored: {score.error}\n")
    return FAILED if failed else 0


def write_lines(lines: Iterator[str], path: str | None) -> None:
    """Print lines as they come, or write them to a file that appears when it is complete."""
    if path is None:
        for line in lines:
            print(line, flush=True)
        return
    from eat.system.files import appearing_whole

    with appearing_whole(path) as file:
        for line in lines:
            file.write(f"{line}\n".encode())


def add_prepare_arguments(parser: Parser) -> None:
    """Options of ``eat prepare``."""
    parser.add_argument("name", type=str, help="data set")
    add_function(parser, "eat.data.prepare", "prepare", skip=["name"])


def run_prepare(options: dict[str, Any]) -> int:
    """Check a data set. Exit code 1 if something in it needs a decision."""
    from eat.data.prepare import prepare

    report = prepare(**options)
    print(report.summary())
    return 0 if report.ok or options["leave_out"] else FAILED


def add_personalize_arguments(parser: Parser) -> None:
    """Options of ``eat personalize``."""
    parser.add_argument("checkpoint", type=str, help="the general model")
    add_function(parser, "eat.personal.protocol", "personalize", skip=["checkpoint"])


def run_personalize(options: dict[str, Any]) -> int:
    """Adapt a model to each test worker and print both models' correlations."""
    from eat.personal.protocol import personalize

    result = personalize(**options)
    print(result.table())
    print(result.markdown())
    return 0


def add_points_arguments(parser: Parser) -> None:
    """Options of ``eat points``."""
    parser.add_argument("image", type=str, help="a photograph")
    parser.add_argument("--checkpoint", type=str, required=True, help="a run's checkpoint")
    parser.add_argument("--out", type=str, default="points.png", help="PNG to write")


def run_points(options: dict[str, Any]) -> int:
    """Draw where a model looks in a photograph."""
    from eat.checkpoint import load_checkpoint
    from eat.pictures.draw import draw_points

    model, info = load_checkpoint(options["checkpoint"])
    blocks = draw_points(model, info.preprocess, options["image"], options["out"])
    print(f"{options['out']}: {', '.join(blocks)}")
    return 0


def add_sample_arguments(parser: Parser) -> None:
    """Options of ``eat sample``."""
    parser.add_argument("folder", type=str, help="where the data set goes")
    add_function(parser, "eat.sample.make", "make_sample", skip=["folder"])
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        help="raters with tastes of their own, in FLICKR-AES's layout; 0 for none",
    )


def run_sample(options: dict[str, Any]) -> int:
    """Make the sample data set."""
    from eat.sample.make import make_sample, make_workers

    workers = options.pop("workers")
    folder = make_sample(**options)
    print(folder)
    if workers:
        print(make_workers(folder, workers=workers, seed=options["seed"]))
    return 0


def add_best_arguments(parser: Parser) -> None:
    """Options of ``eat best``."""
    parser.add_argument("experiment", type=str, help="nni's id of the search, or its folder")
    add_function(parser, "eat.tuning.results", "best", skip=["experiment"])


def run_best(options: dict[str, Any]) -> int:
    """Name the best trial of a search, and write its config and the table of all trials."""
    from eat.tuning.results import best, chosen

    search, trial, out = best(**options)
    counts = search.trials["status"].value_counts()
    print(f"search {search.id} ({search.name}, {search.platform}): "
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
    """One subcommand: its help, its options, and what it does; returns the exit code."""

    help: str
    add_arguments: Callable[[Parser], None]
    run: Callable[[Any], int]


COMMANDS = {
    "train": Command("train a model (as main_nni.py)", add_train_arguments, run_train),
    "evaluate": Command(
        "metrics of a checkpoint on labelled images", add_evaluate_arguments, run_evaluate
    ),
    "score": Command("scores of photographs", add_score_arguments, run_score),
    "prepare": Command(
        "check a data set before training on it", add_prepare_arguments, run_prepare
    ),
    "personalize": Command(
        "k-shot adaptation to single raters", add_personalize_arguments, run_personalize
    ),
    "best": Command("the best trial of a search, and a table of all", add_best_arguments, run_best),
    "points": Command("picture of where a model looks", add_points_arguments, run_points),
    "sample": Command("make the sample data set", add_sample_arguments, run_sample),
}


def guarded(run: Callable[[], int], prog: str) -> int:
    """Run a command; an error that the user can mend is one message and exit code 2."""
    try:
        code = run()
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever reads, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (ValueError, OSError, TrainingError) as error:
        if is_main() or not isinstance(error, ValueError):  # wrong options are wrong in all
            sys.stderr.write(f"{prog}: error: {error}\n")
        return USAGE
    except Interrupted as stop:
        if is_main():
            sys.stderr.write(f"{prog}: {stop}\n")
        return stop.exit_code
    except KeyboardInterrupt:
        sys.stderr.write(f"{prog}: interrupted\n")
        return 130


def main(argv: Sequence[str] | None = None) -> int:
    """The ``eat`` command; returns its exit code."""
    keep_heap()
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: eat COMMAND ...\n")
        for name, command in COMMANDS.items():
            print(f"  {name:13}{command.help}")
        print("\neat COMMAND --help explains its options.")
        return 0 if argv else USAGE
    if argv[0] not in COMMANDS:
        near = difflib.get_close_matches(argv[0], COMMANDS, n=1) or list(COMMANDS)
        sys.stderr.write(f"eat: error: no command {argv[0]!r}; nearest: {', '.join(near)}\n")
        return USAGE
    name, command = argv[0], COMMANDS[argv[0]]
    parser = Parser(prog=f"eat {name}", allow_abbrev=False, description=command.help)
    command.add_arguments(parser)
    options = parser.parse_args(argv[1:])
    argument = train_config(parser, options) if name == "train" else options.as_dict()
    return guarded(lambda: command.run(argument), f"eat {name}")


if __name__ == "__main__":
    sys.exit(main())
