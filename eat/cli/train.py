"""``eat train`` and ``main_nni.py``: one training run, alone or as a trial of nni."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from eat.cli.errors import guarded
from eat.cli.parser import ConfigFile, Parser
from eat.cli.process import prepare_process
from eat.config import TrainConfig
from eat.config.run import LOSSES, METRICS, metric_prefixes
from eat.system.plugins import is_path
from eat.system.processes import distributed, from_main, is_main, world_size
from eat.system.stops import exit_with_signal
from eat.tuning import trial as tuning


def typed_settings(config: TrainConfig, prog: str) -> dict[str, Any]:
    """``model.settings`` with the types of the signature of the model's family."""
    from eat.models.timm_backbone import TimmModel
    from eat.models.variants import find_variant
    from eat.training.setup import resolve_model

    settings, parser = config.model.settings, Parser(prog=prog)
    name = str(resolve_model(config).model.name)
    family = find_variant(name).family
    if is_path(name) or family is TimmModel:
        return settings  # its function checks them
    parser.add_class_arguments(family, "model.settings", skip={"num_outputs", "img_size"})
    typed = parser.parse_object({"model": {"settings": settings}}).model.settings.as_dict()
    return {name: typed[name] for name in settings}


def run_parser(prog: str, about: str) -> Parser:
    """A parser of the options of a training run, in a YAML file or with dotted names."""
    parser = Parser(prog=prog, allow_abbrev=False, description=about)
    parser.add_argument(
        "--config",
        action=ConfigFile,
        help="YAML file of options, or the name of a shipped one, such as sample; later ones win.",
    )
    for group in fields(TrainConfig):
        parser.add_class_arguments(group.type, group.name)
    return parser


def as_options(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Dotted names and values as options of the command line and what follows them."""
    return {
        f"--{name}": value if isinstance(value, str) else json.dumps(value)
        for name, value in parameters.items()
    }


def parse_train(
    argv: Sequence[str] | None,
    parameters: Mapping[str, Any] | None = None,
    prog: str = "main_nni.py",
) -> TrainConfig:
    """Read a training run's options.

    Args:
        argv: the command line; None takes the process's.
        parameters: dotted option names and values that win over it, from a search.
        prog: the command's name in messages.

    Raises:
        SystemExit: with code 2 and a message, if an option is unknown or ill-typed.
    """
    parser = run_parser(prog, "Train a model. Options may stand in a YAML file.")
    argv = list(sys.argv[1:] if argv is None else argv)
    argv += [f"{option}={value}" for option, value in as_options(parameters or {}).items()]
    made = parser.instantiate_classes(parser.parse_args(argv))
    config = TrainConfig(**{group.name: made[group.name] for group in fields(TrainConfig)})
    loss = config.optim.loss
    if loss not in (None, *LOSSES) and not is_path(loss):
        known = ", ".join(LOSSES)
        parser.error(f"--optim.loss: found {loss!r}, expected {known}, FILE.py:FUNCTION or null")
    if config.model.settings:
        config.model.settings = typed_settings(config, prog)
    return config


def train_main(argv: Sequence[str] | None = None, prog: str = "main_nni.py") -> int:
    """Train, alone or as a trial of nni, and return the exit code.

    A run that a signal has stopped ends by that signal instead.
    """
    tuning.end_with_parent()
    prepare_process()

    def run() -> int:
        several = world_size() > 1
        with distributed(cpu=several and parse_train(argv, prog=prog).run.device == "cpu"):
            config = parse_train(argv, from_main(tuning.parameters), prog)
            if tuning.in_experiment():  # a trial that nni starts again continues
                config.run.folder, config.run.resume = tuning.trial_folder(), "auto"
            return run_train(config)

    code = guarded(run, prog)
    exit_with_signal(code)
    return code


def run_train(config: TrainConfig) -> int:
    """Train, report to nni where there is one, and print where the results are."""
    from eat.pictures.curves import draw_curves, draw_predictions
    from eat.pictures.points import animate, draw_points
    from eat.training.trainer import train

    def report(metrics: dict[str, float], final: bool) -> None:
        tuning.report(metrics, config.run.metric, final=final)

    folder, metrics = train(config, report, draw_points)
    if not is_main():
        return 0
    import pandas as pd

    if (folder / "metrics.jsonl").read_text():  # of a finished run, it may be lost
        draw_curves(folder, folder / "curves.png")
        print(f"curves       {folder / 'curves.png'}, or tensorboard --logdir {folder / 'curves'}")
    film = folder / "points.gif"
    animate(folder / "points", film)
    if film.exists():
        print(f"points       {film}")
    draw_predictions(pd.read_csv(folder / "predictions.csv"), folder / "predictions.png")
    for target, prefix in metric_prefixes(config.data.targets or [""]).items():
        srcc, plcc, accuracy = (metrics[prefix + name] for name in METRICS)
        print(f"SRCC {srcc:.4f}  PLCC {plcc:.4f}  accuracy {accuracy:.4f}  {target}".rstrip())
    print(f"checkpoint   {folder / 'checkpoints' / 'best.safetensors'}")
    print(f"predictions  {folder / 'predictions.csv'}, {folder / 'predictions.png'}")
    return 0
