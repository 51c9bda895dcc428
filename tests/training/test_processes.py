"""Several processes and micro-batches train as one process with one batch."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from conftest import small_run
from safetensors.torch import load_file

from eat.checkpoint import load_checkpoint
from eat.config import TrainConfig
from eat.data.loading import TrainBatches, rows_in_order
from eat.training.state import state_files
from eat.training.trainer import train

pytestmark = pytest.mark.long(together=True)

ROOT = Path(__file__).parents[2]


def command(config: TrainConfig, processes: int, *options: str) -> list[str]:
    """A training run as users start it, with a config file."""
    file = Path(f"{config.run.folder}.yaml")
    file.write_text(yaml.safe_dump(config.to_dict()))
    run = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [sys.executable, *run, *options, str(ROOT / "main_nni.py"), "--config", str(file)]


def start(config: TrainConfig, *options: str, processes: int = 2) -> subprocess.Popen:
    return subprocess.Popen(
        command(config, processes, *options),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_states(process: subprocess.Popen, folder: Path) -> None:
    """Wait until a run has saved two states."""
    deadline = time.monotonic() + 120
    while len(state_files(folder / "checkpoints")) < 2:
        assert process.poll() is None and time.monotonic() < deadline, process.stdout.read()
        time.sleep(0.01)


def lines(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: row[name] for name in ("epoch", "lr", "train_loss", "emd", "mse")} for row in rows
    ]


def assert_same(one: Path, other: Path) -> None:
    """The same curves and weights to float32's tolerance, amplified by Adam's division."""
    for mine, theirs in zip(lines(one), lines(other), strict=True):
        assert mine == pytest.approx(theirs, rel=2e-4, abs=2e-5)
    weights, others = (
        load_checkpoint(folder / "checkpoints" / "last.safetensors")[0].state_dict()
        for folder in (one, other)
    )
    for name in weights:
        torch.testing.assert_close(weights[name], others[name], rtol=0, atol=2e-4)


def uneven_run(sample: Path, folder: Path) -> TrainConfig:
    """Batches of 9 images of 48, so that the last has 3: fewer than there are micro-batches."""
    config = small_run(sample, folder)
    config.optim.batch_size, config.optim.clip_norm, config.optim.ema = 9, 1.0, 0.9
    config.model.settings = config.model.settings | {"drop_path_rate": 0.3}
    return config


@pytest.fixture
def config(sample: Path, tmp_path: Path) -> TrainConfig:
    return uneven_run(sample, tmp_path / "run")


@pytest.fixture(scope="module")
def one(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that run by one process with one micro-batch a step."""
    return train(uneven_run(sample, tmp_path_factory.mktemp("one") / "run"))[0]


@pytest.fixture(scope="module")
def two(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that run by two processes of two micro-batches, which print ``output``."""
    config = uneven_run(sample, tmp_path_factory.mktemp("two") / "run")
    config.run.accumulation_steps = 2
    process = start(config)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert output.count("checkpoint  ") == 1  # one process speaks
    return Path(str(config.run.folder))


def test_two_processes_of_two_micro_batches_train_and_evaluate_as_one(one: Path, two: Path) -> None:
    assert_same(one, two)
    predictions = [(f / "predictions.csv").read_text().splitlines() for f in (one, two)]
    images = [[line.split(",")[0] for line in text] for text in predictions]
    assert images[0] == images[1] and len(images[0]) == 1 + 16
    begun = json.loads((two / "starts.jsonl").read_text())
    assert begun["processes"] == 2 and begun["seed"] == 0 and begun["packages"]["torch"]


def test_a_killed_process_is_named_and_torchrun_continues_to_the_same_weights(
    config: TrainConfig, two: Path
) -> None:
    config.run.accumulation_steps, config.run.save_steps, config.run.resume = 2, 1, "auto"
    process = start(config, "--max-restarts=1")
    folder = Path(str(config.run.folder))
    wait_for_states(process, folder)
    main = json.loads((folder / "starts.jsonl").read_text())["pid"]
    (other,) = {child.pid for child in psutil.Process(process.pid).children()} - {main}
    os.kill(other, signal.SIGKILL)
    output, _ = process.communicate()
    told = (
        rf"the run ends: rank 1 \(process {other} on .*\) was killed.* {folder} --run.resume auto"
    )
    assert len(re.findall(told, output)) == 1 and "Traceback" not in output, output
    log = (folder / "train.log").read_text()
    assert re.search(told, log) and "continuing after epoch" in log
    assert process.returncode == 0 and lines(folder) == lines(two)
    files = [load_file(f / "checkpoints" / "last.safetensors") for f in (folder, two)]
    torch.testing.assert_close(*files, rtol=0, atol=0)


def test_a_run_that_torchrun_may_start_again_has_to_continue_then(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "2")
    with pytest.raises(ValueError, match="--max-restarts 2.*add --run.folder FOLDER --run.resume"):
        train(config)


def test_micro_batches_add_up_to_one_batch(config: TrainConfig, one: Path, tmp_path: Path) -> None:
    config.run.folder, config.run.accumulation_steps = str(tmp_path / "accumulated"), 4
    assert_same(one, train(config)[0])


def test_checkpointed_gradients_train_the_same(
    config: TrainConfig, one: Path, tmp_path: Path
) -> None:
    config.run.folder, config.run.grad_checkpointing = str(tmp_path / "less"), True
    assert_same(one, train(config)[0])


def test_two_processes_told_to_stop_continue_as_one(config: TrainConfig, tmp_path: Path) -> None:
    config.optim.epochs = 12
    one, _ = train(config)
    config.run.folder, config.run.save_steps = str(tmp_path / "two"), 1
    process = start(config)
    wait_for_states(process, tmp_path / "two")
    process.send_signal(signal.SIGTERM)  # torchrun passes it on
    output, _ = process.communicate()
    assert output.count("stopped by SIGTERM") == 1, output
    config.run.resume = "auto"
    two, _ = train(config)
    log = (two / "train.log").read_text()
    assert "continuing with 1 in place of 2 processes" in log and "continuing after epoch" in log
    assert len(lines(two)) == 12
    assert lines(one)[-1] == pytest.approx(lines(two)[-1], rel=0.02)


def test_a_step_smaller_than_its_parts_is_refused(config: TrainConfig) -> None:
    config.run.accumulation_steps, config.optim.epochs = 9, 1
    train(config)
    config.run.accumulation_steps, config.optim.batch_size = 5, 4
    with pytest.raises(ValueError, match="run.accumulation_steps is 5: expected 1 to 4"):
        train(config)


@pytest.mark.parametrize(
    "size, batch, processes, micro_batches", [(48, 9, 2, 2), (7, 3, 3, 1), (5, 8, 2, 4)]
)
def test_the_parts_of_all_processes_are_the_batches_of_one(
    size: int, batch: int, processes: int, micro_batches: int
) -> None:
    whole = list(TrainBatches(size, batch, seed=3))
    shares = [
        TrainBatches(
            size, batch, 3, accumulation_steps=micro_batches, processes=processes, process=p
        )
        for p in range(processes)
    ]
    loaded = [list(share) for share in shares]
    assert all(len(part) == len(share) for part, share in zip(loaded, shares, strict=True))
    for step, expected in enumerate(whole):
        met: list[tuple[int, tuple[int, int]]] = []
        for share, parts in zip(shares, loaded, strict=True):
            mine = parts[step * micro_batches : (step + 1) * micro_batches]
            for (first, count), keys in zip(share.micro_batches(step), mine, strict=True):
                assert len(keys) == max(count, 1) and keys[0] == expected[first]
                met += enumerate(keys[:count], start=first)
        assert [key for _, key in sorted(met)] == expected
        assert [place for place, _ in sorted(met)] == list(range(len(expected)))


@pytest.mark.parametrize("size, batch, processes", [(17, 4, 2), (3, 8, 4), (16, 4, 3)])
def test_each_row_is_evaluated_once_in_the_batch_that_one_process_would_take(
    size: int, batch: int, processes: int
) -> None:
    whole = rows_in_order(size, batch)
    shares = [rows_in_order(size, batch, processes=processes, process=p) for p in range(processes)]
    assert sorted(rows for share in shares for rows in share) == whole
    assert [row for rows in whole for row in rows] == list(range(size))
