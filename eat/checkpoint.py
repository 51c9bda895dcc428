"""A checkpoint: one safetensors file with the weights, and in its header all that scoring needs."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from eat.data.registry import DATASETS, Dataset
from eat.data.transforms import Preprocessing
from eat.models import EAT, WeightsError, create_model, load_weights

HEADER = "eat"  # key of our JSON in the safetensors header


@dataclass
class CheckpointInfo:
    """What a checkpoint says of itself.

    Attributes:
        model: name, num_outputs, img_size and settings, as ``create_model`` takes them.
        dataset: the row of the data set registry that the model was trained on.
        preprocessing: of the photographs.
        config: the run's whole configuration.
        epoch: finished epochs.
        metrics: of that epoch.
    """

    model: dict[str, Any]
    dataset: str
    preprocessing: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    epoch: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)

    def build(self) -> EAT:
        """The model with fresh weights."""
        model = dict(self.model)
        return create_model(
            model["name"], model["num_outputs"], tuple(model["img_size"]), **model["settings"]
        )

    @property
    def dataset_row(self) -> Dataset:
        """The data set's row in the registry."""
        return DATASETS[self.dataset]

    @property
    def preprocess(self) -> Preprocessing:
        """The preprocessing as an object."""
        return Preprocessing(**self.preprocessing)


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file whole or not at all: to a neighbour, synced, then renamed."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def save_checkpoint(path: str | Path, model: EAT, info: CheckpointInfo) -> None:
    """Write weights and info to a safetensors file, whole or not at all."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_atomically(path, save(state, {HEADER: json.dumps(asdict(info))}))


def read_info(path: str | Path) -> CheckpointInfo:
    """Read a checkpoint's info without its weights.

    Raises:
        WeightsError: the file is absent, damaged or not a checkpoint of ours.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
    except SafetensorError as error:
        raise WeightsError(
            f"{path}: truncated, or not a checkpoint of a run ({error}); weights from elsewhere "
            "start a run with --model.weights"
        ) from error
    try:
        return CheckpointInfo(**json.loads(header[HEADER]))
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path}: weights without the description that our runs write into them ({error})"
        ) from error


def load_checkpoint(path: str | Path) -> tuple[EAT, CheckpointInfo]:
    """Build the model of a checkpoint and load its weights, in evaluation mode.

    Raises:
        WeightsError: the file is absent, damaged or not a checkpoint of ours.
    """
    info = read_info(path)
    model = info.build()
    load_weights(model, path, verbose=False)
    return model.eval(), info
