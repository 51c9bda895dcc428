"""A training run: its folder, what it writes, what it learns, how it fails."""

import json
import math
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import SMALL
from tensorboardX.proto.event_pb2 import Event

import eat
from eat.checkpoint import load_checkpoint, read_info
from eat.cli import parse_train
from eat.config import ModelConfig, OptimConfig, TrainConfig
from eat.evaluation.metrics import srcc
from eat.models import EAT, WeightsError
from eat.system.provenance import git_revision
from eat.system.stops import TrainingError
from eat.training.losses import Loss
from eat.training.setup import resolve_model
from eat.training.step import schedule_factor
from eat.training.trainer import Trainer, train


def test_a_run_leaves_config_curves_metrics_checkpoints_and_log(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["optim"]["epochs"] == 2
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert {"train_loss", "srcc", "plcc", "accuracy", "emd", "images_per_second"} <= set(lines[0])
    assert "epoch 2: loss" in (run / "train.log").read_text()
    assert read_info(run / "checkpoints" / "last.safetensors").epoch == 2
    assert read_info(run / "checkpoints" / "best.safetensors").config == config


def test_the_curves_hold_the_metrics_of_each_epoch(run: Path) -> None:
    content = next((run / "curves").iterdir()).read_bytes()
    points: dict[str, list[float]] = {}
    while content:  # records: length (8 bytes), its checksum (4), the event, its checksum (4)
        length = int.from_bytes(content[:8], "little")
        event = Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]
        for value in event.summary.value:
            points.setdefault(value.tag, []).append(value.simple_value)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert points["train/train_loss"] == pytest.approx([line["train_loss"] for line in lines])
    assert points["test/srcc"] == pytest.approx([line["srcc"] for line in lines])


def test_the_result_is_that_of_the_best_checkpoint(run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert result["srcc"] == pytest.approx(max(line["srcc"] for line in lines), abs=1e-6)
    predictions = pd.read_csv(run / "predictions.csv")
    assert srcc(predictions["predicted"], predictions["score"]) == pytest.approx(result["srcc"])


def test_a_seed_fixes_a_run_and_another_changes_it(config: TrainConfig, tmp_path: Path) -> None:
    def weights(folder: str, seed: int) -> dict[str, torch.Tensor]:
        config.run.folder, config.run.seed, config.optim.epochs = str(tmp_path / folder), seed, 1
        train(config)
        return load_checkpoint(tmp_path / folder / "checkpoints/last.safetensors")[0].state_dict()

    one, same, other = weights("a", 0), weights("b", 0), weights("c", 1)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_the_config_in_a_run_folder_repeats_the_run(run: Path, tmp_path: Path) -> None:
    options = ["--config", str(run / "config.yaml"), "--run.folder", str(tmp_path / "again")]
    again, _ = train(parse_train(options))
    first, second = (
        load_checkpoint(folder / "checkpoints" / "last.safetensors")[0].state_dict()
        for folder in (run, again)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_keeps_what_it_was_started_with(run: Path) -> None:
    start = json.loads((run / "starts.jsonl").read_text())
    assert start["seed"] == 0 and start["packages"]["torch"] == version("torch")
    assert start["processor"] and start["python"] == platform.python_version()
    assert start["processes"] == 1 and len(start["gpus"]) == torch.cuda.device_count()


def test_the_git_revision_is_this_programs_own(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    assert git_revision(tmp_path) is None
    git("init")
    git("commit", "--allow-empty", "-m", "x")
    revision = git_revision(tmp_path)
    assert re.fullmatch("[0-9a-f]{40}", revision)
    (tmp_path / "new").mkdir()
    assert git_revision(tmp_path / "new") is None  # within someone else's repository
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "new.csv").touch()
    assert git_revision(tmp_path) == revision  # what runs write is no code
    (tmp_path / "file").touch()
    assert git_revision(tmp_path) == f"{revision}+changes"


def test_a_compiled_run_ends_as_one_that_is_not(
    config: TrainConfig, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []

    def compile_fast(model: EAT) -> None:
        compiled.append(model)
        torch.nn.Module.compile(model, backend="eager")

    monkeypatch.setattr(EAT, "compile", compile_fast)
    monkeypatch.setattr("eat.training.step.check_compiler", lambda: None)
    config.run.compile = True
    folder, _ = train(config)
    assert len(compiled) == 1
    lines = [(f / "metrics.jsonl").read_text().splitlines()[-1] for f in (run, folder)]
    assert json.loads(lines[0])["emd"] == pytest.approx(json.loads(lines[1])["emd"], rel=1e-4)


def test_the_average_of_the_weights_is_what_is_kept(config: TrainConfig) -> None:
    config.optim.ema, config.optim.epochs, config.optim.batch_size = 0.75, 1, 16
    trainer = Trainer(config)
    update, seen = trainer.step.update, []

    def update_and_look() -> None:
        update()
        seen.append(trainer.step.raw_model.head.weight.detach().clone())

    trainer.step.update = update_and_look
    trainer.fit()
    assert len(seen) == 3
    mean = 0.75 * (0.75 * seen[0] + 0.25 * seen[1]) + 0.25 * seen[2]
    model, _ = load_checkpoint(trainer.folder / "checkpoints" / "last.safetensors")
    torch.testing.assert_close(model.head.weight, mean)


def test_fp16_without_a_gpu_is_refused_with_what_to_take(config: TrainConfig) -> None:
    config.run.precision = "fp16"
    with pytest.raises(ValueError, match="needs a GPU: expected bf16 or fp32 on a CPU"):
        train(config)


def test_training_reduces_the_loss(config: TrainConfig) -> None:
    config.optim.epochs = 8
    folder, _ = train(config)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["train_loss"] < 0.9 * lines[0]["train_loss"]


def test_every_epoch_and_the_end_are_reported(config: TrainConfig) -> None:
    told: list[tuple[bool, float]] = []
    _, metrics = train(config, lambda m, final: told.append((final, m["srcc"])))
    assert [final for final, _ in told] == [False, False, True]
    assert told[-1][1] == metrics["srcc"]


def test_with_a_validation_split_the_result_is_on_the_test_split(config: TrainConfig) -> None:
    config.data.val_fraction, config.optim.epochs = 0.25, 1
    told: list[dict[str, float]] = []
    folder, metrics = train(config, lambda m, final: told.append(m))
    (epoch,) = (folder / "metrics.jsonl").read_text().splitlines()
    assert json.loads(epoch)["split"] == "val"
    result = json.loads((folder / "result.json").read_text())
    assert result["split"] == "test" and result["srcc"] == metrics["srcc"]
    assert len(pd.read_csv(folder / "predictions.csv")) == 16
    # What chooses between the trials of a search is the validation split.
    assert [t["srcc"] for t in told] == [json.loads(epoch)["srcc"]] * 2


def test_a_score_model_trains_with_mse(config: TrainConfig) -> None:
    config.model.num_outputs, config.optim.epochs = 1, 1
    folder, metrics = train(config)
    model, _ = load_checkpoint(folder / "checkpoints" / "best.safetensors")
    assert model.num_outputs == 1 and "emd" not in metrics


@pytest.mark.parametrize("precision", ["bf16"])
def test_bf16_trains(config: TrainConfig, precision: str) -> None:
    config.run.precision, config.optim.epochs = precision, 1
    _, metrics = train(config)
    assert math.isfinite(metrics["emd"])


def test_a_run_does_not_write_into_the_folder_of_another(config: TrainConfig, run: Path) -> None:
    config.run.folder = str(run)
    before = (run / "config.yaml").read_bytes()
    with pytest.raises(FileExistsError, match="holds a run already: choose another --run.folder"):
        train(config)
    assert (run / "config.yaml").read_bytes() == before


def test_an_infinite_loss_stops_the_run_and_names_the_images(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(config)
    trainer.step.loss = Loss(lambda outputs, target: outputs.sum(dim=1) * math.nan)
    with pytest.raises(
        TrainingError, match=r"loss became nan after 0 steps, on the images \d+\.jpg"
    ):
        trainer.fit()


def test_training_without_weights_on_photographs_says_it_will_not_generalise(
    config: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    config.data.name, config.optim.epochs, config.optim.frozen = "ava", 1, ["patch_embed"]
    train(config)
    assert "starts WITHOUT pretrained weights" in caplog.text
    assert "patch_embed: frozen, and WITHOUT pretrained weights" in caplog.text


def test_the_sample_does_not_ask_for_pretrained_weights(run: Path) -> None:
    assert "WITHOUT" not in (run / "train.log").read_text()


def test_weights_of_a_run_start_another(config: TrainConfig, checkpoint: Path) -> None:
    config.model.weights = str(checkpoint)
    trainer = Trainer(config)
    model, _ = load_checkpoint(checkpoint)
    start = trainer.step.raw_model.state_dict()
    assert all(torch.equal(start[name], value) for name, value in model.state_dict().items())


def test_weights_of_a_run_bring_their_model_size_and_settings(
    config: TrainConfig, checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config.model = ModelConfig(weights=str(checkpoint), settings={"eta": 0.5}, num_outputs=1)
    config.data.size, config.optim.epochs = None, 1
    folder, _ = train(config)
    info = read_info(folder / "checkpoints" / "last.safetensors")
    assert (info.model.name, info.model.img_size, info.model.num_outputs) == (
        "eat_nano",
        (64, 64),
        1,
    )
    assert info.model.settings == SMALL | {"eta": 0.5}
    assert (
        f"{checkpoint} (eat)" in caplog.text and "missing 2 (head.weight, head.bias)" in caplog.text
    )
    written = parse_train(["--config", str(folder / "config.yaml")])
    assert (written.model.name, written.data.size) == ("eat_nano", 64)


def test_another_model_than_that_of_the_weights_is_refused_with_what_to_take(
    config: TrainConfig, checkpoint: Path
) -> None:
    config.model.weights, config.model.settings = str(checkpoint), {}
    with pytest.raises(WeightsError, match=r"are those of eat_nano with .*--model.name null"):
        train(config)


def test_a_model_without_a_name_or_weights_of_a_run_is_the_papers() -> None:
    assert resolve_model(TrainConfig()).model.name == "eat_base"
    weights = ModelConfig(weights="dat_base_in1k_224.pth")
    assert resolve_model(TrainConfig(model=weights)).model.name == "eat_base"


def test_norms_biases_and_bias_tables_do_not_decay(config: TrainConfig) -> None:
    config.optim.weight_decay, config.optim.interest_lr = 0.1, None
    step = Trainer(config).step
    names = {parameter: name for name, parameter in step.raw_model.named_parameters()}
    groups = {
        g["weight_decay"]: {names[p] for p in g["params"]} for g in step.optimizer.param_groups
    }
    assert set(groups) == {0.0, 0.1} and groups[0.0] | groups[0.1] == set(names.values())
    matrices = {n for p, n in names.items() if p.ndim > 1 and not n.endswith("bias_table")}
    assert groups[0.1] == matrices
    assert sum(name.endswith("bias_table") for name in groups[0.0]) == 5


def test_interest_convolutions_learn_more_slowly_the_more_inputs_they_have(
    config: TrainConfig,
) -> None:
    config.optim.lr, config.optim.weight_decay, config.optim.interest_lr = 0.5, 0.1, 10
    step = Trainer(config).step
    names = {parameter: name for name, parameter in step.raw_model.named_parameters()}
    slow = {names[p]: g["initial_lr"] for g in step.optimizer.param_groups for p in g["params"]}
    assert slow.keys() == set(names.values())  # none is lost, none is there twice
    assert sum(len(g["params"]) for g in step.optimizer.param_groups) == len(slow)
    rates = {name: rate for name, rate in slow.items() if rate != 0.5}
    assert set(rates) == {name for name in slow if ".interest." in name}
    stage3 = "stages.2.blocks.1.attn.interest.conv.weight"
    assert rates[stage3] == pytest.approx(
        0.5 * 10 / dict(step.raw_model.named_parameters())[stage3][0].numel()
    )


def test_the_released_profile_learns_at_one_rate() -> None:
    assert eat.create_model("eat_nano", average_points=True).lr_factors(1.0) == {}


def test_decay_of_all_parameters_is_one_group(config: TrainConfig) -> None:
    config.optim.weight_decay, config.optim.decay = 0.1, "all"
    config.optim.interest_lr = None
    (group,) = Trainer(config).step.optimizer.param_groups
    assert group["weight_decay"] == 0.1


def test_a_checkpoint_knows_the_percentiles_of_its_scores(run: Path) -> None:
    scores = pd.read_csv(run / "predictions.csv")["predicted"]
    quantiles = read_info(run / "checkpoints" / "best.safetensors").score_quantiles
    np.testing.assert_allclose(quantiles, np.quantile(scores, np.linspace(0, 1, 101)), rtol=1e-6)


def test_the_log_says_which_split_chooses_the_epoch(
    config: TrainConfig, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert "srcc on the test split chooses the best epoch" in (run / "train.log").read_text()
    config.data.val_fraction, config.optim.epochs = 0.25, 1
    train(config)
    assert "data: sample data, 36 training, 12 validation, 16 test images" in caplog.text
    assert "srcc on the validation split chooses the best epoch" in caplog.text
    assert "epoch 1: loss" in caplog.text and ", validation: srcc" in caplog.text
    assert "test split, best epoch: srcc" in caplog.text


def test_scores_on_a_scale_of_ones_own(config: TrainConfig, sample: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in (sample / "images").iterdir())
    rows = [
        f"{n},{100 * i / len(names)},{'test' if i % 4 else 'train'}" for i, n in enumerate(names)
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["image,score,split", *rows]))
    config.data.name, config.data.labels = "table", str(tmp_path / "labels.csv")
    config.data.low, config.data.high, config.optim.epochs = 0, 100, 1
    folder, metrics = train(config)
    info = read_info(folder / "checkpoints" / "last.safetensors")
    assert (info.scale.low, info.scale.high, info.scale.target_scale) == (0, 100, 100)
    assert math.isfinite(metrics["srcc"])


def test_a_run_without_its_cache_makes_no_folder(config: TrainConfig, tmp_path: Path) -> None:
    config.data.cache = str(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="cache-64.*no such cache"):
        train(config)
    assert not (tmp_path / "run").exists()


def test_schedules_by_hand() -> None:
    def factors(optim: OptimConfig, epochs: list[float]) -> list[float]:
        return [schedule_factor(round(e * 100), 100, optim) for e in epochs]

    step = OptimConfig(schedule="step", step_epochs=5, step_factor=0.1)
    np.testing.assert_allclose(factors(step, [0, 4.99, 5, 9.99, 10]), [1, 1, 0.1, 0.1, 0.01])
    cosine = OptimConfig(schedule="cosine", epochs=10)
    np.testing.assert_allclose(factors(cosine, [0, 5, 10]), [1, 0.5, 0], atol=1e-12)
    warm = OptimConfig(warmup_epochs=2)
    np.testing.assert_allclose(factors(warm, [0, 1, 1.99, 2, 19]), [0.005, 0.505, 1, 1, 1])


def test_images_left_out_by_choice_stand_in_the_runs_folder(
    config: TrainConfig, sample: Path, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    names = sorted(p.name for p in (sample / "images").iterdir())
    for name in names[3:]:
        (tmp_path / "images" / name).symlink_to(sample / "images" / name)
    config.data.images, config.data.missing = str(tmp_path / "images"), "leave_out"
    config.optim.epochs = 1
    folder, _ = train(config)
    assert (folder / "left_out.txt").read_text().splitlines() == names[:3]
