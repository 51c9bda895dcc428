"""Finished workers on disk: what is taken up again, and what is refused."""

import json
from pathlib import Path

import pytest

from eat.personal.journal import Journal
from eat.personal.report import WorkerResult

SETTINGS = {"shots": 4, "repeats": 2}
RESULT = WorkerResult("W1", 9, [0.5, float("nan")], [1.0, -1.0])
LINE = json.dumps(
    {"worker": "W1", "images": 9, "personalised": [0.5, None], "general": [1.0, -1.0]}
)


def test_results_come_back_without_a_torn_line(tmp_path: Path) -> None:
    Journal(str(tmp_path), SETTINGS).add(RESULT)
    path = tmp_path / "workers.jsonl"
    assert path.read_text() == LINE + "\n"
    with path.open("a") as file:
        file.write(LINE[:30])
    assert repr(Journal(str(tmp_path), SETTINGS).done) == repr({"W1": RESULT})
    assert path.read_text() == LINE + "\n"


@pytest.mark.parametrize(
    "line",
    [
        "xx",
        "null",
        "\xff",
        "[" * 100_000,
        "9" * 5000,
        '{"worker": "W1"}',
        LINE.replace("9", '"9"'),
        LINE.replace("0.5", '"a"'),
        LINE.replace("0.5", "1.5"),
        LINE.replace("0.5", "1" + "0" * 400),
        LINE.replace("0.5, ", ""),
        LINE.replace('"W1"', "[]"),
    ],
    ids=lambda line: line[:20],
)
def test_a_damaged_journal_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "workers.jsonl").write_text(f"{LINE}\n{line}\n", encoding="latin-1")
    with pytest.raises(ValueError, match="workers.jsonl, line 2: damaged .*remove the line"):
        Journal(str(tmp_path), SETTINGS)


@pytest.mark.parametrize("content", ["{", "[]", "null", "\xff", "[" * 100_000])
def test_damaged_settings_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "settings.json").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match="settings.json: damaged .*another --out"):
        Journal(str(tmp_path), SETTINGS)
