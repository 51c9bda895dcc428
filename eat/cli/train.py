"""``eat train`` and ``main_nni.py``: one training run, alone or as a trial of nni."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from jsonargparse import Namespace

from eat.cli.errors import guarded
from eat.cli.parser import ConfigFile, Parser
from eat.config import DataConfig, FaultConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig
from eat.system.heap import keep_heap
from eat.system.processes import from_main, init_distributed, is_main, world_size
from eat.system.stops import exit_with_signal
from eat.tuning import trial as tuning


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
