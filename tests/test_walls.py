"""Who may import whom."""

import ast
from pathlib import Path

import pytest

EAT = Path(__file__).parents[1] / "eat"


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at its top or within functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def outside(paths: list[Path], allowed: tuple[str, ...]) -> list[str]:
    """Imports of ours that are not of the allowed rooms."""
    return [
        f"{path.relative_to(EAT)} imports {name}"
        for path in paths
        for name in sorted(imports(path))
        if name.startswith("eat.") and not name.startswith(allowed)
    ]


@pytest.mark.parametrize("room", ["models", "data"])
def test_models_and_data_know_only_themselves(room: str) -> None:
    files = list((EAT / room).rglob("*.py"))
    assert files
    assert outside(files, (f"eat.{room}", "eat.config", "eat.system")) == []


def test_losses_metrics_and_options_know_nothing_of_ours() -> None:
    assert (
        outside(
            [EAT / f for f in ("training/losses.py", "evaluation/metrics.py", "config/run.py")], ()
        )
        == []
    )


def test_only_tuning_knows_nni() -> None:
    users = {path.name for path in EAT.rglob("*.py") if "nni" in imports(path)}
    assert users == {"trial.py"}


def test_only_the_command_line_parses_arguments() -> None:
    parsers = {"argparse", "jsonargparse"}
    users = {path.name for path in EAT.rglob("*.py") if parsers & imports(path)}
    assert users == {"cli.py"}


def test_nothing_imports_the_command_line_or_the_trainer_from_below() -> None:
    above = {"cli.py", "__main__.py"}
    for path in EAT.rglob("*.py"):
        if path.name not in above:
            assert not {"eat.cli", "eat.training.trainer"} & imports(path), path
