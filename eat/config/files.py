"""The config files that come with the package."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]


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
    if Path(name).is_file():
        return Path(name)
    shipped = shipped_configs()
    if name not in shipped:
        raise ValueError(
            f"no such file, and no shipped config of that name; there are {', '.join(shipped)}"
        )
    return shipped[name]
