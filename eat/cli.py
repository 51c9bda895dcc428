"""The command line: ``eat train | evaluate | score | points | sample``."""

import difflib
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from jsonargparse import ArgumentParser, Namespace

from eat.config import DataConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig

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


def add_train_arguments(parser: Parser) -> None:
    """The options of a training run: a YAML file, and every field of TrainConfig by dotted name."""
    parser.add_argument("--config", action="config", help="YAML file of options; later ones win.")
    parser.add_class_arguments(DataConfig, "data")
    parser.add_class_arguments(ModelConfig, "model")
    parser.add_class_arguments(OptimConfig, "optim")
    parser.add_class_arguments(RunConfig, "run")


def train_config(parser: Parser, options: Namespace) -> TrainConfig:
    """Parsed options as a TrainConfig."""
    made = parser.instantiate_classes(options)
    return TrainConfig(data=made.data, model=made.model, optim=made.optim, run=made.run)


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
    from eat import tuning
    from eat.pictures import draw_curves, draw_predictions
    from eat.trainer import train

    config.run.folder = config.run.folder or tuning.trial_folder()

    def report(metrics: dict[str, float], final: bool) -> None:
        tuning.report(metrics, config.run.metric, final=final)

    folder, metrics = train(config, report)
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


def add_device_arguments(parser: Parser) -> None:
    """Where and in what precision a model runs."""
    parser.add_argument(
        "--device",
        type=str,
        choices=["auto", "cpu"],
        default="auto",
        help="a GPU if there is one (auto), or the CPU",
    )
    parser.add_argument(
        "--precision",
        type=str,
        choices=["fp32", "bf16", "fp16"],
        default="fp32",
        help="of the forward pass",
    )


def add_evaluate_arguments(parser: Parser) -> None:
    """Options of ``eat evaluate``."""
    add = parser.add_argument
    add("checkpoint", type=str, help="a run's checkpoint, or a file of the authors'")
    add(
        "--released",
        type=bool,
        default=False,
        nargs="?",
        const=True,
        help="the file is one of the two that the authors published",
    )
    add("--name", type=str | None, help="data set of the labels; default: the one trained on")
    add("--labels", type=str | None, help="label file or folder; default: the run's")
    add("--images", type=str | None, help="image folder; default: the run's")
    add("--test", type=str | None, help="label file or id list of the test split")
    add("--split", type=str, choices=["train", "val", "test"], default="test", help="which split")
    add(
        "--missing",
        type=Literal["error", "leave_out"] | None,
        help="what to do about labels without an image; default: as in the run",
    )
    add(
        "--slice_by",
        type=list[str] | None,
        help="label columns to report by, as [theme] or [tag,challenge]",
    )
    add(
        "--trained_on",
        type=str | None,
        help="labels of the training images, if the checkpoint does not list them",
    )
    add(
        "--own_points",
        type=bool,
        default=False,
        nargs="?",
        const=True,
        help="each image's own interest points, where the model averages them over the batch",
    )
    add("--samples", type=int, default=1000, help="bootstrap draws for the intervals; 0 for none")
    add("--batch_size", type=int, default=16, help="images a forward pass")
    add("--workers", type=int, default=2, help="processes that load images")
    add(
        "--predictions",
        type=str,
        choices=["csv", "parquet"],
        default="csv",
        help="format of the predictions",
    )
    add(
        "--out",
        type=str | None,
        help="folder for the results; default: eval, beside the run's checkpoints",
    )
    add_device_arguments(parser)


def run_evaluate(options: dict[str, Any]) -> int:
    """Evaluate a checkpoint: metrics on screen, as JSON, CSV and Markdown, and predictions."""
    from pathlib import Path

    from eat.evaluate import evaluate_checkpoint

    checkpoint = Path(options["checkpoint"])
    beside = Path("eval") if options["released"] else checkpoint.parent.parent / "eval"
    out, form = options.pop("out") or beside, options.pop("predictions")
    evaluation = evaluate_checkpoint(**options)
    print(evaluation.table())
    print(*evaluation.write(out, form), sep="\n")
    return 0


def add_score_arguments(parser: Parser) -> None:
    """Options of ``eat score``."""
    parser.add_argument("images", type=str, nargs="+", help="files, folders or glob patterns")
    parser.add_argument("--checkpoint", type=str, required=True, help="a run's checkpoint")
    parser.add_argument(
        "--format",
        type=str,
        choices=["csv", "jsonl"],
        default="csv",
        help="CSV, or one JSON object a line",
    )
    parser.add_argument(
        "--out", type=str | None, default=None, help="file to write; default: the terminal"
    )
    add_device_arguments(parser)


def run_score(options: dict[str, Any]) -> int:
    """Score photographs. Exit code 1 if some could not be read."""
    from eat.score import Score, Scorer, as_csv, as_json_lines

    scorer = Scorer(options["checkpoint"], device=options["device"], precision=options["precision"])
    failed: list[Score] = []

    def watched() -> Any:
        for score in scorer(options["images"]):
            if score.error:
                failed.append(score)
            yield score

    votes = scorer.model.num_outputs
    make: Callable = as_json_lines
    if options["format"] == "csv":

        def make(scores: Any) -> Any:
            return as_csv(scores, votes if votes > 1 else 0)

    write_lines(make(watched()), options["out"])
    for score in failed:
        sys.stderr.write(f"eat score: not scored: {score.error}\n")
    return FAILED if failed else 0


def write_lines(lines: Any, path: str | None) -> None:
    """Print lines as they come, or write them to a file that appears when it is complete."""
    if path is None:
        for line in lines:
            print(line, flush=True)
        return
    from eat.files import write_atomically

    write_atomically(path, "".join(f"{line}\n" for line in lines).encode())


def add_points_arguments(parser: Parser) -> None:
    """Options of ``eat points``."""
    parser.add_argument("image", type=str, help="a photograph")
    parser.add_argument("--checkpoint", type=str, required=True, help="a run's checkpoint")
    parser.add_argument("--out", type=str, default="points.png", help="PNG to write")


def run_points(options: dict[str, Any]) -> int:
    """Draw where a model looks in a photograph."""
    from eat.checkpoint import load_checkpoint
    from eat.pictures import draw_points

    model, info = load_checkpoint(options["checkpoint"])
    blocks = draw_points(model, info.preprocess, options["image"], options["out"])
    print(f"{options['out']}: {', '.join(blocks)}")
    return 0


def add_sample_arguments(parser: Parser) -> None:
    """Options of ``eat sample``."""
    parser.add_argument("folder", type=str, help="where the data set goes")
    parser.add_argument("--train", type=int, default=1600, help="training images")
    parser.add_argument("--test", type=int, default=400, help="test images")
    parser.add_argument("--size", type=int, default=160, help="longer side in pixels")
    parser.add_argument("--seed", type=int, default=0, help="of the scenes and votes")
    parser.add_argument(
        "--overwrite", type=bool, default=False, help="replace a sample with other settings"
    )


def run_sample(options: dict[str, Any]) -> int:
    """Make the sample data set."""
    from eat.data.sample import make_sample

    print(make_sample(options.pop("folder"), **options))
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
    "points": Command("picture of where a model looks", add_points_arguments, run_points),
    "sample": Command("make the sample data set", add_sample_arguments, run_sample),
}


def guarded(run: Callable[[], int], prog: str) -> int:
    """Run a command; an error that the user can mend is one message and exit code 2."""
    from eat.trainer import TrainingError

    try:
        return run()
    except (ValueError, OSError, TrainingError) as error:
        sys.stderr.write(f"{prog}: error: {error}\n")
        return USAGE
    except KeyboardInterrupt:
        sys.stderr.write(f"{prog}: interrupted\n")
        return 130


def main(argv: Sequence[str] | None = None) -> int:
    """The ``eat`` command; returns its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: eat COMMAND ...\n")
        for name, command in COMMANDS.items():
            print(f"  {name:10}{command.help}")
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
