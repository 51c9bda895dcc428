"""The command line: ``eat COMMAND ...``, and the options of ``main_nni.py``."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from eat.config import DataConfig, FaultConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig
from eat.config.commands import (
    BestOptions,
    EvaluateOptions,
    PersonalizeOptions,
    PointsOptions,
    PrepareOptions,
    SampleOptions,
    ScoreOptions,
)
from eat.config.files import find_config
from eat.config.legacy import is_legacy, translate
from eat.system.heap import keep_heap
from eat.system.processes import from_main, init_distributed, is_main, world_size
from eat.system.stops import Interrupted, TrainingError, exit_with_signal, interruptible
from eat.system.words import nearest
from eat.tuning import trial as tuning
from eat.version import __version__

if TYPE_CHECKING:
    from eat.checkpoint import CheckpointInfo

# How jsonargparse words what is wrong with an option, on the command line and in a file.
UNKNOWN_OPTION = re.compile(
    r"arguments: --([\w.]+)|Group '([\w.]+)' does not accept option '(\w+)'"
    r"|Option '([\w.]+)' is not accepted"
)
WRONG_VALUE = re.compile(r'Parser key "([\w.]+)":.* value: (.*)', re.DOTALL)
EXPECTED = re.compile(r"Expected an? (?:typing\.Literal\[(.*)\]|<class '(\w+)'>)")
KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text",
         "dict": "a mapping", "NoneType": "null"}  # fmt: skip
# The field's other names of our options.
SYNONYMS = {
    "learning_rate": "lr",
    "init_lr": "lr",
    "bs": "batch_size",
    "wd": "weight_decay",
    "pretrained": "weights",
    "num_workers": "workers",
    "num_epochs": "epochs",
}
FAILED, USAGE = 1, 2  # exit codes: some work could not be done, and the call itself was wrong


class Parser(ArgumentParser):
    """A parser whose errors are one paragraph, with the nearest valid option."""

    def error(self, message: str, *args: Any, **kwargs: Any) -> NoReturn:
        """Print the message, and what was probably meant, and exit with code 2."""
        sys.stderr.write(f"{self.prog}: error: {self._plain(message)}{self._hint(message)}\n")
        sys.exit(USAGE)

    def _plain(self, message: str) -> str:
        """A message of jsonargparse's in the words of the command line."""
        wrong = WRONG_VALUE.search(message)
        kinds = EXPECTED.findall(message)
        if wrong and kinds:
            words = [choices.replace("'", "") or KINDS.get(kind, kind) for choices, kind in kinds]
            expected = re.sub(r", ([^,]*)$", r" or \1", ", ".join(words))
            return f"--{wrong[1]}: found {wrong[2].strip()[:200]!r}, expected {expected}"
        required = message.partition("arguments are required: ")[2].split(", ")
        names = [f"--{name}" if name in self._keys() else name for name in required]
        return f"missing: {', '.join(names)}" if required != [""] else message.strip()

    def _keys(self) -> list[str]:
        """Names of the options, without their dashes."""
        return [o[2:] for action in self._actions for o in action.option_strings if o[:2] == "--"]

    def _hint(self, message: str) -> str:
        unknown = UNKNOWN_OPTION.search(message)
        if unknown:
            name = ".".join(part for part in unknown.groups() if part)
            synonym = SYNONYMS.get(name.rpartition(".")[2])
            same = [key for key in self._keys() if key.rpartition(".")[2] == synonym]
            near = same[0] if same else nearest(name, self._keys())
            if near:
                return f"\nDid you mean --{near}? {self.prog} --help explains it."
        return f"\n{self.prog} --help explains every option."


class ConfigFile(ActionConfigFile):
    """``--config``: a YAML file of options, or the name of a shipped one.

    Options of version 0.1 are translated.
    """

    def __call__(
        self, parser: Any, cfg: Any, values: Any, option_string: str | None = None
    ) -> None:
        """Lay the file's options over those before it."""
        try:
            path = find_config(values)
            content = yaml.safe_load(path.read_text())
        except (ValueError, OSError, yaml.YAMLError) as error:
            parser.error(f"--config {values}: {error}")
        values = str(path)
        if isinstance(content, dict) and is_legacy(content):
            if is_main():
                sys.stderr.write(f"{parser.prog}: {path}: options of version 0.1, translated\n")
            values = yaml.safe_dump(translate(content))
        super().__call__(parser, cfg, values, option_string)


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
    """Parsed options as a TrainConfig, with settings that fit the signature of EAT."""
    made = parser.instantiate_classes(options)
    config = TrainConfig(made.data, made.model, made.optim, made.run, made.faults)
    if config.model.settings:
        from eat.models import EAT

        settings = Parser(prog=parser.prog)
        settings.add_class_arguments(EAT, "model.settings", skip={"num_outputs", "img_size"})
        found = settings.parse_object({"model": {"settings": config.model.settings}})
        typed = found.model.settings.as_dict()
        config.model.settings = {name: typed[name] for name in config.model.settings}
    return config


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


def train_main(argv: Sequence[str] | None = None, prog: str = "main_nni.py") -> int:
    """Train, alone or as a trial of nni: the way of ``main_nni.py`` and of ``eat train``.

    Returns:
        The exit code; a run that a signal has stopped ends by that signal instead.
    """
    tuning.end_with_parent()
    keep_heap()
    if world_size() > 1:
        init_distributed(cpu=parse_train(argv, prog=prog).run.device == "cpu")
    config = parse_train(argv, from_main(tuning.parameters), prog)
    if tuning.in_experiment():  # a trial that nni starts again continues
        config.run.folder, config.run.resume = tuning.trial_folder(), "auto"
    code = guarded(lambda: run_train(config), prog)
    exit_with_signal(code)
    return code


def run_train(config: TrainConfig) -> int:
    """Train, report to nni where there is one, and print where the results are."""
    from eat.pictures.curves import draw_curves, draw_predictions
    from eat.training.trainer import train

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


def run_evaluate(checkpoint: str | None, options: EvaluateOptions) -> int:
    """Evaluate a checkpoint: metrics on screen, as JSON, CSV and Markdown, and predictions."""
    from eat.evaluation.evaluate import evaluate_checkpoint

    evaluation = evaluate_checkpoint(checkpoint, options)
    folder = Path(evaluation.checkpoint).parent
    beside = (folder.parent if folder.name == "checkpoints" else Path()) / "eval"
    print(evaluation.table())
    print(*evaluation.write(options.out or beside, options.predictions), sep="\n")
    return 0


def run_score(images: list[str], options: ScoreOptions) -> int:
    """Score photographs. Exit code 1 if some could not be scored."""
    from eat.scoring import Score, Scorer, score_lines

    given = asdict(options)
    form, out = given.pop("format"), given.pop("out")
    scorer = Scorer(**given)
    announce(scorer.info)
    failed: list[Score] = []

    def watched() -> Iterator[Score]:
        for score in interruptible(scorer(images)):
            if score.error:
                failed.append(score)
            yield score

    write_lines(score_lines(watched(), scorer.num_votes, form), out)
    for score in failed:
        sys.stderr.write(f"eat score: not scored: {score.error}\n")
    return FAILED if failed else 0


def announce(info: "CheckpointInfo") -> None:
    """Say of one of the authors' models how it is run."""
    if info.released:
        sys.stderr.write(
            f"the authors' {info.title} model: its own preprocessing, each image's own interest "
            "points\n"
        )


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


def run_prepare(name: str, options: PrepareOptions) -> int:
    """Check a data set. Exit code 1 if something in it needs a decision."""
    from eat.data.prepare import prepare

    report = prepare(name, options)
    print(report.summary())
    return 0 if report.ok or options.leave_out else FAILED


def run_personalize(checkpoint: str, options: PersonalizeOptions) -> int:
    """Adapt a model to each test worker and print both models' correlations."""
    from eat.personal.protocol import personalize

    result = personalize(checkpoint, options)
    print(result.table())
    print(result.markdown())
    return 0


def run_points(image: str, options: PointsOptions) -> int:
    """Draw where a model looks in a photograph."""
    from eat.checkpoint import load_checkpoint
    from eat.pictures.points import draw_points

    model, info = load_checkpoint(options.checkpoint)
    announce(info)
    blocks = draw_points(model, info, image, options.out)
    print(f"{options.out}: {', '.join(blocks)}")
    return 0


def run_sample(folder: str, options: SampleOptions) -> int:
    """Make the sample data set."""
    from eat.sample.make import make_sample, make_workers

    given = asdict(options)
    workers = given.pop("workers")
    made = make_sample(folder, **given)
    print(made)
    if workers:
        print(make_workers(made, workers=workers, seed=options.seed))
    return 0


def run_best(experiment: str, options: BestOptions) -> int:
    """Name the best trial of a search, and write its config and the table of all trials."""
    from eat.tuning.results import best, chosen

    search, trial, out = best(experiment, options)
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
class Positional:
    """An argument without a name; ``nargs`` as in argparse."""

    name: str
    help: str
    nargs: str | None = None


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        help: one line.
        positional: its argument without a name.
        options: dataclass of the others.
        run: takes the positional argument and the options; returns the exit code.
    """

    help: str
    positional: Positional
    options: type
    run: Callable[[Any, Any], int]


TRAIN = "train a model (as main_nni.py)"
COMMANDS = {
    "evaluate": Command(
        "metrics of a checkpoint on labelled images",
        Positional("checkpoint", "a run's checkpoint, or one of the authors' .pth files", "?"),
        EvaluateOptions,
        run_evaluate,
    ),
    "score": Command(
        "scores of photographs",
        Positional("images", "files, folders or glob patterns", "+"),
        ScoreOptions,
        run_score,
    ),
    "prepare": Command(
        "check a data set before training on it",
        Positional("name", "data set"),
        PrepareOptions,
        run_prepare,
    ),
    "personalize": Command(
        "k-shot adaptation to single raters",
        Positional("checkpoint", "the general model"),
        PersonalizeOptions,
        run_personalize,
    ),
    "best": Command(
        "the best trial of a search, and a table of all",
        Positional("experiment", "nni's id of the search, or its folder"),
        BestOptions,
        run_best,
    ),
    "points": Command(
        "picture of where a model looks",
        Positional("image", "a photograph"),
        PointsOptions,
        run_points,
    ),
    "sample": Command(
        "make the sample data set",
        Positional("folder", "where the data set goes"),
        SampleOptions,
        run_sample,
    ),
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
    name, *rest = list(sys.argv[1:] if argv is None else argv) or [""]
    helps = {"train": TRAIN} | {key: command.help for key, command in COMMANDS.items()}
    if name in ("", "-h", "--help"):
        print("usage: eat COMMAND ...\n")
        for key, text in helps.items():
            print(f"  {key:13}{text}")
        print("\neat COMMAND --help explains its options; eat --version tells the version.")
        return 0 if name else USAGE
    if name == "--version":
        print(f"eat {__version__}")
        return 0
    if name not in helps:
        near = nearest(name, helps) or ", ".join(helps)
        sys.stderr.write(f"eat: error: no command {name!r}; nearest: {near}\n")
        return USAGE
    prog = f"eat {name}"
    if name == "train":
        return train_main(rest, prog)
    command = COMMANDS[name]
    positional, options = parse(prog, command, rest)
    return guarded(lambda: command.run(positional, options), prog)


def parse(prog: str, command: Command, argv: Sequence[str]) -> tuple[Any, Any]:
    """Read a command's line.

    Returns:
        The positional argument and the options.

    Raises:
        SystemExit: with code 2 and a message, if an option is unknown or ill-typed.
    """
    parser = Parser(prog=prog, allow_abbrev=False, description=command.help)
    word = command.positional
    given: dict[str, Any] = {"nargs": word.nargs} if word.nargs else {}
    kind = str | None if word.nargs == "?" else str
    parser.add_argument(word.name, type=kind, help=word.help, **given)
    parser.add_class_arguments(command.options)
    found = parser.parse_args(list(argv))
    options = {field.name: found[field.name] for field in fields(command.options)}
    return found[word.name], command.options(**options)


if __name__ == "__main__":
    sys.exit(main())
