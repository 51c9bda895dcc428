"""What breaks in a run: recorded, then handled as the options say."""

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import small_run

from eat.checkpoint import load_checkpoint
from eat.config import ModelConfig, TrainConfig
from eat.data.decoding import ImageError
from eat.data.loading import LoaderError, loaded
from eat.sample.make import make_sample
from eat.system.stops import TrainingError
from eat.training.folder import FolderLock, open_folder
from eat.training.losses import Loss
from eat.training.state import load_state
from eat.training.trainer import Trainer, train


def faults(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "faults.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "checkpoints" / "last.safetensors")[0].state_dict()


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def own_sample(tmp_path: Path) -> Path:
    """A sample that a test may break."""
    return make_sample(tmp_path / "sample", train=24, test=8, size=64)


def break_images(sample: Path, count: int) -> list[str]:
    """Cut training images off in the middle; returns their names."""
    test = (sample / "generic_test.jpgl").read_text().split()
    files = [p for p in sorted((sample / "images").iterdir()) if p.stem not in test][:count]
    for file in files:
        file.write_bytes(file.read_bytes()[:300])
    return [file.name for file in files]


def test_a_broken_image_stops_the_run_and_is_named(own_sample: Path, tmp_path: Path) -> None:
    (name,) = break_images(own_sample, 1)
    with pytest.raises(TrainingError, match=rf"{name}: damaged or truncated.*--faults.images 10"):
        train(small_run(own_sample, tmp_path / "run"))
    (fault,) = faults(tmp_path / "run")
    assert fault["kind"] == "broken image" and name in fault["what"] and fault["epoch"] == 1


def test_broken_images_are_replaced_the_same_by_any_number_of_workers(
    own_sample: Path, tmp_path: Path
) -> None:
    names = break_images(own_sample, 2)
    config = small_run(own_sample, tmp_path / "none")
    config.faults.images = 10
    train(config)
    config.run.folder, config.data.workers = str(tmp_path / "two"), 2
    folder, _ = train(config)
    assert equal(weights(tmp_path / "none"), weights(folder))
    told = faults(folder)
    assert len(told) == 4 and {fault["epoch"] for fault in told} == {1, 2}
    assert all(any(name in fault["what"] for name in names) for fault in told)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["replaced_images"] for line in lines] == [2, 2]


def test_more_broken_images_than_allowed_stop_the_run(own_sample: Path, tmp_path: Path) -> None:
    break_images(own_sample, 3)
    config = small_run(own_sample, tmp_path / "run")
    config.faults.images = 2
    with pytest.raises(TrainingError, match="more than 2 images of an epoch cannot be read"):
        train(config)


def test_a_broken_test_image_is_named_without_a_traceback(own_sample: Path, tmp_path: Path) -> None:
    name = (own_sample / "generic_test.jpgl").read_text().split()[0] + ".jpg"
    (own_sample / "images" / name).write_bytes(b"")
    config = small_run(own_sample, tmp_path / "run")
    config.faults.images, config.data.workers = 10, 1
    with pytest.raises(ImageError) as error:
        train(config)
    assert str(error.value) == f"{own_sample / 'images' / name}: an empty file"


def test_a_step_without_a_finite_loss_is_skipped_if_told_so(config: TrainConfig) -> None:
    config.faults.steps, config.optim.epochs = 2, 1
    trainer = Trainer(config)
    start = {name: value.clone() for name, value in trainer.step.raw_model.state_dict().items()}
    terms = trainer.step.loss.terms
    seen = []

    def broken_at_first(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen.append(equal(start, trainer.step.raw_model.state_dict()))
        return terms(outputs, target) * (float("nan") if len(seen) < 3 else 1)

    trainer.step.loss = Loss(broken_at_first, root=True)
    trainer.fit()
    assert seen == [True, True, True]  # weights before each of the three steps
    line = json.loads((trainer.folder / "metrics.jsonl").read_text())
    assert line["skipped_steps"] == 2 and line["train_loss"] > 0
    told = faults(trainer.folder)
    assert [fault["step"] for fault in told] == [0, 1]
    assert told[0]["what"] == "the loss became nan after 0 steps" and len(told[0]["images"]) == 16


def test_skipped_steps_leave_the_statistics_of_batch_norm_as_they_were(config: TrainConfig) -> None:
    small = {"points": 4, "dim": 16, "depths": (1, 1), "stem_dims": (8, 8)}
    config.model = ModelConfig("psvit_nano", settings=small)
    config.faults.steps, config.optim.epochs = 3, 1
    trainer = Trainer(config)
    start = {name: value.clone() for name, value in trainer.step.raw_model.state_dict().items()}
    trainer.step.loss = Loss(lambda outputs, target: outputs.sum(dim=1) * float("nan"))
    trainer.fit()
    state = trainer.step.raw_model.state_dict()
    counts = [name for name in state if name.endswith("num_batches_tracked")]
    assert len(counts) == 8 and all(state[name] == 3 for name in counts)  # steps were made
    assert all(torch.equal(state[name], start[name]) for name in state if name not in counts)


def test_more_skipped_steps_than_allowed_stop_the_run(config: TrainConfig) -> None:
    config.faults.steps = 1
    trainer = Trainer(config)
    trainer.step.loss = Loss(lambda outputs, target: outputs.sum(dim=1) * float("inf"))
    with pytest.raises(
        TrainingError, match="became inf after 1 steps, on the images .*, with 1 such steps allowed"
    ):
        trainer.fit()


def test_gradients_that_explode_are_named(config: TrainConfig) -> None:
    config.faults.max_norm = 1e-9
    with pytest.raises(
        TrainingError,
        match=r"the norm of the gradients became .* \(--faults.max_norm is 1e-09\) after 0 steps, "
        r"on the images \d+\.jpg",
    ):
        train(config)
    assert len(faults(Path(config.run.folder))[0]["images"]) == 16


def kill_a_worker_in(trainer: Trainer, step: int) -> None:
    take_step = trainer._step

    def step_and_kill(*args: object) -> None:
        take_step(*args)
        if trainer.progress.step == step:
            loader = trainer.data.loader("train")
            os.kill(loader._iterator._workers[0].pid, signal.SIGKILL)

    trainer._step = step_and_kill


def test_a_dead_worker_is_named_or_replaced_without_a_trace(
    config: TrainConfig, tmp_path: Path
) -> None:
    config.optim.epochs, config.optim.batch_size = 1, 4
    config.data.workers = 2
    whole, _ = train(config)
    config.run.folder, config.faults.workers = str(tmp_path / "restart"), 1
    trainer = Trainer(config)
    kill_a_worker_in(trainer, 2)
    trainer.fit()
    assert equal(weights(whole), weights(trainer.folder))
    (fault,) = faults(trainer.folder)
    assert fault["kind"] == "dead worker" and len(fault["images"]) >= 4
    config.run.folder, config.faults.workers = str(tmp_path / "fail"), 0
    trainer = Trainer(config)
    kill_a_worker_in(trainer, 2)
    with pytest.raises(TrainingError, match="a process that loads images died .*faults.jsonl"):
        trainer.fit()


class Broken:
    """A loader that raises."""

    def __init__(self, error: Exception, num_workers: int = 2) -> None:
        self.error, self.num_workers = error, num_workers

    def __iter__(self) -> Iterator:
        raise self.error


DEATHS = [
    RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
    RuntimeError("Pin memory thread exited unexpectedly"),
    ConnectionResetError(104, "Connection reset by peer"),  # while it handed over a batch
    EOFError(),
]


@pytest.mark.parametrize("error", DEATHS)
def test_whatever_the_death_of_a_loading_process_breaks_is_told_as_that(error: Exception) -> None:
    with pytest.raises(LoaderError, match="a process that loads images died"):
        next(loaded(Broken(error)))
    with pytest.raises(type(error)):
        next(loaded(Broken(error, num_workers=0)))  # there is no such process


@pytest.mark.parametrize("kind", [RuntimeError, EOFError])
def test_an_error_within_a_loading_process_is_no_death(kind: type[Exception]) -> None:
    error = kind("Caught an error in DataLoader worker process 0.")
    with pytest.raises(kind, match="Caught an error"):
        next(loaded(Broken(error)))


def test_a_second_writer_is_refused_and_told_who_is_there(config: TrainConfig) -> None:
    folder = Path(config.run.folder)
    folder.mkdir()
    code = (
        "import sys; from pathlib import Path; from eat.training.folder import FolderLock\n"
        "lock = FolderLock(Path(sys.argv[1])); print('held', flush=True); input()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout.readline() == b"held\n"
    with pytest.raises(FileExistsError, match=f"being written by process {child.pid} on "):
        train(config)
    assert not (folder / "config.yaml").exists()
    child.kill()  # a dead process holds nothing
    child.wait()
    FolderLock(folder).close()


def test_a_process_that_a_killed_writer_has_forked_does_not_keep_the_folder(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path\n"
        "from eat.training.folder import FolderLock\n"
        "lock = FolderLock(Path(sys.argv[1])); child = os.fork()\n"
        "if child: print(child, flush=True)\n"
        "time.sleep(600)"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE)
    forked = int(writer.stdout.readline())
    try:
        with pytest.raises(FileExistsError, match=f"process {writer.pid} on "):
            FolderLock(tmp_path)
        writer.kill()
        writer.wait()
        os.kill(forked, 0)  # it lives
        FolderLock(tmp_path, patience=5).close()
    finally:
        writer.kill()
        os.kill(forked, signal.SIGKILL)


def test_what_killed_writers_left_of_files_is_removed(config: TrainConfig) -> None:
    folder = Path(config.run.folder)
    (folder / "checkpoints").mkdir(parents=True)
    left = [folder / ".result.json.4711", folder / "checkpoints" / ".last.safetensors.4711"]
    kept = [folder / ".notes", folder / "notes.4711"]
    for path in left + kept:
        path.write_text("x")
    _, lock = open_folder(config, [])
    lock.close()
    assert not any(path.exists() for path in left) and all(path.exists() for path in kept)


def test_a_state_with_code_in_it_is_not_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"progress": {}, "model": Trap()}, tmp_path / "x", pickle_module=pickle)
    content = (tmp_path / "x").read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:16]
    (tmp_path / f"state-000000001-{digest}.pt").write_bytes(content)
    with pytest.raises(ValueError, match="state-000000001.*may run code; it was not loaded"):
        load_state(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_stops_the_run_and_leaves_it_able_to_go_on(
    sample: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        config = small_run(sample, disk / "run")
        config.optim.epochs = 3
        trainer = Trainer(config)
        end_epoch = trainer._end_epoch

        def fill_disk_in_second(metrics: dict) -> None:
            if trainer.progress.epoch == 1:
                (disk / "others").write_bytes(b"x" * (os.statvfs(disk).f_bavail * 4096 - 65536))
            end_epoch(metrics)

        trainer._end_epoch = fill_disk_in_second
        with pytest.raises(OSError, match="No space left on device: .* was not written, and is as"):
            trainer.fit()
        trainer.close()
        (disk / "others").unlink()
        config.run.resume = "auto"
        folder, _ = train(config)
        stopped = weights(folder)
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]
        config.run.folder = str(tmp_path / "whole")
        assert equal(weights(train(config)[0]), stopped)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
