"""Config files: how they are read, and those that come with the package."""

from pathlib import Path
from typing import Any

import yaml

PACKAGE = Path(__file__).parents[1]
MAX_BYTES = 2**20


class _Loader(yaml.SafeLoader):
    """YAML without aliases, which may refer to themselves, and keys that are text, each once."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(None, None, "found an alias", self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            is_text = key.tag == "tag:yaml.org,2002:str"
            if not is_text or key.value in seen:
                fault = "found a key twice" if is_text else "found a key that is no text"
                raise yaml.MarkedYAMLError(None, None, fault, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """Read a YAML file of options as plain values.

    Raises:
        ValueError: naming what is wrong, and its line; not the file.
        OSError: the file cannot be read.
    """
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        raise ValueError(f"no regular file of {MAX_BYTES} bytes at most: expected YAML of options")
    try:
        return yaml.load(path.read_text(), _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(
            f"{place}{error.problem}: expected YAML of options without aliases"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ValueError("not a text file: expected YAML of options") from None
    except RecursionError:
        raise ValueError("nested too deeply: expected groups of options") from None


def read_options(path: Path) -> dict[str, Any]:
    """The options that a run wrote into its folder.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        options = read_yaml(path)
    except ValueError:
        options = None
    if not isinstance(options, dict) or not all(isinstance(g, dict) for g in options.values()):
        raise ValueError(
            f"{path}: damaged: expected the options that the run wrote there; restore the file, or "
            "choose another --run.folder"
        )
    return options


def shipped_configs(folder: str = "") -> dict[str, Path]:
    """The shipped files by name, such as ``sample``; those of runs, or of a ``folder`` of others.

    An installed package has them in ``eat/configs``, a checkout in ``configs`` beside ``eat``.
    """
    installed = PACKAGE / "configs"
    configs = installed if installed.is_dir() else PACKAGE.parent / "configs"
    return {path.stem: path for path in sorted((configs / folder).glob("*.yaml"))}


def find_config(name: str) -> Path:
    """A config file by its path, or else a shipped one by its name.

    Raises:
        ValueError: there is neither; the message lists the shipped names.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_configs()
    if name not in shipped:
        raise ValueError(
            f"{'not a file' if path.exists() else 'no such file'}, and no shipped config of that "
            f"name; there are {', '.join(shipped)}"
        )
    return shipped[name]
