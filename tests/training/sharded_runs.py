"""The runs that test_sharding.py compares: each of two processes of torchrun executes this file.

python -m torch.distributed.run --nproc-per-node 2 sharded_runs.py SAMPLE FOLDER
"""

import json
import shutil
import sys
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch
from accelerate.state import AcceleratorState
from conftest import small_run
from torch import Tensor, nn

from eat.config import TrainConfig
from eat.config.run import EnhanceConfig
from eat.system.processes import distributed, is_main
from eat.training.sharding import own
from eat.training.state import state_files
from eat.training.step import TrainStep
from eat.training.trainer import Trainer

STEPS = 6  # of an epoch of 48 images; the last has 3
HALF = 3  # of them, after which runs continue


class Borrowing(nn.Module):
    """A block's weight is used outside of the block's forward pass."""

    def __init__(self, width: int, num_outputs: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(3, width)])
        self.head = nn.Linear(width, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)) @ self.blocks[0].get_parameter("weight").T)


def borrowing(num_outputs: int, img_size: tuple[int, int]) -> nn.Module:
    return Borrowing(img_size[0], num_outputs)


def eat_run(sample: Path, folder: Path) -> TrainConfig:
    """An epoch with nearly all that a step does, its state kept amid it and at its end."""
    config = small_run(sample, folder)
    config.model.settings = config.model.settings | {"drop_path_rate": 0.3}
    optim = {"epochs": 1, "batch_size": 9, "loss": "emd", "clip_norm": 1.0, "ema": 0.9}
    optim |= {"optimizer": "adamw", "weight_decay": 0.1, "lr_factors": {"head": 10}}
    config.optim = replace(config.optim, **optim, frozen=["stages.0"])
    config.run = replace(config.run, accumulation_steps=2, save_steps=HALF)
    config.faults = replace(config.faults, max_norm=0.5, steps=STEPS)
    return config


def vit_run(sample: Path, folder: Path) -> TrainConfig:
    """An epoch of an enhanced transformer of timm in bf16, with blocks computed twice."""
    config = small_run(sample, folder)
    config.model.name = "timm/vit_small_patch14_reg4_dinov2"
    config.model.settings = {"depth": 4, "embed_dim": 16, "num_heads": 4, "drop_path_rate": 0.2}
    config.model.enhance = EnhanceConfig(gate=True)
    config.optim = replace(config.optim, epochs=1, batch_size=24)
    config.run = replace(config.run, precision="bf16", grad_checkpointing=True)
    return config


def size(tensors: Iterable[Tensor]) -> int:
    """Bytes of the memory that this process's parts of tensors lie in."""
    storages = [own(tensor).untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def sizes(step: TrainStep) -> dict[str, int]:
    """Bytes that a process keeps, by kind."""
    weights = [*step.raw_model.parameters()]
    moments = [moment for each in step.optimizer.state.values() for moment in each.values()]
    return {
        "weights": size(weights),
        "gradients": size(p.grad for p in weights if p.grad is not None),
        "optimizer": size(moment for moment in moments if moment.ndim),
        "average": size(step.average.module.parameters()) if step.average else 0,
    }


def execute(config: TrainConfig) -> None:
    """Carry out a run; its folder then has ``sizes.json`` of the main process."""
    try:
        with closing(Trainer(config)) as trainer:
            trainer.fit()
            if is_main():
                found = json.dumps(sizes(trainer.step))
                (trainer.folder / "sizes.json").write_text(found)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def halved(folder: Path, copy: Path) -> Path:
    """A copy of a run as it was after HALF steps."""
    shutil.copytree(folder, copy)
    for path in state_files(copy / "checkpoints"):
        if int(path.name.split("-")[1]) != HALF:
            path.unlink()
    return copy


def go_on(config: TrainConfig, copy: Path) -> TrainConfig:
    """The options that continue the copy of a run, sharded."""
    return replace(config, run=replace(config.run, folder=str(copy), resume="auto", sharded=True))


def main(sample: Path, folder: Path) -> None:
    for name, make in (("eat", eat_run), ("vit", vit_run)):
        for sharded in (False, True):
            config = make(sample, folder / f"{name}-{'sharded' if sharded else 'whole'}")
            config.run.sharded = sharded
            execute(config)
    copy = folder / "eat-continued"
    if is_main():
        halved(folder / "eat-sharded", copy)
    torch.distributed.barrier()
    execute(go_on(eat_run(sample, folder), copy))
    config = small_run(sample, folder / "refused")
    config.run.sharded, config.model.name = True, f"{__file__}:borrowing"
    config.model.settings = {}
    try:
        execute(config)
    except ValueError as error:
        (folder / "refused.txt").write_text(str(error))


if __name__ == "__main__":
    with distributed(cpu=True):
        main(*map(Path, sys.argv[1:]))
