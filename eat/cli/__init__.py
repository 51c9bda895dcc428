"""The command line: ``eat COMMAND ...``. The only room that parses arguments.

``main`` picks the command. ``train`` is what ``main_nni.py`` calls too, ``search`` and
``reproduce`` take a run's options beside their own, ``commands`` has a row for each other command,
``photographs`` what those do that take photographs, ``process`` what is set before PyTorch is
imported, and ``parser`` words what is wrong with an option. Nothing imports this room.
"""

import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from eat.cli.commands import COMMANDS, Command
from eat.cli.errors import USAGE, guarded, one_message
from eat.cli.parser import Parser
from eat.cli.process import prepare_process
from eat.cli.reproduce import reproduce_main
from eat.cli.search import search_main
from eat.cli.train import parse_train, train_main
from eat.system.words import nearest
from eat.version import __version__

__all__ = ["COMMANDS", "main", "parse_train", "train_main"]


def main(argv: Sequence[str] | None = None) -> int:
    """The ``eat`` command; returns its exit code."""
    prepare_process()
    name, *rest = list(sys.argv[1:] if argv is None else argv) or [""]
    helps = {
        "train": "train a model, as main_nni.py does",
        "search": "a search over options of a run, by Optuna or nni",
        "reproduce": "a table or figure of the paper, as rows of training runs",
    } | {key: command.help for key, command in COMMANDS.items()}
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
        sys.stderr.write(one_message(f"eat: error: no command {name!r}; nearest: {near}\n"))
        return USAGE
    prog = f"eat {name}"
    if name == "train":
        return train_main(rest, prog)
    if name == "search":
        return search_main(rest, prog)
    if name == "reproduce":
        return reproduce_main(rest, prog)
    command = COMMANDS[name]
    positional, options = parse(prog, command, rest)
    return guarded(lambda: command.run(positional, options), prog)


def parse(prog: str, command: Command, argv: Sequence[str]) -> tuple[Any, Any]:
    """Read a command's line: the positional argument and the options.

    Raises:
        SystemExit: with code 2 and a message, if an option is unknown or ill-typed.
    """
    parser = Parser(prog=prog, allow_abbrev=False, description=command.help)
    name, about = command.positional or ("", "")
    given: dict[str, Any] = {"nargs": command.nargs} if command.nargs else {}
    kind = str | None if command.nargs == "?" else str
    if name:
        parser.add_argument(name, type=kind, help=about, **given)
    parser.add_class_arguments(command.options)
    if name == "checkpoint":  # every command takes a model by this option
        argv = [word.removeprefix("--checkpoint=") for word in argv if word != "--checkpoint"]
    found = parser.parse_args(list(argv))
    options = {field.name: found[field.name] for field in fields(command.options)}
    return found.get(name), command.options(**options)
