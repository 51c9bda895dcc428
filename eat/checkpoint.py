"""A checkpoint: one safetensors file with the weights, and in its header all that scoring needs.

The two ``.pth`` files that the authors published are read as well.
"""

import base64
import json
import math
import reprlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from eat.data.registry import DATASETS
from eat.data.scales import ScoreScale
from eat.data.transforms import Preprocessing
from eat.models import AestheticModel, WeightsError, create_model
from eat.models.foreign import State
from eat.models.weights import TRAINED_ON, EmptyWeights, is_finite, load_state, read_state
from eat.system.files import write_atomically
from eat.system.typed import from_plain

FORMAT = 2  # of the description; raise it when an older version could not read a new one
HEADER = "eat"  # key of our JSON in the safetensors header
MAX_SIDE = 2**14  # pixels

AVA_PIXELS = Preprocessing(size=224, train_resize=None, interpolation="bicubic", flip=True,
                           upright=False, decode="exact")  # fmt: skip
# Data sets and pixels of the authors' two checkpoints, by the width of their heads.
RELEASED = {
    10: ("ava", AVA_PIXELS),
    1: ("tad66k", replace(AVA_PIXELS, train_resize=256, interpolation="bilinear")),
}


@dataclass(frozen=True)
class ModelSpec:
    """The arguments of ``create_model``, ``img_size`` as height and width in pixels."""

    name: str
    num_outputs: int
    img_size: tuple[int, int]
    settings: dict[str, Any] = field(default_factory=dict)

    def build(self) -> AestheticModel:
        """Build the model with fresh weights."""
        return create_model(self.name, self.num_outputs, self.img_size, **self.settings)


@dataclass
class CheckpointInfo:
    """A checkpoint's description of itself.

    Attributes:
        dataset: name of the data set that it was trained on, which need not be registered here.
        title: that data set's name in print.
        scale: of that data set's scores.
        config: the options of the run.
        epoch: finished epochs.
        metrics: of that epoch.
        splits: for each split of the run its number of images and their fingerprint.
        score_quantiles: 0th to 100th percentile of the predicted scores on the split that chose
            the epoch; empty if unknown.
        released: the weights are the authors' own.
    """

    model: ModelSpec
    dataset: str
    title: str
    scale: ScoreScale
    preprocessing: Preprocessing
    config: dict[str, Any] = field(default_factory=dict)
    epoch: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    splits: dict[str, Any] = field(default_factory=dict)
    score_quantiles: tuple[float, ...] = ()
    released: bool = False

    def check(self) -> None:
        """Refuse values that no image can be scored with.

        Raises:
            ValueError: naming the value, what was found and what is expected.
        """
        height, width = self.model.img_size
        bounds = [
            ("model.num_outputs", self.model.num_outputs, 1, 2**14),
            ("model.img_size", min(height, width), 1, MAX_SIDE),
            ("model.img_size", max(height, width), 1, MAX_SIDE),
            ("preprocessing.size", self.preprocessing.size, 1, MAX_SIDE),
            ("scale.low", self.scale.low, -math.inf, math.nextafter(self.scale.high, -math.inf)),
            ("scale.high", self.scale.high, -math.inf, math.inf),
            ("scale.positive_above", self.scale.positive_above, -math.inf, math.inf),
            ("scale.num_votes", self.scale.num_votes, 0, 2**14),
        ]
        for name, value, low, high in bounds:
            if not (math.isfinite(value) and low <= value <= high):
                raise ValueError(f"{name} is {value}: expected {low:g} to {high:g}")
        if not 0 < self.scale.target_scale < math.inf:
            raise ValueError(f"scale.target_scale is {self.scale.target_scale}: expected above 0")


def save_checkpoint(
    path: str | Path,
    model: AestheticModel,
    info: CheckpointInfo,
    trained_on: NDArray[np.int64] | None = None,
) -> None:
    """Write weights and info to a safetensors file, completely or not at all.

    ``trained_on`` are the ``identity_hashes`` of the training images, so that an evaluation can
    tell which test images the model has seen.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    header = {"format": "pt", HEADER: json.dumps({"format": FORMAT} | asdict(info))}
    if trained_on is not None:
        header[TRAINED_ON] = base64.b64encode(trained_on.astype("<i8").tobytes()).decode()
    write_atomically(path, save(state, header))


def read_info(path: str | Path) -> CheckpointInfo:
    """Read a checkpoint's info without keeping its weights.

    Raises:
        WeightsError: the file is absent, damaged, or a checkpoint neither of ours nor the authors'.
    """
    header = _read_header(Path(path))
    return _released_info(read_state(path), path) if header is None else _parse(header, path)


def read_trained_on(path: str | Path) -> NDArray[np.int64] | None:
    """Read the training images of a checkpoint, as ``identity_hashes``; None if it has no list.

    Raises:
        WeightsError: the list is damaged.
    """
    if _read_header(Path(path)) is None:
        return None
    with safe_open(path, framework="np") as file:
        if TRAINED_ON in file.keys():
            return file.get_tensor(TRAINED_ON)
        text = (file.metadata() or {}).get(TRAINED_ON)
    if text is None:
        return None
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), "<i8").astype(np.int64)
    except ValueError as error:
        raise WeightsError(f"{path}: its list of training images is damaged ({error})") from error


def load_checkpoint(path: str | Path) -> tuple[AestheticModel, CheckpointInfo]:
    """Build the model of a checkpoint and load its weights, in evaluation mode.

    One of ours must be complete. One of the authors' gives raw outputs, as in their code.

    Raises:
        WeightsError: the file is absent, damaged or incomplete, holds weights that are not finite,
            or is a checkpoint neither of ours nor of the authors'.
    """
    header = _read_header(Path(path))
    if header is None:
        state = read_state(path)
        info = _released_info(state, path)
    else:
        info, state = _parse(header, path), load_file(path)
        state.pop(TRAINED_ON, None)
    try:
        with EmptyWeights():
            model = info.model.build()
    except Exception as error:  # on junk it fails with whatever it trips over
        raise WeightsError(f"{path}: its model cannot be built: {_brief(error)}") from error
    if header is None:
        load_state(model, state, str(path))
    else:
        _fill(model, state, path)
    return model.eval(), info


def _fill(model: AestheticModel, state: State, path: str | Path) -> None:
    """Load all of a model's weights, from a state dict that holds these and no others."""
    own = model.state_dict()
    for name in own:
        if name not in state:
            raise WeightsError(f"{path}: incomplete: the weight {name!r} is missing")
    for name, value in state.items():
        if name not in own:
            raise WeightsError(f"{path}: the weight {name!r} is none of its model's")
        if value.shape != own[name].shape:
            found, expected = tuple(value.shape), tuple(own[name].shape)
            raise WeightsError(f"{path}: {name!r} has shape {found}: expected {expected}")
        if not is_finite(value):
            raise WeightsError(f"{path}: {name!r} holds values that are NaN or infinite")
    # Copies: tensors of a mapped file would change with it.
    copies = {name: value.to(own[name].dtype, copy=True) for name, value in state.items()}
    model.load_state_dict(copies, assign=True)


def _read_header(path: Path) -> dict[str, str] | None:
    """The metadata of one of our checkpoints; None for a file of somebody else's."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    try:
        with safe_open(path, framework="np") as file:
            header = file.metadata() or {}
    except SafetensorError as error:
        if path.suffix == ".safetensors":
            raise WeightsError(f"{path}: truncated, or not a checkpoint ({error})") from error
        return None
    return header if HEADER in header else None


def _parse(header: dict[str, str], path: str | Path) -> CheckpointInfo:
    """The description in a header."""
    try:
        content = json.loads(header[HEADER])
        if not isinstance(content, dict):
            raise ValueError(f"it is {reprlib.repr(content)}: expected an object")
        version = content.pop("format", 1)
        if version == 1:
            content = _from_format_1(content)
        elif version != FORMAT:
            raise ValueError(
                f"its format is {reprlib.repr(version)}, and this version of eat reads up to "
                f"{FORMAT}: a newer one wrote it"
            )
        info: CheckpointInfo = from_plain(CheckpointInfo, content)
        info.check()
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: its description cannot be read: {_brief(error)}") from error
    return info


def _from_format_1(content: dict[str, Any]) -> dict[str, Any]:
    """A description of version 0.1, which left the scale to the registry, in the present form."""
    spec = DATASETS.get(str(content.get("dataset")))
    if spec is None:
        raise ValueError(
            f"it was trained on {reprlib.repr(content.get('dataset'))}, which is no registered "
            "data set, and gives no scale of its scores"
        )
    given = content.get("preprocessing")
    old = {"size": 224, "train_resize": None, "interpolation": "bicubic", "flip": True,
           "upright": True, "decode": "exact"}  # fmt: skip
    return content | {
        "title": spec.title,
        "scale": asdict(spec.scale),
        "preprocessing": old | given if isinstance(given, dict) else given,
    }


def _released_info(state: State, path: str | Path) -> CheckpointInfo:
    """The description of one of the authors' checkpoints, recognised by its names and head."""
    head = state.get("cls_head.bias")
    if head is None or len(head) not in RELEASED:
        names = f"its first names are {list(state)[:3]}"
        found = names if head is None else f"its head has {len(head)} outputs"
        raise WeightsError(
            f"{path}: weights without the description that our runs write into them, and neither "
            f"of the authors' two, whose cls_head has {' or '.join(map(str, RELEASED))} outputs "
            f"({found}); other weights start a run with --model.weights"
        )
    dataset, pixels = RELEASED[len(head)]
    model = ModelSpec("eat_base_released", len(head), (pixels.size, pixels.size))
    spec = DATASETS[dataset]
    return CheckpointInfo(model, dataset, spec.title, spec.scale, pixels, released=True)


def _brief(error: BaseException) -> str:
    """The first line of an error, cut to a length that can be read."""
    return (str(error).partition("\n")[0] or type(error).__name__)[:300]
