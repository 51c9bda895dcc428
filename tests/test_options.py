"""Options: files in configs/, command line, search space, and what is said about mistakes."""

import json
import math
import os
import re
import warnings
from pathlib import Path

import pytest
import yaml

from eat.cli import main, parse_train
from eat.cli.errors import guarded
from eat.config import DataConfig, TrainConfig
from eat.data.labels.table import LabelWarning
from eat.models import VARIANTS
from eat.tuning import trial as tuning

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_file_loads_and_names_its_own_command(path: Path) -> None:
    config = parse_train(["--config", str(path)])
    assert config.model.name in VARIANTS
    assert f"main_nni.py --config configs/{path.name}" in path.read_text().splitlines()[0]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_config_file_sets_what_it_says(path: Path) -> None:
    config = parse_train(["--config", str(path)]).to_dict()
    for group, options in yaml.safe_load(path.read_text()).items():
        assert {key: config[group][key] for key in options} == options


def test_the_command_line_wins_over_the_file_and_the_search_over_both() -> None:
    argv = ["--config", str(ROOT / "configs/tad66k_released.yaml"), "--optim.lr", "3e-5"]
    assert parse_train(argv).optim.lr == 3e-5
    assert parse_train(argv, {"optim.lr": 1e-6, "model.settings": {"eta": 0.5}}).optim.lr == 1e-6


def search_spaces() -> dict[str, dict]:
    return {path.name: json.loads(path.read_text()) for path in ROOT.glob("search_space*.json")}


def test_each_search_names_its_space() -> None:
    named = {
        path.name: yaml.safe_load(path.read_text())["searchSpaceFile"]
        for path in ROOT.glob("config*.yml")
    }
    assert named == {
        "config.yml": "search_space.json",
        "config_gpu.yml": "search_space_authors.json",
        "config_remote.yml": "search_space_authors.json",
    }
    authors = search_spaces()["search_space_authors.json"]
    assert authors["batch_size"]["_value"] == [16, 24, 32]
    assert authors["init_lr"]["_value"] == [1e-5, 1e-6]


def test_there_is_a_config_for_each_data_set_and_size_of_the_paper() -> None:
    found = {
        (config.data.name, config.data.size or 224)
        for path in CONFIGS
        if "paper" in path.stem
        for config in [parse_train(["--config", str(path)])]
    }
    sizes = {("ava", 512), ("ava", 640)}
    assert found == {(name, 224) for name in ("ava", "tad66k", "flickr_aes", "aadb")} | sizes


@pytest.mark.parametrize("name", search_spaces())
def test_every_key_of_a_search_space_is_an_option_and_every_value_fits(name: str) -> None:
    for key, rule in search_spaces()[name].items():
        for value in rule["_value"]:
            drawn = tuning.options({key: value})
            config = parse_train([], drawn).to_dict()
            for part in next(iter(drawn)).split("."):
                config = config[part]
            assert config == value, key


@pytest.mark.parametrize("name", ["config.yml", "config_gpu.yml", "config_remote.yml"])
def test_the_trial_command_of_a_search_is_a_run(name: str) -> None:
    command = yaml.safe_load((ROOT / name).read_text())["trialCommand"]
    options = command.partition("main_nni.py ")[2].split()
    assert parse_train(options).data.labels


@pytest.mark.parametrize("name", ["vit_nano", "timm/vit_tiny_patch16_224"])
def test_settings_of_models_of_timm_are_left_to_timm(name: str) -> None:
    config = parse_train(["--model.name", name, "--model.settings.depth", "2"])
    assert config.model.settings == {"depth": 2}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--optim.lrr", "1"], r"--optim\.lrr.*\nDid you mean --optim\.lr\?"),
        (["--model.nam", "eat_tiny"], r"--model\.nam.*\nDid you mean --model\.name\?"),
        (["--optim.learning_rate", "1"], r"Did you mean --optim\.lr\?"),
        (["--batch-size", "4"], r"Did you mean --optim\.batch_size\?"),
        (["--bs", "4"], r"Did you mean --optim\.batch_size\?"),
        (["--wd", "0.1"], r"Did you mean --optim\.weight_decay\?"),
        (["--pretrained", "dat.pth"], r"Did you mean --model\.weights\?"),
        (["--optim.lr", "fast"], r"error: --optim\.lr: found 'fast', expected a number\n"),
        (
            ["--optim.loss", "emdd"],
            r"--optim\.loss: found 'emdd', expected emd, emd_per_image, mse, released, "
            r"FILE\.py:FUNCTION or null\n",
        ),
        (["--optim.batch_size", "1.5"], r"batch_size: found '1\.5', expected a whole number\n"),
        (["--model.settings.etta", "1"], r"etta.*\nDid you mean --model\.settings\.eta\?"),
        (
            ["--model.settings.eta", "high"],
            r"model\.settings\.eta: found 'high', expected a number",
        ),
        (["--model.settings.dims", "8"], r"model\.settings\.dims"),
        (
            ["--model.enhance", "x"],
            r"--model\.enhance: found 'x', expected null, \{\} for its defa",
        ),
        (
            ["--model.enhance.gate", "7"],
            r"y: error: --model\.enhance\.gate: found '7', expected true or false\n",
        ),
        (
            ["--model.enhance.pionts", "7"],
            r"'model.enhance.pionts'.*\nDid.*--model\.enhance\.points",
        ),
        (
            ["--config", "absent.yaml"],
            r"absent\.yaml: no such file.* ava_.*, sample",
        ),
    ],
)
def test_a_wrong_option_is_named(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        parse_train(argv)
    assert stop.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_config_that_is_no_regular_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(SystemExit):
            parse_train(["--config", str(path)])
        assert f"--config {path}: not a file, and no shipped config" in capsys.readouterr().err


def test_long_values_are_cut_and_the_systems_errors_name_the_file_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["best", "x" * 5000]) == 2
    error = capsys.readouterr().err
    assert error.count("x") < 200 and "...xxx" in error and error.endswith(": File name too long\n")


def test_our_warnings_are_told_without_their_place_in_the_code() -> None:
    assert guarded(lambda: 0, "eat adapt") == 0
    told = [warnings.formatwarning("x", kind, "a.py", 1) for kind in (LabelWarning, UserWarning)]
    assert told[0] == "eat adapt: warning: x\n" and told[1].startswith("a.py:1: UserWarning: x")


def test_a_wrong_key_in_a_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("optim:\n  batchsize: 4\n")
    with pytest.raises(SystemExit):
        parse_train(["--config", str(path)])
    assert "Did you mean --optim.batch_size?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", r"odd\.yaml: found '\[1, 2\]', expected groups of options"),
        ("data: [1]", r"odd\.yaml: data: found '\[1\]', expected a group of options"),
        ("faults: abc", r"odd\.yaml: faults: found 'abc', expected a group of options"),
        ("run: {passes: 1}\noptim: abc", r"odd\.yaml: optim: found 'abc'"),
        ("faults: {images: '3x'}", r"--faults\.images: found '3x', expected a whole number"),
        ("[" * 3000, r"odd\.yaml: nested too deeply"),
        ("data: &a {x: *a}", r"odd\.yaml: line 1, column 14: found an alias: expected YAML"),
        ("optim: {lr: 1, lr: 2}", r"odd\.yaml: line 1, column 16: found a key twice"),
        ("optim:\n\tlr: 1", r"odd\.yaml: line 2, column 1: found character '\\t'"),
        ("{5: 3}", r"odd\.yaml: line 1, column 2: found a key that is no text"),
        ("? [1]\n: 2", r"odd\.yaml: line 1, column 3: found a key that is no text"),
        ("a: \0", r"odd\.yaml: not a text file"),
        ("#" * 2**21, r"odd\.yaml: no regular file of \d+ bytes at most"),
    ],
)
def test_an_odd_file_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(content)
    with pytest.raises(SystemExit):
        parse_train(["--config", str(path)])
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("content", ["", "# later\n", "data:\n", "data:\noptim: {lr: 1.0}\n"])
def test_a_file_or_group_without_options_leaves_the_defaults(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.yaml").write_text(content)
    config = parse_train(["--config", str(tmp_path / "run.yaml"), "--run.seed", "3"])
    assert config.run.seed == 3 and config.data == DataConfig()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("optim.weight_decay", -1.0),
        ("optim.step_factor", math.nan),
        ("optim.warmup_epochs", -1.0),
        ("optim.ema", 1.0),
        ("optim.clip_norm", 0.0),
        ("faults.max_norm", 0.0),
        ("data.size", 4097),
        ("data.train_resize", 16385),
        ("run.seed", -1),
        ("run.seed", 2**32),
        ("model.num_outputs", 0),
    ],
)
def test_a_value_out_of_range_is_named(option: str, value: float) -> None:
    config = TrainConfig(data=DataConfig(labels="a", images="b"))
    group, name = option.split(".")
    setattr(getattr(config, group), name, value)
    with pytest.raises(ValueError, match=rf"{option} is {value}: expected "):
        config.check()


VALUES = [-1, 0, 1, 0.5, math.nan, math.inf, -math.inf, 10**400, 1e300, "", " ", "a\nb", "\0", True]
VALUES += [
    None,
    [],
    {},
    "x" * 5000,
    "9" * 5000,
    "1e400",
    "1_0",
    "nan",
    "${HOME}",
    "!!int 3",
    "a: b",
]


def test_every_value_of_every_option_is_taken_or_refused_by_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A few of the values for each option, others for the next: a parse takes its time."""
    place = 0
    for group, options in parse_train([]).to_dict().items():
        for key in options:
            place += 1
            for value in VALUES[place % 10 :: 10]:
                try:
                    config = parse_train(["--data.labels=a", "--data.images=b"],
                                         {f"{group}.{key}": value})  # fmt: skip
                    config.check()
                except ValueError as error:
                    message = str(error)
                except SystemExit:
                    message = capsys.readouterr().err
                else:
                    taken = getattr(getattr(config, group), key)
                    assert not isinstance(taken, float) or math.isfinite(taken), (key, value)
                    continue
                named = f"{group}.{key}" in message or key == "settings"
                assert named and len(message) < 1000, (key, value, message)


def test_help_explains_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse_train(["--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for group, options in parse_train([]).to_dict().items():
        for key in options:
            entry = re.search(rf" --{group}\.{key} (\S+)(?:, \S+ \1)? (?!--)(?!\(type)\w", text)
            assert entry, f"{group}.{key} is not explained"
    assert "--model.enhance.gate {true,false} keep the original attention" in text


def test_commands_are_listed_and_a_misspelt_one_gets_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--help"]) == 0
    assert "evaluate" in capsys.readouterr().out
    assert main(["evalute"]) == 2
    assert "nearest: evaluate" in capsys.readouterr().err


def test_an_unset_path_says_how_to_set_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train"]) == 2
    assert (
        "data.labels is not set: give a path, as in --data.labels PATH" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["score", "x.jpg", "--checkpoint", "m", "--format", "xml"],
         "eat score: error: --format: found 'xml', expected csv or jsonl\n"),
        (["score", "x.jpg"], "eat score: error: missing: --checkpoint\n"),
        (["score", "x.jpg", "--checkpoint", "m", "--bs", "8"], "Did you mean --batch_size?"),
        (["personalize", "--checkpoint", "m"],
         "eat personalize: error: missing: --name, --labels, --images\n"),
        (["evaluate", "m", "--checkpoint=n"], "eat evaluate: error: unrecognized arguments: n\n"),
        (["evaluate", "--checkpoint=absent", "--bs", "8"], "Did you mean --batch_size?"),
        (["best"], "eat best: error: missing: experiment\n"),
    ],
)  # fmt: skip
def test_a_wrong_call_of_a_command_is_answered_in_its_own_words(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
