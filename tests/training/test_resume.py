"""Runs that survive: killed, told to stop, damaged on disk."""

import hashlib
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch
from conftest import small_run

from eat.checkpoint import load_checkpoint
from eat.cli.train import run_train
from eat.config import TrainConfig
from eat.system.stops import Interrupted
from eat.training.state import Progress, load_state, save_state, state_files
from eat.training.trainer import Trainer, train


def train_alone(config: TrainConfig) -> None:
    """One run in a process of its own, with one thread: the order of sums is then fixed."""
    torch.set_num_threads(1)
    train(config)


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.BaseContext:
    """Processes that start fast, from a server with the imports done."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["eat.training.trainer"])
    return context


@pytest.mark.long
def test_a_run_killed_at_twenty_random_points_ends_with_the_same_weights(
    processes: multiprocessing.context.BaseContext, sample: Path, tmp_path: Path
) -> None:
    def finished(folder: str) -> tuple[dict[str, torch.Tensor], list[dict]]:
        lines = (tmp_path / folder / "metrics.jsonl").read_text().splitlines()
        model, _ = load_checkpoint(tmp_path / folder / "checkpoints" / "last.safetensors")
        times = ("seconds", "images_per_second")
        rows = [{k: v for k, v in json.loads(r).items() if k not in times} for r in lines]
        return model.state_dict(), rows

    def start(folder: str) -> multiprocessing.Process:
        config.run.folder = str(tmp_path / folder)
        process = processes.Process(target=train_alone, args=(config,))
        process.start()
        return process

    def steps() -> int:
        files = state_files(tmp_path / "killed" / "checkpoints")
        return int(files[0].name.split("-")[1]) if files else 0

    config = small_run(sample, tmp_path)
    config.optim.epochs, config.optim.batch_size, config.run.save_steps = 20, 4, 1
    whole = start("whole")
    whole.join()
    config.run.resume = "auto"
    draw = random.Random(0)
    for _ in range(20):  # a few of the 240 steps at a time
        process, goal = start("killed"), steps() + draw.randint(0, 6)
        while steps() < goal and process.is_alive():
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.02))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    last = start("killed")
    last.join()
    assert whole.exitcode == last.exitcode == 0
    weights, lines = finished("whole")
    resumed, resumed_lines = finished("killed")
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)
    assert lines == resumed_lines


@pytest.mark.parametrize("step, ema", [(1, None), (2, None), (3, None), (4, None), (2, 0.5)])
def test_a_signal_saves_the_state_and_the_run_continues_bit_for_bit(
    config: TrainConfig, run: Path, tmp_path: Path, step: int, ema: float | None
) -> None:
    def weights(folder: Path) -> dict[str, torch.Tensor]:
        return load_checkpoint(folder / "checkpoints" / "last.safetensors")[0].state_dict()

    config.optim.ema = ema
    whole = weights(run if ema is None else train(config)[0])
    config.run.folder = str(tmp_path / "stopped")
    trainer = Trainer(config)
    take_step = trainer._step

    def step_and_signal(*args: object) -> None:
        if trainer.progress.step + 1 == step:
            os.kill(os.getpid(), signal.SIGTERM)
        take_step(*args)

    trainer._step = step_and_signal
    with pytest.raises(Interrupted, match="stopped by SIGTERM.*--run.resume auto") as stop:
        trainer.fit()
    assert stop.value.exit_code == 143
    trainer.close()
    config.run.resume = "auto"
    train(config)
    stopped = weights(trainer.folder)
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


@pytest.mark.parametrize("moment", ["_evaluate", "_finish"])
def test_a_signal_after_the_last_step_stops_the_run_too(config: TrainConfig, moment: str) -> None:
    config.optim.epochs = 1
    trainer = Trainer(config)
    usual = getattr(trainer, moment)

    def signalled() -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return usual()

    setattr(trainer, moment, signalled)
    with pytest.raises(Interrupted, match="by SIGTERM after epoch 1, batch 0.*--run.resume auto"):
        trainer.fit()
    trainer.close()
    assert not (trainer.folder / "result.json").exists()
    config.run.resume = "auto"
    train(config)
    assert (trainer.folder / "result.json").exists()


def test_a_finished_run_is_not_trained_again(config: TrainConfig, run: Path) -> None:
    folder = Path(shutil.copytree(run, config.run.folder))
    before, result = ((folder / name).read_text() for name in ("metrics.jsonl", "result.json"))
    config.run.resume = "auto"
    assert train(config)[1].items() <= json.loads(result).items()
    assert (folder / "metrics.jsonl").read_text() == before


def test_a_torn_line_of_metrics_does_not_keep_a_run_from_continuing(
    config: TrainConfig, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(run, config.run.folder))
    first, second = (folder / "metrics.jsonl").read_text().splitlines()
    odd = [
        "[" * 100_000,
        '{"epoch": 2, "split": "test"}',
        second.replace('"srcc": ', '"srcc": [], "x": '),
    ]
    torn = second[:40].encode() + b"\xff\0\0"
    (folder / "metrics.jsonl").write_bytes("\n".join([first, *odd, ""]).encode() + torn)
    config.run.resume = "auto"
    train(config)
    assert (folder / "metrics.jsonl").read_text() == f"{first}\n"
    assert caplog.text.count("metrics.jsonl: a damaged line is left out") == 4


def test_a_finished_run_whose_metrics_are_lost_still_ends_well(
    config: TrainConfig, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(run, config.run.folder))
    (folder / "metrics.jsonl").unlink()
    config.run.resume = "auto"
    assert run_train(config) == 0
    assert "metrics.jsonl: lacks 2 of 2 epochs" in caplog.text
    assert (folder / "predictions.png").is_file() and not (folder / "curves.png").exists()


def test_a_folder_that_cannot_be_made_is_named(config: TrainConfig) -> None:
    config.run.folder = "/dev/null"
    with pytest.raises(ValueError, match="run.folder is /dev/null: no folder can be made there"):
        train(config)


def test_other_options_do_not_continue_a_run(config: TrainConfig, run: Path) -> None:
    shutil.copytree(run, config.run.folder)
    config.run.resume, config.optim.lr = "auto", 0.5
    with pytest.raises(ValueError, match=r"other options: optim\.lr \(was 0\.001, now 0\.5\)"):
        train(config)


def test_a_damaged_state_is_named_and_the_one_before_it_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_state(tmp_path, Progress(step=1), {"model": {"x": torch.zeros(1)}}, keep=2)
    newest = save_state(tmp_path, Progress(step=2), {"model": {"x": torch.ones(1)}}, keep=2)
    newest.write_bytes(newest.read_bytes()[:-10])
    progress, parts = load_state(tmp_path)
    assert progress.step == 1 and parts["model"]["x"].item() == 0
    assert f"{newest} is damaged (its checksum differs); trying the one before it" in caplog.text


def junk(name: str, parts: dict) -> object:
    """A state's content, spoilt."""
    progress = parts["progress"]
    weight = next(iter(parts["model"]))
    return {
        "list": [1, 2],
        "number": torch.zeros(3),
        "no progress": {k: v for k, v in parts.items() if k != "progress"},
        "unknown progress": parts | {"progress": progress | {"colour": 1}},
        "text for a step": parts | {"progress": progress | {"step": "5"}},
        "negative epoch": parts | {"progress": progress | {"epoch": -1}},
        "no model": {k: v for k, v in parts.items() if k != "model"},
        "null model": parts | {"model": None},
        "shape": parts | {"model": parts["model"] | {weight: torch.zeros(1, 2, 3, 4, 5)}},
        "optimizer": parts | {"optimizer": {"state": {}, "param_groups": []}},
        "rate": parts | {"optimizer": parts["optimizer"] | {"param_groups": [{"lr": "x"}]}},
        "moments": parts | {"optimizer": parts["optimizer"] | {"state": {
            0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(9), "exp_avg_sq": torch.zeros(9)}
        }}},
        "schedule": parts | {"schedule": parts["schedule"] | {"last_epoch": "late"}},
        "labels": parts | {"labels": {"train": 3}},
    }[name]  # fmt: skip


JUNK = ["list", "number", "no progress", "unknown progress", "text for a step", "negative epoch"]
JUNK += ["no model", "null model", "shape", "optimizer", "rate", "moments", "schedule", "labels"]


def test_junk_under_a_right_checksum_is_named_and_the_state_before_it_taken(
    config: TrainConfig, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(run, config.run.folder)) / "checkpoints"
    config.run.resume = "auto"
    sound, older = state_files(folder)
    older.unlink()
    parts = torch.load(sound, weights_only=True)
    with closing(Trainer(config)) as trainer:
        for name in JUNK:
            buffer = io.BytesIO()
            torch.save(junk(name, parts), buffer)
            digest = hashlib.sha256(buffer.getvalue()).hexdigest()[:16]
            newest = folder / f"state-999999999-{digest}.pt"
            newest.write_bytes(buffer.getvalue())
            trainer._resume()
            assert trainer.progress.epoch == 2, name
            assert f"{newest} is damaged (" in caplog.text, name
            sound.rename(folder / "kept")
            with pytest.raises(ValueError, match=r"damaged.*no sound state is left: remove"):
                trainer._resume()
            (folder / "kept").rename(sound)
            newest.unlink()


def edited(sample: Path, folder: Path, file: str, old: str, new: str) -> Path:
    """A copy of a sample's label files with one change; the images stay where they are."""
    folder.mkdir()
    for path in sample.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))
    return folder


def test_a_run_does_not_continue_on_other_labels(
    config: TrainConfig, run: Path, sample: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(run, config.run.folder)
    config.run.resume = "auto"
    cases = {
        "the scores and votes of the training split": ("AVA.txt", "1 100000 2 9", "1 100000 9 2"),
        "the images or their order of the training split and the images or their order of the test "
        "split": ("generic_test.jpgl", "500003\n", ""),
    }
    for i, (what, change) in enumerate(cases.items()):
        config.data.labels = str(edited(sample, tmp_path / str(i), *change))
        with pytest.raises(
            ValueError, match=rf"on other labels: in data\.labels.*, {what} changed"
        ):
            train(config)
    config.data.labels = str(edited(sample, tmp_path / "moved", "AVA.txt", "1 1", "1  1"))
    train(config)  # from another place, the same
    assert "not compared" not in caplog.text


def test_a_state_without_digests_of_labels_continues_and_says_so(
    config: TrainConfig, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(run, config.run.folder)) / "checkpoints"
    progress, parts = load_state(folder)
    del parts["labels"]
    for path in state_files(folder):
        path.unlink()
    save_state(folder, progress, parts, keep=1)
    config.run.resume = "auto"
    train(config)
    assert "of an older version: its labels are not compared" in caplog.text


def test_as_many_states_are_kept_as_told(tmp_path: Path) -> None:
    for step in range(5):
        save_state(tmp_path, Progress(step=step), {}, keep=2)
    assert [path.name[:15] for path in state_files(tmp_path)] == [
        "state-000000004",
        "state-000000003",
    ]


def test_of_a_step_the_last_state_is_kept(tmp_path: Path) -> None:
    for step in range(3):
        for epoch in range(9):  # in whichever order their digests are
            save_state(tmp_path, Progress(step=step, epoch=epoch), {}, keep=2)
            found = load_state(tmp_path)
            assert found and (found[0].step, found[0].epoch) == (step, epoch)
    assert len(state_files(tmp_path)) == 2


def test_a_full_disk_leaves_the_state_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_state(tmp_path, Progress(step=1), {}, keep=1)

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left on device"):
        save_state(tmp_path, Progress(step=2), {}, keep=1)
    monkeypatch.undo()
    assert load_state(tmp_path)[0].step == 1
    assert len(list(tmp_path.iterdir())) == 1
