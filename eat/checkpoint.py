"""A checkpoint: one safetensors file with the weights, and in its header all that scoring needs."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from eat.data.registry import DATASETS, Dataset
from eat.data.scales import ScoreScale
from eat.data.transforms import Preprocessing
from eat.models import EAT, WeightsError, create_model, load_weights
from eat.models.weights import TRAINED_ON
from eat.system.files import write_atomically

HEADER = "eat"  # key of our JSON in the safetensors header


@dataclass(frozen=True)
class ModelSpec:
    """Temporary."""

    name: str
    num_outputs: int
    img_size: tuple[int, int]
    settings: dict[str, Any] = field(default_factory=dict)

    def build(self) -> EAT:
        return create_model(self.name, self.num_outputs, tuple(self.img_size), **self.settings)

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


@dataclass
class CheckpointInfo:
    """Temporary."""

    model: ModelSpec
    dataset: str
    title: str
    scale: ScoreScale
    preprocessing: Preprocessing
    config: dict[str, Any] = field(default_factory=dict)
    epoch: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    score_quantiles: tuple[float, ...] = ()
    released: bool = False

    def build(self) -> EAT:
        return self.model.build()

    @property
    def dataset_row(self) -> Dataset:
        return DATASETS[self.dataset]

    @property
    def preprocess(self) -> Preprocessing:
        return self.preprocessing


def save_checkpoint(
    path: str | Path, model: EAT, info: CheckpointInfo, trained_on: NDArray[np.int64] | None = None
) -> None:
    """Write weights and info to a safetensors file, whole or not at all.

    Args:
        path: the file.
        model: whose weights are written.
        info: what scoring needs to know.
        trained_on: ``identity_hashes`` of the training images, so that an evaluation can tell
            which test images the model has seen.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    if trained_on is not None:
        state[TRAINED_ON] = torch.from_numpy(trained_on)
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
        said = json.loads(header[HEADER])
        row = DATASETS[said["dataset"]]
        said["model"]["img_size"] = tuple(said["model"]["img_size"])
        known = {"title": row.title, "scale": asdict(row.scale)} | said
        known["model"] = ModelSpec(**known["model"])
        known["scale"] = ScoreScale(**known["scale"])
        known["preprocessing"] = Preprocessing(**known["preprocessing"])
        return CheckpointInfo(**known)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path}: weights without the description that our runs write into them ({error})"
        ) from error


def read_trained_on(path: str | Path) -> NDArray[np.int64] | None:
    """The training images a checkpoint lists, as ``identity_hashes``; None if it has no list."""
    with safe_open(path, framework="np") as file:
        return file.get_tensor(TRAINED_ON) if TRAINED_ON in file.keys() else None


def load_checkpoint(path: str | Path) -> tuple[EAT, CheckpointInfo]:
    """Build the model of a checkpoint and load its weights, in evaluation mode.

    Raises:
        WeightsError: the file is absent, damaged or not a checkpoint of ours.
    """
    info = read_info(path)
    model = info.model.build()
    load_weights(model, path, verbose=False)
    return model.eval(), info
