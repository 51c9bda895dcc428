"""The config files that come with the package."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def shipped_configs() -> dict[str, Path]:
    """The shipped files by name, such as ``sample``.

    An installed package has them in ``eat/configs``, a checkout in ``configs`` beside ``eat``.
    """
    installed = PACKAGE / "configs"
    folder = installed if installed.is_dir() else PACKAGE.parent / "configs"
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in sorted(folder.rglob("*.yaml"))
    }


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
