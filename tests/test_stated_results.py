"""Results that documents state: each number of a table marked as a result stands in a CSV.

A mark is a line ``<!-- results/NAME/NAME.csv -->`` before a table. Its rows are named as in the
CSV, and its numbers are those that ``eat reproduce`` makes of the CSV for that row.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from eat.config.files import shipped_configs
from eat.experiments.report import markdown
from eat.experiments.results import Results
from eat.experiments.table import find_experiments

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("README*.md"), *(ROOT / "docs").glob("*.md")]
MARKED = re.compile(r"<!-- (results/[\w/]+\.csv) -->\n((?:\|.*\n)+)")
NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")


def marked_tables() -> Iterator[tuple[str, str, str]]:
    """Document, CSV and text of each table that is marked as a result."""
    for path in DOCUMENTS:
        for csv, table in MARKED.findall(path.read_text(encoding="utf-8")):
            yield path.name, csv, table


def rows(text: str) -> dict[str, list[str]]:
    """Numbers of the rows of a text's tables, by the row's name."""
    found = {}
    for line in [line for line in text.splitlines() if line.startswith("|")][2:]:
        name, _, numbers = line.strip("| ").partition("|")
        found[re.sub(r" \[\d+\]", "", name).strip()] = NUMBER.findall(numbers)
    return found


def made_of(path: Path) -> str:
    """The document that ``eat reproduce`` makes of a CSV, or the table of a benchmark's."""
    if path.stem not in shipped_configs("experiments"):
        measured = pd.read_csv(path, dtype=str).loc[:, :"seed"].iloc[:, :-1]
        return "".join(f"| {' | '.join(row)} |\n" for row in [["-"], ["-"], *measured.to_numpy()])
    (experiment,) = find_experiments(path.stem)
    names = [row.name for row in experiment.rows]
    records = [*Results(path).read().values()]
    records.sort(key=lambda record: (record["seed"], names.index(record["row"])))
    return markdown(experiment, records, "")


def missing(table: str, made: str) -> list[str]:
    """What of a table's rows is not in the tables of a report."""
    reported = rows(made)
    return [
        f"{name}: {number}"
        for name, numbers in rows(table).items()
        for number in numbers
        if number not in reported.get(name, [])
    ]


def test_documents_have_tables_of_results() -> None:
    assert {document for document, *_ in marked_tables()} >= {"backbones.md", "reproduction.md"}


@pytest.mark.parametrize(("document", "csv", "table"), marked_tables(), ids=str)
def test_a_result_that_a_document_states_is_in_its_csv(document: str, csv: str, table: str) -> None:
    assert missing(table, made_of(ROOT / csv)) == []


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*/*.csv")), ids=lambda p: p.stem)
def test_a_report_is_that_of_its_csv(path: Path) -> None:
    text = path.with_suffix(".md").read_text(encoding="utf-8")
    assert rows(text) == rows(made_of(path))


def test_a_number_of_another_row_or_of_none_is_found() -> None:
    made = "| row | SRCC |\n| --- | --- |\n| EAT [1] | 0.90 ± 0.01 |\n| DAT | 0.80 |\n"
    assert missing("| a | SRCC |\n| --- | --- |\n| EAT | 0.90 (0.01) |\n", made) == []
    assert missing("| a | SRCC |\n| --- | --- |\n| EAT | 0.80 |\n", made) == ["EAT: 0.80"]
    assert missing("| a | SRCC |\n| --- | --- |\n| Swin | 0.9 |\n", made) == ["Swin: 0.9"]
