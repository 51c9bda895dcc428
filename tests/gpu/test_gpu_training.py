"""On a GPU a step waits once, compiles once, needs as much memory as it should, and resumes."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("accelerate")
pytest.importorskip("simplejpeg")

from conftest import small_run
from torch._dynamo.utils import counters

from eat.config import TrainConfig
from eat.training.step import MicroBatch, TrainStep

PRECISIONS = ["fp32", "bf16", "fp16"]


@pytest.fixture
def on_gpu(sample: Path, tmp_path: Path, gpu: torch.device) -> Iterator[TrainConfig]:
    """Options of a short run."""
    from accelerate.state import AcceleratorState

    pytest.importorskip("tensorboardX")
    config = small_run(sample, tmp_path / "run")
    config.run.device = "cpu" if gpu.type == "cpu" else "auto"
    yield config
    # A trainer without ``train`` leaves one, and the next may want another precision.
    AcceleratorState._reset_state(reset_partial_state=True)


@contextmanager
def waits() -> Iterator[None]:
    """Within it, an error is raised where the host waits for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def micro_batches(count: int, *, size: int = 4, side: int = 64) -> list[MicroBatch]:
    pixels = torch.zeros(size, 3, side, side, dtype=torch.uint8).pin_memory()
    target = torch.full((size, 10), 0.1).pin_memory()
    return [MicroBatch(pixels, target, size * i, size) for i in range(count)]


def make_step(config: TrainConfig) -> TrainStep:
    from eat.training.trainer import Trainer

    with closing(Trainer(config)) as trainer:
        return trainer.step


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_steps_of_each_precision_are_made_in_one_process(
    precision: Any, on_gpu: TrainConfig, gpu: torch.device
) -> None:
    on_gpu.run.precision = precision
    assert make_step(on_gpu).accelerator.device.type == gpu.type


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_step_waits_for_the_device_at_one_place(
    precision: Any, on_gpu: TrainConfig, cuda: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpu.run.precision, on_gpu.optim.ema, on_gpu.optim.clip_norm = precision, 0.9, 1.0
    step, read, tolist = make_step(on_gpu), [], torch.Tensor.tolist

    def allowed(numbers: torch.Tensor) -> Any:
        torch.cuda.set_sync_debug_mode("default")
        read.append(numbers.device.type)
        found = tolist(numbers)
        torch.cuda.set_sync_debug_mode("error")
        return found

    for count in (1, 2):  # the first makes what is kept
        step.gradients(micro_batches(count), 4 * count, seed=1)
        step.update()
    if precision == "fp16":  # a step that overflows asks for the scale, and so waits once more
        step.accelerator.scaler.update(64.0)
    monkeypatch.setattr(torch.Tensor, "tolist", allowed)
    with waits():
        for count in (1, 2):
            step.gradients(micro_batches(count), 4 * count, seed=1)
            step.update()
    assert read == ["cuda", "cuda"]


@pytest.mark.long
@pytest.mark.parametrize("accumulation_steps", [1, 3])
def test_nothing_is_compiled_after_the_first_epoch(
    accumulation_steps: int, on_gpu: TrainConfig, cuda: torch.device
) -> None:
    from eat.training.trainer import train

    on_gpu.run.compile, on_gpu.run.accumulation_steps = True, accumulation_steps
    on_gpu.optim.epochs, on_gpu.optim.batch_size = 3, 20  # of 48 images; the last step has 8
    torch._dynamo.reset()
    counters.clear()
    graphs: list[int] = []
    train(on_gpu, lambda metrics, final: graphs.append(counters["stats"]["unique_graphs"]))
    assert graphs[0] > 0 and len({*graphs}) == 1


def test_checkpointing_needs_less_than_half_the_memory(cuda: torch.device) -> None:
    from eat.models import create_model

    def peak(checkpointing: bool) -> int:
        model = create_model("eat_tiny", 10, 224).to(cuda).train()
        model.set_grad_checkpointing(checkpointing)
        images = torch.randn(16, 3, 224, 224, device=cuda)
        weights = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(images).float().square().mean()
        loss.backward()
        return torch.cuda.max_memory_allocated() - weights

    peak(True)  # what libraries keep
    assert peak(True) < 0.5 * peak(False)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_stopped_run_continues(
    precision: Any, on_gpu: TrainConfig, gpu: torch.device, tmp_path: Path
) -> None:
    from eat.training.trainer import Trainer, train

    if precision == "fp16" and gpu.type != "cuda":
        pytest.skip("fp16 needs a GPU")

    def losses(folder: str) -> list[float]:
        lines = (tmp_path / folder / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["train_loss"] for line in lines]

    on_gpu.run.precision, on_gpu.run.save_steps, on_gpu.optim.ema = precision, 1, 0.9
    train(on_gpu)
    on_gpu.run.folder, on_gpu.run.resume = str(tmp_path / "stopped"), "auto"
    trainer = Trainer(on_gpu)
    take_step = trainer._step

    def stop_after_four(*args: Any) -> None:
        if trainer.progress.step == 4:
            raise KeyboardInterrupt
        take_step(*args)

    trainer._step = stop_after_four  # type: ignore[method-assign]
    with closing(trainer), pytest.raises(KeyboardInterrupt):
        trainer.fit()
    train(on_gpu)
    # Sums by atomic additions differ from run to run on a GPU.
    assert losses("stopped") == pytest.approx(losses("run"), rel=1e-2)
