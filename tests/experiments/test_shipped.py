"""Experiments as files: every shipped one can be built, and says what the paper prints."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch

from eat.cli.reproduce import configure
from eat.config import ModelConfig, TrainConfig
from eat.config.commands import ReproduceOptions
from eat.config.files import shipped_configs
from eat.experiments.table import Experiment, Row, configs_of, find_experiments, read_experiment
from eat.models import create_model

SHIPPED = {experiment.name: experiment for experiment in find_experiments("all")}
SAMPLE = {"--data.name": "sample"}


def configs(experiment: Experiment, given: dict[str, str]) -> dict[str, TrainConfig]:
    """The options of each row's run, by the row's name."""
    return parsed(experiment.name, json.dumps(given))


@cache  # reading options takes a tenth of a second
def parsed(name: str, given: str) -> dict[str, TrainConfig]:
    made = configure(SHIPPED[name], ReproduceOptions(), json.loads(given), "eat reproduce")
    return {row.name: config for row, config in configs_of(SHIPPED[name], made)}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_row_builds_its_model(name: str) -> None:
    rows = {row.name: row for row in SHIPPED[name].rows}
    for row, config in configs(SHIPPED[name], SAMPLE).items():
        model, size, other = config.model, config.data.size, rows[row].model
        assert model.name == ("eat_nano" if other is None else other[1])
        with torch.device("meta"):
            create_model(model.name, 1, size, **model.settings)


def test_a_file_says_its_command_and_rows_have_published_numbers() -> None:
    for name, path in shipped_configs("experiments").items():
        assert path.read_text().startswith(f"# eat reproduce {name} --data.labels ")
    for name in ("table3", "table6", "table7"):
        assert all(row.published.personal and row.shots for row in SHIPPED[name].rows)
    assert len(SHIPPED["table4"].rows) == 12 and len(SHIPPED["table5"].rows) == 5
    for name in ("table1", "table2", "table4", "table5"):
        rows = [row for row in SHIPPED[name].rows if row.name != "TANet"]  # has no FLOPs there
        assert all(row.published.srcc and row.published.gflops for row in rows)


def test_the_same_model_is_the_same_run_in_every_table() -> None:
    found = {name: configs(SHIPPED[name], SAMPLE) for name in SHIPPED if name != "table2"}
    full = found["table5"]["full model"]
    assert full.model == ModelConfig(name="eat_nano")
    assert found["table1"]["EAT, 224 pixels"] == found["table4"]["SSEE"] == full
    assert found["figure8"]["k_in = 3"] == found["table8"]["DAT with EAT blocks"] == full
    assert found["table3"]["10-shot, 224 pixels"] == found["table6"]["100-shot"]
    assert (
        found["table3"]["10-shot, 224 pixels"].model
        == configs(SHIPPED["table2"], SAMPLE)["EAT"].model
    )
    assert found["table1"]["DAT"] == found["table8"]["DAT"] != found["table4"]["DDDD"]


def test_rows_take_their_proportions_from_the_base_model() -> None:
    paper, sample = (configs(SHIPPED["table1"], given) for given in ({}, SAMPLE))
    assert [config.data.size for config in paper.values()] == [None, None, None, 512, 640, None]
    assert sample["EAT, 640 pixels"].data.size == 288  # 96 * 640 / 224, in steps of 32
    assert paper["Swin"].model.settings == {"stages": ["LS", "LS", "LS" * 9, "LS"]}
    assert len(configs(SHIPPED["figure8"], {})) == 10
    assert [*configs(SHIPPED["figure8"], SAMPLE)][-1] == "k_in = 6"  # of a map of 6 tokens a side


def test_a_row_wins_over_the_command_line_which_wins_over_the_experiment_and_the_config() -> None:
    given = SAMPLE | {"--optim.loss": "emd", "--model.settings.eta": "0.5", "--optim.lr": "1"}
    table2 = configs(SHIPPED["table2"], given)["EAT"]
    assert (table2.optim.loss, table2.optim.lr, table2.model.num_outputs) == ("emd", 1, 1)
    table5 = configs(SHIPPED["table5"], given)
    assert table5["full model"].model.settings == {"eta": 0.5}
    assert table5["no offset guidance"].model.settings == {"eta": 1.0, "rotate": False}


def test_a_row_of_another_family_takes_neither_settings_nor_weights_of_the_base() -> None:
    given = {"--model.weights": "dat.pth", "--model.settings.eta": "0.5", "--optim.epochs": "70"}
    experiment = SHIPPED["table8"]
    row = next(row for row in experiment.rows if row.name == "PSViT")
    paper = configs(experiment, given)["PSViT"]
    assert paper.model == ModelConfig(name="psvit_b", settings={"softmax": None})
    assert experiment.reduced(row, paper, 235528) == ["no pretrained weights"]
    sample = configs(experiment, given | SAMPLE)["PSViT"]
    assert "psvit_nano, not psvit_b" in experiment.reduced(row, sample, 1440)


def test_rows_of_letters_need_a_base_that_has_letters() -> None:
    base = TrainConfig(model=ModelConfig(name="psvit_nano"))
    with pytest.raises(ValueError, match="settings of EAT, which --model.name psvit_nano does not"):
        Row("a", letters="SSEE").differences(base)


def test_what_is_reduced_is_named() -> None:
    experiment, row = SHIPPED["table1"], SHIPPED["table1"].rows[1]
    sample = configs(experiment, SAMPLE)["Swin"]
    assert experiment.reduced(row, sample, 1440) == [
        "sample (1440 training images), not AVA",
        "eat_nano, not eat_base",
        "96 pixels, not 224",
        "24 epochs, not 70",
        "no pretrained weights",
    ]
    given = {"--model.weights": "dat.pth", "--optim.epochs": "70", "--data.val_fraction": "0.1"}
    paper = configs(experiment, given)["Swin"]
    assert experiment.reduced(row, paper, 211975) == []
    assert experiment.reduced(row, paper, 2000) == ["2000 training images of 235528"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "it holds .*: expected title, where, data, rows"),
        ("{title: a, where: b, data: ava, epochs: 1}", "rows is missing"),
        ("{title: a, where: b, data: ava, epochs: 1, rows: []}", "expected at least one"),
        ("{title: a, where: b, data: avva, epochs: 1, rows: [{name: a}]}", "data is 'avva'"),
        ("{title: a, where: b, data: ava, epochs: 1, rows: [{nam: a}]}", "rows.name is missing"),
        (
            "{title: a, where: b, data: ava, epochs: 1, rows: [{name: a, letters: SSEX}]}",
            "letters of 'a' are 'SSEX': expected four of S, D and E",
        ),
        (
            "{title: a, where: b, data: ava, epochs: 1, rows: [{name: a, published: {srcc: x}}]}",
            "published.srcc is 'x': expected float",
        ),
        (
            "{title: a, where: b, data: ava, epochs: 1, rows: [{name: a, test_on: second}]}",
            "second is '': expected one of ava",
        ),
        ("a: [", "line 1, column 5"),
        (
            "{title: a, where: b, data: ava, epochs: 1, rows: [{name: a|b}]}",
            r"a row's name is 'a\|b': expected text without",
        ),
        (
            "{title: a, where: b, data: ava, epochs: 1, rows: [{name: a, options: {run.seed: 1}}]}",
            "options of 'a' has 'run.seed': expected options of data, model and optim",
        ),
        (
            "{title: a, where: b, data: ava, epochs: 1, rows: [{name: a, published: {mse: .nan}}]}",
            "published.mse of 'a' is nan: expected 0 to",
        ),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"mine.yaml: (?s:.)*{message}"):
        read_experiment(path)


def test_a_misspelt_name_gets_the_nearest() -> None:
    names = "background, enhance, equation3, figure2, figure3, figure8, figure9, points, "
    with pytest.raises(ValueError, match=f"did you mean table5.*there are {names}"):
        find_experiments("tabel5")


def test_a_row_whose_kernel_is_larger_than_the_map_is_left_out() -> None:
    base = TrainConfig(model=ModelConfig(name="eat_nano"))
    assert Row("a", kernel=7).differences(base) is None
    kernels = Row("a", kernel=6).differences(base)
    assert kernels == {"model.settings.interest_kernels": [21, 9, 6, 1]}


@pytest.mark.parametrize("name", SHIPPED)
def test_on_the_sample_the_papers_rows_have_the_papers_points(name: str) -> None:
    anchor, rows = "anchor_points", configs(SHIPPED[name], SAMPLE)
    found = {row for row, config in rows.items() if config.model.settings.get(anchor)}
    assert found == {row for row in rows if "anchored" in row}
    given = SAMPLE | {"--model.settings.anchor_points": "true"}
    models = [config.model for config in configs(SHIPPED[name], given).values()]
    assert all(model.settings[anchor] for model in models if model.name == "eat_nano")
