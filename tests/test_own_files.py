"""Files of the user's own, in runs and commands: given anew, never taken from a checkpoint."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import small_run
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from eat import Scorer
from eat.checkpoint import described_model, load_checkpoint, read_info
from eat.cli import main
from eat.cli.errors import guarded
from eat.config import ModelConfig, TrainConfig
from eat.config.commands import EvaluateOptions
from eat.evaluation.evaluate import evaluate_checkpoint
from eat.models import WeightsError
from eat.system.plugins import load_function
from eat.training.setup import resolve_model
from eat.training.trainer import train

SOURCE = """
from torch import nn

def tiny(num_outputs, img_size, width=4):
    return nn.Sequential(
        nn.Conv2d(3, width, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(width, num_outputs),
    )
"""


def own_run(sample: Path, folder: Path, file: Path) -> TrainConfig:
    config = small_run(sample, folder)
    return replace(config, model=ModelConfig(name=f"{file}:tiny", settings={"width": 6}))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "mine.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture(scope="module")
def own(sample: Path, file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The best checkpoint of a run with a model of the user's own."""
    folder, _ = train(own_run(sample, tmp_path_factory.mktemp("own") / "run", file))
    return folder / "checkpoints" / "best.safetensors"


def rewritten(path: Path, out: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a checkpoint with another description."""
    with safe_open(path, framework="pt") as opened:
        header = opened.metadata()
    content = json.loads(header["eat"])
    change(content)
    save_file(load_file(path), out, header | {"eat": json.dumps(content)})
    return out


@pytest.mark.parametrize("form", ["{}/evil.py:model", "{}/evil.py", "./{}/evil.py:model"])
def test_a_path_in_a_checkpoint_is_never_imported(
    form: str, own: Path, tmp_path: Path, sample: Path
) -> None:
    mark = tmp_path / "imported"
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nfrom torch import nn\n{SOURCE}")
    name = form.format(tmp_path)

    def change(content: dict[str, Any]) -> None:
        content["model"]["name"], content["dataset"] = name, "mine"
        content["config"]["model"]["name"] = content["config"]["data"]["name"] = name
        content["config"]["optim"]["loss"] = name

    path = rewritten(own, tmp_path / "evil.safetensors", change)
    read_info(path)
    described_model(path)
    given: dict[str, Any] = {"labels": str(sample), "images": str(sample / "images"), "samples": 0}
    refused: list[Callable[[], Any]] = [
        lambda: load_checkpoint(path),
        lambda: load_checkpoint(path, model="eat_nano"),
        lambda: Scorer(path),
        lambda: evaluate_checkpoint(path, EvaluateOptions(**given)),
        lambda: resolve_model(TrainConfig(model=ModelConfig(weights=str(path)))),
        lambda: read_info(path).model.build(),
    ]
    for call in refused:
        with pytest.raises(ValueError, match=r"FILE\.py:FUNCTION"):
            call()
    data = rewritten(
        own, tmp_path / "data.safetensors", lambda content: content.update(dataset=name)
    )
    with pytest.raises(WeightsError, match="expected a name, not a file"):
        read_info(data)
    # With the user's own model, what the checkpoint says of data and loss is not imported either.
    (tmp_path / "mine.py").write_text(SOURCE)
    mine = f"{tmp_path}/mine.py:tiny"
    with pytest.raises(ValueError, match=r"--name FILE\.py:NAME"):
        evaluate_checkpoint(path, EvaluateOptions(model=mine, **given))
    options = EvaluateOptions(model=mine, name="sample", **given)
    evaluate_checkpoint(path, replace(options, workers=0))
    with pytest.raises(ValueError, match=r"--name FILE\.py:NAME"):
        evaluate_checkpoint(path, replace(options, workers=0, trained_on=str(sample)))
    assert not mark.exists()


def test_a_path_in_a_run_folder_is_never_imported(sample: Path, tmp_path: Path) -> None:
    folder, mark = tmp_path / "run", tmp_path / "imported"
    folder.mkdir()
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w')\n")
    name = f"{tmp_path}/evil.py:x"
    written = {"data": {"name": name}, "model": {"name": name}, "optim": {"loss": name}}
    (folder / "config.yaml").write_text(json.dumps(written | {"run": {"passes": 1}}))  # as of 0.1
    config = small_run(sample, folder)
    config.run.resume = "auto"
    with pytest.raises(ValueError, match="holds a run with other options"):
        train(config)
    assert not mark.exists()


def test_the_model_is_given_anew_to_every_command(
    own: Path, file: Path, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, model = str(min((sample / "images").iterdir())), ["--model", f"{file}:tiny"]
    commands = [
        ["score", photo, "--checkpoint", str(own)],
        ["evaluate", str(own), "--workers", "0", "--samples", "0", "--out", str(tmp_path / "eval")],
        ["saliency", photo, "--checkpoint", str(own)],
        ["points", photo, "--checkpoint", str(own)],
    ]
    told = []
    for argv in commands:
        assert main(argv) == 2
        assert f"it was made by '{file}:tiny'" in capsys.readouterr().err
        code = main([*argv, *model])
        told.append((code, capsys.readouterr().err))
    assert told[:2] == [(0, ""), (0, "")]
    assert [code for code, _ in told[2:]] == [2, 2]
    assert "take --method gradient" in told[2][1]
    assert "no block that samples positions" in told[3][1]
    assert main([*commands[2], *model, "--method", "gradient"]) == 2
    assert "names no blocks whose features are a map" in capsys.readouterr().err


def test_a_model_is_refused_where_the_checkpoint_has_one(checkpoint: Path, file: Path) -> None:
    with pytest.raises(WeightsError, match="it is of eat_nano, which needs no --model"):
        load_checkpoint(checkpoint, model=f"{file}:tiny")
    assert load_checkpoint(checkpoint, model="eat_nano")


def test_weights_of_an_own_model_start_a_run_that_names_it(
    own: Path, file: Path, sample: Path, tmp_path: Path
) -> None:
    config = own_run(sample, tmp_path / "run", file)
    with pytest.raises(ValueError, match=r"--model\.name FILE\.py:FUNCTION, and its settings"):
        train(replace(config, model=ModelConfig(weights=str(own))))
    config.model.weights, config.optim.lr, config.optim.epochs = str(own), 0.0, 1
    folder, _ = train(config)
    first, _ = load_checkpoint(own, f"{file}:tiny")
    again, _ = load_checkpoint(folder / "checkpoints" / "best.safetensors", f"{file}:tiny")
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_another_content_of_the_file_is_noted(
    sample: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "changing.py"
    path.write_text(SOURCE)
    config = own_run(sample, tmp_path / "run", path)
    config.optim.epochs, config.run.resume = 1, "auto"
    folder, _ = train(config)
    last = folder / "checkpoints" / "last.safetensors"
    with caplog.at_level(logging.WARNING, "eat"):
        load_checkpoint(last, f"{path}:tiny")
        train(config)
        assert "changed" not in caplog.text
        path.write_text(SOURCE + "# a comment\n")
        load_checkpoint(last, f"{path}:tiny")
        assert f"changing.py:tiny has changed since {last} was trained" in caplog.text
        train(config)
        assert "model.name: the file has changed since the run was stopped" in caplog.text


def test_a_run_without_a_folder_gets_one_named_after_the_function(
    sample: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = own_run(sample, tmp_path, file)
    config.run.folder, config.optim.epochs = None, 1
    folder, _ = train(config)
    assert folder.parent == Path("runs")
    assert folder.name.startswith("sample-mine.py-tiny-")


def test_what_fails_in_the_users_file_in_the_middle_of_a_run_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "late.py"
    path.write_text("def late():\n    return {}['key']\n\ndef odd():\n    int('x')\n")
    assert guarded(load_function(f"{path}:late"), "eat train") == 2
    assert capsys.readouterr().err == f"eat train: error: {path}, line 2: KeyError: 'key'\n"
    assert guarded(load_function(f"{path}:odd"), "eat train") == 2
    assert f"{path}, line 5: ValueError: invalid literal" in capsys.readouterr().err
    with pytest.raises(KeyError):  # an error of ours keeps its traceback
        guarded(lambda: {}["key"], "eat train")
