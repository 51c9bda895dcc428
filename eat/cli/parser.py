"""Options from the command line and YAML files, and plain messages about wrong ones."""

import re
import sys
from argparse import SUPPRESS
from dataclasses import fields
from typing import Any, ClassVar, NoReturn

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser

from eat.cli.errors import USAGE, one_message
from eat.config import TrainConfig
from eat.config.files import find_config, read_yaml
from eat.config.legacy import is_legacy, translate
from eat.config.run import EnhanceConfig
from eat.system.processes import is_main
from eat.system.words import nearest

# How jsonargparse words what is wrong with an option, on the command line and in a file.
UNKNOWN_OPTION = re.compile(
    r"arguments: --([\w.-]+)|Group '([\w.]+)' does not accept option '(\w+)'"
    r"|Option '([\w.]+)' is not accepted"
)
WRONG_VALUE = re.compile(r'Parser key "([\w.]+)":.* value: (.*)', re.DOTALL)
EXPECTED = re.compile(r"Expected an? (?:typing\.Literal\[(.*)\]|<class '(\w+)'>)")
KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text",
         "dict": "a mapping", "NoneType": "null",
         "list": "a list such as [a,b]"}  # fmt: skip
NESTED = "model.enhance"  # has options of its own, and null; jsonargparse parses them by themselves
# The field's other names of our options.
SYNONYMS = {
    "learning_rate": "lr",
    "init_lr": "lr",
    "bs": "batch_size",
    "wd": "weight_decay",
    "pretrained": "weights",
    "num_workers": "workers",
    "num_epochs": "epochs",
    "max_epochs": "epochs",
    "img_size": "size",
    "num_classes": "num_outputs",
    "scheduler": "schedule",
    "grad_clip": "clip_norm",
    "amp": "precision",
    "output_dir": "folder",
}


class Parser(ArgumentParser):
    """A parser whose errors are one paragraph, with the nearest valid option."""

    command: ClassVar[str] = ""  # whose options are parsed, also by the parser of NESTED

    def parse_args(self, args: Any = None, *rest: Any, **more: Any) -> Any:
        """Parse; an integer that no float can hold is an error too, which jsonargparse raises."""
        Parser.command = self.prog
        try:
            return super().parse_args(args, *rest, **more)
        except OverflowError:
            named = re.search(r"--[\w.]+(?=[ =]\S*\d{309})", " ".join(args or []))
            found = "found more than 308 digits, expected a number"
            self.error(f"{named[0] if named else 'an option'}: {found}")

    def error(self, message: str, *args: Any, **kwargs: Any) -> NoReturn:
        """Print the message, and what was probably meant, and exit with code 2."""
        text = one_message(self._plain(message)) + self._hint(message)
        if not self.exit_on_error:  # jsonargparse makes the parser of NESTED so
            text = re.sub(r"(?<!\w)--(?=\w)(?!help)", f"--{NESTED}.", text)
            text = text.replace("Option '", f"Option '{NESTED}.")
        sys.stderr.write(f"{Parser.command or self.prog}: error: {text}\n")
        sys.exit(USAGE)

    def format_help(self, *args: Any) -> str:
        """The help, with that of the options of NESTED."""
        text: str = super().format_help(*args)
        if f"{NESTED}.help" not in self._keys():
            return text
        inner = Parser(prog=self.prog, usage=SUPPRESS, add_help=False)
        inner.add_class_arguments(EnhanceConfig, NESTED)
        return f"{text}\n{inner.format_help().lstrip()}"

    def _plain(self, message: str) -> str:
        """A message of jsonargparse's in the words of the command line."""
        wrong = WRONG_VALUE.search(message)
        kinds = EXPECTED.findall(message)
        if wrong and kinds:
            words = [choices.replace("'", "") or KINDS.get(kind, kind) for choices, kind in kinds]
            words = list(dict.fromkeys(", ".join(words).split(", ")))  # a list's are an item's too
            if wrong[1] == NESTED:
                words += ["{} for its defaults", f"options such as --{NESTED}.gate true"]
            expected = re.sub(r", ([^,]*)$", r" or \1", ", ".join(words))
            return f"--{wrong[1]}: found {wrong[2].strip()[:200]!r}, expected {expected}"
        required = message.partition("arguments are required: ")[2].split(", ")
        names = [f"--{name}" if name in self._keys() else name for name in required]
        if required != [""]:
            return f"missing: {', '.join(names)}"
        return re.sub(r'Parser key "([\w.]+)":\s*', r"--\1: ", message.strip())

    def _keys(self) -> list[str]:
        """Names of the options, without their dashes."""
        return [o[2:] for action in self._actions for o in action.option_strings if o[:2] == "--"]

    def _hint(self, message: str) -> str:
        unknown = UNKNOWN_OPTION.search(message)
        if unknown:
            name = ".".join(part for part in unknown.groups() if part).replace("-", "_")
            synonym = SYNONYMS.get(name.rpartition(".")[2])
            same = [key for key in self._keys() if key.rpartition(".")[2] == synonym]
            near = same[0] if same else nearest(name, self._keys())
            if near:
                return f"\nDid you mean --{near}? {Parser.command} --help explains it."
        return f"\n{Parser.command} --help explains every option."


def filled_groups(content: Any) -> dict[str, Any]:
    """A file's options, without groups that are empty.

    Raises:
        ValueError: the file or a group of it is no mapping.
    """
    if not isinstance(content, dict):
        raise ValueError(f"found {str(content)[:200]!r}, expected groups of options, as in data:")
    groups = {group.name for group in fields(TrainConfig)}
    for name in groups.intersection(content):
        if not isinstance(content[name] or {}, dict):
            found = str(content[name])[:200]
            raise ValueError(f"{name}: found {found!r}, expected a group of options")
    return {name: value for name, value in content.items() if value or name not in groups}


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
            content = read_yaml(path) or {}
            options = filled_groups(content)
        except (ValueError, OSError) as error:
            parser.error(f"--config {values:.200}: {error}")
        if not options:
            return
        values = str(path)
        if is_legacy(options):
            if is_main():
                sys.stderr.write(f"{parser.prog}: {path}: options of version 0.1, translated\n")
            options = translate(options)
        if options != content:
            values = yaml.safe_dump(options)
        super().__call__(parser, cfg, values, option_string)
