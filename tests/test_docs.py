"""The documents: links, files, commands and options that they name are there."""

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from eat.cli import main
from eat.config.run import EnhanceConfig

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
CURRENT = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]  # it names what is gone
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")
FILE = re.compile(r"`((?:eat|configs|scripts|tests|docs)/[\w/.-]+\.(?:py|sh|yaml|md))`")
CALL = re.compile(r"^\$ (?:eat (\w+)|(?:python|torchrun) .*main_nni\.py) (.*)")
RUN_OPTION = re.compile(r"--((?:data|model|optim|run|faults)\.\w+)")


def calls(text: str) -> Iterator[tuple[str, list[str]]]:
    """Commands of ours that a document shows after a prompt, and the options that they get."""
    for line in text.replace("\\\n", " ").splitlines():
        if found := CALL.match(line):
            given = re.split(r"[|#]", found[2])[0]
            yield found[1] or "train", re.findall(r"(?:^| )--([\w.]+)", given)


def options(command: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """Every option in a command's help."""
    with pytest.raises(SystemExit):
        main([command, "--help"])
    return set(re.findall(r"--([\w.]+)", capsys.readouterr().out))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_every_link_leads_to_a_file(path: Path) -> None:
    links = LINK.findall(path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", CURRENT, ids=lambda p: p.name)
def test_every_file_that_a_document_names_is_there(path: Path) -> None:
    named = set(FILE.findall(path.read_text(encoding="utf-8")))
    assert {name for name in named if not (ROOT / name).is_file()} == set()


@pytest.mark.parametrize("path", CURRENT, ids=lambda p: p.name)
def test_every_option_that_a_document_gives_exists(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = path.read_text(encoding="utf-8")
    given = [*calls(text), ("train", RUN_OPTION.findall(text))]
    inner = {f"model.enhance.{field.name}" for field in fields(EnhanceConfig)}
    known = {command: options(command, capsys) | inner for command in dict(given)}
    unknown = {
        (command, name)
        for command, names in given
        for name in names
        if name not in known[command] and not name.startswith("model.settings.")
    }
    assert unknown == set()


def test_calls_are_found_with_their_options() -> None:
    text = "$ eat score a.jpg --out x \\\n    --checkpoint y | head --lines 2\n$ ls --all"
    assert list(calls(text)) == [("score", ["out", "checkpoint"])]


def test_the_readme_has_under_200_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 200
