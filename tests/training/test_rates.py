"""Learning rates of parts of a model, and parts that are not trained."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from eat.checkpoint import load_checkpoint
from eat.cli import parse_train
from eat.config import TrainConfig
from eat.system.stops import Interrupted
from eat.training.trainer import Trainer, train


def rates(trainer: Trainer) -> dict[str, float]:
    step = trainer.step
    names = {parameter: name for name, parameter in step.raw_model.named_parameters()}
    return {names[p]: g["initial_lr"] for g in step.optimizer.param_groups for p in g["params"]}


def copy(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_the_longest_name_that_fits_gives_the_factor_beside_that_of_interest_points(
    config: TrainConfig, tmp_path: Path
) -> None:
    config.optim.lr, config.optim.interest_lr, config.optim.weight_decay = 0.5, 1.0, 0.1
    plain = rates(Trainer(config))
    config.optim.lr_factors = {"stages": 0.1, "stages.2.blocks.1": 4.0, "head": 2.0}
    config.run.folder = str(tmp_path / "other")
    trainer = Trainer(config)
    found = rates(trainer)
    assert found.keys() == plain.keys()
    for name, rate in found.items():
        inner = name.startswith("stages.2.blocks.1.")
        factor = 4.0 if inner else 0.1 if name.startswith("stages") else 1.0
        factor = 2.0 if name.startswith("head.") else factor
        assert rate == pytest.approx(factor * plain[name]), name
    assert trainer.step.lr() == 0.5


def test_the_schedule_multiplies_all_rates(config: TrainConfig) -> None:
    config.optim.lr_factors, config.optim.schedule = {"head": 10.0}, "step"
    config.optim.step_epochs = 1
    train(config)
    lines = (Path(str(config.run.folder)) / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["lr"] for line in lines] == pytest.approx([1e-3, 1e-4])


def test_frozen_parts_stay_and_such_a_run_continues_bit_for_bit(
    config: TrainConfig, tmp_path: Path
) -> None:
    frozen = ["patch_embed", "stages.0", "stages.1"]
    config.optim.frozen, config.optim.lr_factors = frozen, {"head": 10.0}

    def weights(folder: Path) -> dict[str, torch.Tensor]:
        return load_checkpoint(folder / "checkpoints" / "last.safetensors")[0].state_dict()

    whole = weights(train(config)[0])
    config.run.folder, config.run.resume = str(tmp_path / "stopped"), "auto"
    trainer = Trainer(config)
    start, take_step = copy(trainer.step.raw_model), trainer._step

    def step_and_signal(*args: object) -> None:
        if trainer.progress.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        take_step(*args)

    trainer._step = step_and_signal
    with pytest.raises(Interrupted):
        trainer.fit()
    trainer.close()
    stopped = weights(train(config)[0])
    for name, value in whole.items():
        assert torch.equal(value, stopped[name]), name
        if name.startswith(tuple(f"{part}." for part in frozen)):
            assert torch.equal(value, start[name]), name
    assert not torch.equal(whole["head.weight"], start["head.weight"])


def test_what_is_no_part_of_the_model_is_refused_by_name(config: TrainConfig) -> None:
    for part in ("stage", "head.weigh", "", "x" * 500):
        config.optim.lr_factors, config.optim.frozen = {part: 0.1}, []
        with pytest.raises(
            ValueError, match=r"optim\.lr_factors names '.*expected such as patch"
        ) as e:
            Trainer(config)
        assert len(str(e.value)) < 300
        config.optim.lr_factors, config.optim.frozen = {}, [part]
        with pytest.raises(ValueError, match=r"optim\.frozen names '.*such as patch_embed, stages"):
            Trainer(config)
    config.optim.frozen = ["patch_embed", "stages", "norm", "head"]
    with pytest.raises(ValueError, match=r"optim\.frozen leaves no parameter to train"):
        Trainer(config)


def test_they_are_options(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--data.labels=a", "--data.images=b", "--optim.frozen", "[theme.scenes]"]
    config = parse_train([*argv, "--optim.lr_factors", "{head: 10, colour.head: 0.1}"])
    assert config.optim.lr_factors == {"head": 10.0, "colour.head": 0.1}
    assert config.optim.frozen == ["theme.scenes"]
    config.optim.lr_factors["head"] = -1.0
    with pytest.raises(ValueError, match=r"optim\.lr_factors of 'head' is -1\.0: expected 0 to"):
        config.check()
