"""Options of every command that uses a model."""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "bf16", "fp16", "int8"]
MOST_WORKERS, MOST_BATCH = 1024, 10**6


@dataclass(kw_only=True)
class ModelOptions:
    """What is needed beside a checkpoint to build its model.

    Attributes:
        model: FILE.py:FUNCTION that made the model of the checkpoint, if it is one of your own.
        general: of a small file of eat adapt, the general model that it was made from, if that lies
            neither beside it nor where it was.
    """

    model: str | None = None
    general: str | None = None


@dataclass(kw_only=True)
class CheckpointOptions(ModelOptions):
    """The model that a command uses.

    Attributes:
        checkpoint: the model: a run or its checkpoint, one of the authors' `.pth` files, a folder
            of eat share, or hf-hub:NAME.
    """

    checkpoint: str


@dataclass(kw_only=True)
class BatchOptions(CheckpointOptions):
    """How photographs go through a model.

    Attributes:
        device: auto (a GPU if there is one), cpu, cuda, cuda:1 (the second) or mps.
        batch_size: images a forward pass at most; null takes 8 on a CPU and 16 on a GPU.
        workers: threads that decode images ahead of the model; null takes one a core, at most 16.
    """

    device: str = "auto"
    batch_size: int | None = None
    workers: int | None = None


@dataclass(kw_only=True)
class ScorerOptions(BatchOptions):
    """How a model scores photographs.

    Attributes:
        precision: fp32, bf16, fp16, or int8: linear layers multiply in 8 bits (on a CPU), the rest
            is as in bf16.
        own_rule: score models that only compare images with one another (TANet), each image with
            copies of itself. This rule is ours, not their authors'.
    """

    precision: Precision = "fp32"
    own_rule: bool = False
