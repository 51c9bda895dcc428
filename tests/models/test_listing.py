"""The list of named models: names, records, and what is published of them."""

import csv
import io
import json

import pytest

import eat
from eat.cli import main
from eat.config.files import shipped_configs
from eat.evaluation.released import RELEASED
from eat.experiments.table import read_experiment
from eat.models.published import CHECKPOINT
from eat.models.variants import LICENCES, VARIANTS

# The rows of the experiments that stand for a model, by the tables' names.
ROWS = {
    "table1": {"EAT, 224 pixels": "eat_base", "Swin": "swin_base", "DAT": "dat_base"},
    "table2": {"EAT": "eat_base", "Swin": "swin_base", "DAT": "dat_base"},
    "table8": {"PSViT": "psvit_b", "PSViT with EAM": "psvit_b_eam"},
}


def test_names_are_found_by_a_part_or_a_pattern() -> None:
    assert eat.list_models() == list(VARIANTS)
    assert eat.list_models("SWIN") == ["swin_tiny", "swin_small", "swin_base"]
    assert eat.list_models("*_b") == ["psvit_b"]
    assert eat.list_models("eat_?ano") == ["eat_nano"]
    assert eat.list_models("nothing") == []


def test_every_row_says_what_it_is_and_under_which_licence() -> None:
    for name, row in VARIANTS.items():
        assert row.about and row.about.isprintable() and row.paper in LICENCES, name
    assert len({row.about for row in VARIANTS.values()}) == len(VARIANTS)


def test_published_results_are_those_of_the_papers_tables() -> None:
    for table, rows in ROWS.items():
        experiment = read_experiment(shipped_configs("experiments")[table])
        where = f"EAT, {experiment.where}"
        printed = {row.name: row.published for row in experiment.rows}
        for row, name in rows.items():
            (found,) = (result for result in VARIANTS[name].published if result.where == where)
            assert (found.srcc, found.plcc) == (printed[row].srcc, printed[row].plcc), name


def test_published_results_of_checkpoints_are_those_that_an_evaluation_shows() -> None:
    for (name, data), facts in RELEASED.items():
        results = [r for r in VARIANTS[name].published if r.where == CHECKPOINT]
        (found,) = (result for result in results if result.data.lower() == data)
        for metric in facts.metrics.keys() & {"srcc", "plcc", "accuracy"}:
            assert getattr(found, metric) == facts.metrics[metric]


def test_models_are_listed_in_words_and_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "psvit_b"]) == 0
    told = capsys.readouterr().out
    assert "psvit_b_eam" in told and "21.29 M parameters with 10 outputs, 224 x 224 pixels" in told
    assert "Transformer with Progressive Sampling, ICCV 2021; MIT" in told
    assert "AVA: SRCC 0.701, PLCC 0.645 (EAT, Table 8)" in told
    assert "timm/NAME" in told and "FILE.py:FUNCTION" in told
    assert main(["models", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["name"] for row in rows] == list(VARIANTS)
    assert rows[0]["mean"] == "0.485; 0.456; 0.406"
    assert main(["models", "det_*", "--format", "json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [(r["name"], r["outputs"]) for r in records] == [("det_icaa17k", 2), ("det_spaq", 1)]
    assert records[0]["settings"]["gate_points"] is True
    assert main(["models", "psvt_b"]) == 2
    assert "no model matches 'psvt_b'; did you mean 'psvit_b'?" in capsys.readouterr().err
