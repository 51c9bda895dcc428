"""A checkpoint: one safetensors file with the weights, and in its header all that scoring needs.

The ``.pth`` files that the authors of EAT, TANet and DeT published are read as well.
"""

from eat.checkpoint.description import CheckpointInfo, ModelSpec
from eat.checkpoint.files import (
    described_model,
    load_checkpoint,
    read_info,
    read_origin,
    read_trained_on,
    save_checkpoint,
)

__all__ = [
    "CheckpointInfo",
    "ModelSpec",
    "described_model",
    "load_checkpoint",
    "read_info",
    "read_origin",
    "read_trained_on",
    "save_checkpoint",
]
