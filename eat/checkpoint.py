"""A checkpoint: one safetensors file with the weights, and in its header all that scoring needs.

The ``.pth`` files that the authors of EAT, TANet and DeT published are read as well.
"""

import base64
import json
import logging
import reprlib
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from eat.config.run import MAX_SIZE, EnhanceConfig
from eat.data.labels.identity import ImageHashes
from eat.data.registry import DATASETS
from eat.data.scales import ScoreScale
from eat.data.transforms import Preprocessing
from eat.models import AestheticModel, WeightsError, create_model
from eat.models.empty import EmptyWeights
from eat.models.foreign import State
from eat.models.timm_backbone import is_name
from eat.models.weights import (
    TRAINED_ON,
    as_weight,
    check_dtypes,
    load_state,
    read_state,
    weights_file,
)
from eat.system.files import write_atomically
from eat.system.plugins import digest, is_path
from eat.system.schema import check_range, typed

log = logging.getLogger("eat")
FORMAT = 2  # of the description; raise it when an older version could not read a new one
HEADER = "eat"  # key of our JSON in the safetensors header
TRAINED_KEYS = (TRAINED_ON, f"{TRAINED_ON}_contents")  # of ImageHashes in the header
MAX_SCORE = 1e9
# Images of a forward pass that keeps nothing for a backward one.
USUAL_BATCH, MAX_EVAL_BATCH = 16, 64

AVA_PIXELS = Preprocessing(size=224, train_resize=None, interpolation="bicubic", flip=True,
                           upright=False, decode="exact")  # fmt: skip
CROPPED_PIXELS = replace(AVA_PIXELS, train_resize=256, interpolation="bilinear")


@dataclass(frozen=True)
class Release:
    """A checkpoint that the authors published.

    Attributes:
        model: a named model.
        dataset: that it was trained on.
        heads: biases of its heads and their numbers of outputs, which tell it from the others.
        batch_size: images of a batch that their code evaluates, and averages or compares.
        unused: names in the file that their code has no use for.
        targets: columns of the data set's labels that it predicts; empty for votes or a score.
    """

    model: str
    dataset: str
    heads: dict[str, int]
    preprocessing: Preprocessing
    batch_size: int = USUAL_BATCH
    unused: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()


DET_HEADS = {"cls_head.bias": 1, "class_head.bias": 1}  # of which it does not use the first
RELEASED = (
    Release("eat_base_released", "ava", {"cls_head.bias": 10}, AVA_PIXELS),
    Release("eat_base_released", "tad66k", {"cls_head.bias": 1}, CROPPED_PIXELS),
    Release("tanet_ava", "ava", {"head.2.bias": 10}, AVA_PIXELS, 48),
    Release("tanet_tad66k", "tad66k", {"head.2.bias": 1}, CROPPED_PIXELS, 40,
            unused=("tygertnet.relu7.weight",)),
    Release("det_icaa17k", "icaa17k", DET_HEADS | {"class_head2.bias": 1}, CROPPED_PIXELS, 16,
            targets=("score", "color")),
    Release("det_spaq", "spaq", DET_HEADS, AVA_PIXELS, 32, targets=("colorfulness",)),
)  # fmt: skip
HEADS = {name for release in RELEASED for name in release.heads}


@dataclass(frozen=True)
class ModelSpec:
    """The arguments of ``create_model``, ``img_size`` as height and width in pixels."""

    name: str
    num_outputs: int
    img_size: tuple[int, int]
    settings: dict[str, Any] = field(default_factory=dict)
    enhance: EnhanceConfig | None = None

    def build(self, model: str | None = None) -> AestheticModel:
        """Build the model with fresh weights.

        ``model`` is the user's word for the model, FILE.py:FUNCTION, if ``name`` is such a one:
        that may come from a file of somebody else's, and is never imported.

        Raises:
            ValueError: it is needed and not given, or the other way round; or as ``create_model``.
        """
        own = is_path(self.name)
        if own and not is_path(model or ""):
            raise ValueError(
                f"it was made by {self.name!r:.200}: give that file, or where it is now, as "
                "--model FILE.py:FUNCTION (of a run --model.name)"
            )
        if not own and model not in (None, self.name):
            raise ValueError(f"it is of {self.name}, which needs no --model, and none is {model}")
        name = str(model) if own else self.name
        enhance = None if self.enhance is None else asdict(self.enhance)
        return create_model(name, self.num_outputs, self.img_size, enhance=enhance, **self.settings)


@dataclass
class CheckpointInfo:
    """A checkpoint's description of itself.

    Attributes:
        dataset: name of the data set that it was trained on, which need not be registered here.
        title: that data set's name in print.
        scale: of that data set's scores, or of the first target.
        config: the options of the run.
        epoch: finished epochs.
        metrics: of that epoch.
        splits: for each split of the run its number of images and their fingerprint.
        score_quantiles: 0th to 100th percentile of the predicted scores on the split that chose
            the epoch; empty if unknown.
        released: the weights are the authors' own.
        files: SHA-256 (hex) of the user's own files in the run, by the option that named them.
        targets: scales of the columns of the labels that the outputs are scores of, in their order;
            empty for votes or a score.
    """

    model: ModelSpec
    dataset: str
    title: str
    scale: ScoreScale
    preprocessing: Preprocessing
    config: dict[str, dict[str, Any]] = field(default_factory=dict)
    epoch: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    splits: dict[str, Any] = field(default_factory=dict)
    score_quantiles: tuple[float, ...] = ()
    released: bool = False
    files: dict[str, str] = field(default_factory=dict)
    targets: dict[str, ScoreScale] = field(default_factory=dict)

    @property
    def scales(self) -> dict[str, ScoreScale]:
        """The scale of each target; without targets that of the score."""
        return self.targets or {"score": self.scale}

    @property
    def num_votes(self) -> int:
        """Vote shares that the model predicts; 0 if it predicts scores alone."""
        return self.model.num_outputs if self.model.num_outputs > len(self.scales) else 0

    def check(self) -> None:
        """Refuse values that no image can be scored with. The model checks its own.

        Raises:
            ValueError: naming the value, what was found and what is expected.
        """
        side = self.preprocessing.size
        bounds: list[tuple[str, float | None, float, float]] = [
            ("preprocessing.size", side, 1, MAX_SIZE),
            ("preprocessing.train_resize", self.preprocessing.train_resize, side, 4 * MAX_SIZE),
            *(("preprocessing.mean", mean, -10, 10) for mean in self.preprocessing.mean),
            *(("preprocessing.std", std, 1e-3, 1e3) for std in self.preprocessing.std),
            ("epoch", self.epoch, 0, 2**31),
        ]
        for bound in bounds:
            check_range(*bound)
        _check_scale("scale", self.scale)
        for name, scale in self.targets.items():
            _check_scale(f"targets.{name}", scale)
            if not name.isprintable():
                raise ValueError("targets hold characters that cannot be printed")
        if self.targets and len(self.targets) != self.model.num_outputs:
            raise ValueError(
                f"model.num_outputs is {self.model.num_outputs}: expected {len(self.targets)}, one "
                "for each of the targets"
            )
        if self.model.img_size != (side, side):
            raise ValueError(
                f"model.img_size is {self.model.img_size}: expected the {side} x {side} pixels of "
                "preprocessing.size"
            )
        if is_path(self.dataset):  # which a command that takes it as a name would import
            raise ValueError(f"dataset is {self.dataset!r:.200}: expected a name, not a file")
        if not (self.title + self.dataset).isprintable():
            raise ValueError("title and dataset hold characters that cannot be printed")
        if self.released and self.release is None:
            raise ValueError(
                f"released is true, and the authors published no {reprlib.repr(self.model.name)} "
                f"of {reprlib.repr(self.dataset)}"
            )

    @property
    def release(self) -> Release | None:
        """The authors' checkpoint that this is, if it is one."""
        own = (self.model.name, self.dataset)
        found = (row for row in RELEASED if (row.model, row.dataset) == own)
        return next(found, None) if self.released else None

    @property
    def batch_size(self) -> int:
        """Images of a batch, for a model that mixes them: the authors', or that of the run."""
        if (release := self.release) is not None:
            return release.batch_size
        found = self.config.get("optim", {}).get("batch_size")
        return min(found, MAX_EVAL_BATCH) if isinstance(found, int) and found > 0 else USUAL_BATCH


def _check_scale(name: str, scale: ScoreScale) -> None:
    """Refuse a scale that is none, by a ValueError."""
    for field_name in ("low", "high", "positive_above"):
        check_range(f"{name}.{field_name}", getattr(scale, field_name), -MAX_SCORE, MAX_SCORE)
    check_range(f"{name}.num_votes", scale.num_votes, 0, 2**14)
    check_range(f"{name}.target_scale", scale.target_scale, 1 / MAX_SCORE, MAX_SCORE)
    if scale.low >= scale.high:
        raise ValueError(f"{name}.low is {scale.low}: expected less than high, {scale.high}")


def save_checkpoint(
    path: str | Path,
    model: AestheticModel,
    info: CheckpointInfo,
    trained_on: ImageHashes | None = None,
) -> None:
    """Write weights and info to a safetensors file, completely or not at all.

    ``trained_on`` are the training images, so that an evaluation can tell which test images the
    model has seen.
    """
    state = {  # copies, as weights that a model uses twice share their memory
        name: value.detach().to("cpu", copy=True).contiguous()
        for name, value in model.state_dict().items()
    }
    header = {"format": "pt", HEADER: json.dumps({"format": FORMAT} | asdict(info))}
    for key, hashes in zip(TRAINED_KEYS, trained_on or (), strict=False):
        header[key] = base64.b64encode(hashes.astype("<i8").tobytes()).decode()
    write_atomically(path, save(state, header))


def read_info(path: str | Path) -> CheckpointInfo:
    """Read a checkpoint's info without keeping its weights.

    Raises:
        WeightsError: the file is absent, damaged, or a checkpoint neither of ours nor the authors'.
    """
    path = weights_file(path)
    header = _read_header(path)
    return _released_info(read_state(path), path) if header is None else _parse(header, path)


def described_model(path: str | Path) -> ModelSpec | None:
    """The model that one of our checkpoints describes; None for weights of others.

    Raises:
        WeightsError: the file is absent or damaged, or does not hold that model's weights, which
            of a model from a user's file cannot be told.
    """
    theirs = is_name(path) or Path(path).suffix == ".pth"
    if theirs or (header := _read_header(path := weights_file(path))) is None:
        return None
    info = _parse(header, path)
    if not is_path(info.model.name):
        _check_shapes(_build(info, path).state_dict(), path)
    return info.model


def read_trained_on(path: str | Path) -> ImageHashes | None:
    """Read the training images of a checkpoint; None if it has no list. Older ones have names only.

    Raises:
        WeightsError: the list is damaged.
    """
    path = weights_file(path)
    if _read_header(path) is None:
        return None
    try:
        with safe_open(path, framework="np") as file:
            if TRAINED_ON in file.keys():
                names = file.get_tensor(TRAINED_ON).astype(np.int64, casting="safe").ravel()
                return ImageHashes(names, np.empty(0, np.int64))
            metadata = file.metadata() or {}
        if TRAINED_ON not in metadata:
            return None
        lists = [base64.b64decode(metadata.get(key, ""), validate=True) for key in TRAINED_KEYS]
        return ImageHashes(*(np.frombuffer(one, "<i8").astype(np.int64) for one in lists))
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path}: its list of training images is damaged ({error})") from error


def load_checkpoint(
    path: str | Path, model: str | None = None
) -> tuple[AestheticModel, CheckpointInfo]:
    """Build the model of a checkpoint and load its weights, in evaluation mode.

    One of ours must be complete. One of the authors' gives raw outputs, as in their code.

    Args:
        path: of the checkpoint, its run or folder, or a repository of the hub: see
            ``weights_file``.
        model: FILE.py:FUNCTION, for a checkpoint of a model that such a function makes. A name in
            the checkpoint is never imported.

    Raises:
        WeightsError: the file is absent, damaged or incomplete, holds weights that are not finite,
            is a checkpoint neither of ours nor of the authors', or needs ``model``.
    """
    path = weights_file(path)
    header = _read_header(path)
    if header is None:
        state = read_state(path)
        info = _released_info(state, path)
        built = _build(info, path, model)
        report = load_state(built, state, str(path))
        unused = info.release.unused if info.release else ()
        for name in {*report.left_out, *report.resized} - {*unused}:
            raise WeightsError(
                f"{path}: {name!r} is none of the weights that the authors published"
            )
        return built.eval(), info
    info = _parse(header, path)
    built = _build(info, path, model)
    if model is not None and digest(model) != info.files.get("model.name", digest(model)):
        log.warning("%s has changed since %s was trained with it", model, path)
    own = built.state_dict()
    _check_shapes(own, path)
    state = load_file(path)
    state.pop(TRAINED_ON, None)
    check_dtypes(state, own, str(path))
    # Copies: tensors of a mapped file would change with it.
    copies = {n: as_weight(state[n], own[n], n, str(path), copy=True) for n in own}
    built.load_state_dict(copies, assign=not is_path(info.model.name))  # else they stay tied
    return built.eval(), info


def _build(info: CheckpointInfo, path: str | Path, model: str | None = None) -> AestheticModel:
    """The model that a checkpoint describes; without weights, if it is one of the package."""
    try:
        with nullcontext() if is_path(info.model.name) else EmptyWeights():
            return info.model.build(model)
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path}: its model cannot be built: {_brief(error)}") from error


def _check_shapes(own: State, path: str | Path) -> None:
    """Refuse a file that does not hold all of a model's weights, or holds others; reads none."""
    with safe_open(path, framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    shapes.pop(TRAINED_ON, None)
    for name, value in own.items():
        found, expected = shapes.pop(name, None), tuple(value.shape)
        if found is None:
            raise WeightsError(f"{path}: incomplete: the weight {name!r} is missing")
        if found != expected:
            raise WeightsError(f"{path}: {name!r} has shape {found}: expected {expected}")
    for name in shapes:
        raise WeightsError(f"{path}: the weight {name!r} is none of its model's")


def _read_header(path: Path) -> dict[str, str] | None:
    """The metadata of one of our checkpoints; None for a file of somebody else's."""
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
        info: CheckpointInfo = typed(CheckpointInfo, content, "")
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
    """The description of one of the authors' checkpoints, recognised by its heads."""
    heads = {n: len(state[n]) if state[n].ndim == 1 else 0 for n in HEADS & state.keys()}
    row = next((row for row in RELEASED if row.heads == heads), None)
    if row is None:
        found = f"its first names are {list(state)[:3]}"
        if heads:
            found = f"its head has {' and '.join(map(str, heads.values()))} outputs"
        elif "pos_layer.weight" in state:
            found = "it is PS-ViT, whose authors' weights classify ImageNet"
        known = ", ".join(f"{row.model} of {DATASETS[row.dataset].title}" for row in RELEASED)
        raise WeightsError(
            f"{path}: weights without the description that our runs write into them, and none of "
            f"those that the authors published for aesthetics ({known}): {found}; other weights "
            "start a run with --model.weights"
        )
    pixels, spec = row.preprocessing, DATASETS[row.dataset]
    outputs = len(row.targets) or max(heads.values())
    model, scales = ModelSpec(row.model, outputs, (pixels.size,) * 2), spec.scales(row.targets)
    scale, targets = next(iter(scales.values())), scales if row.targets else {}
    return CheckpointInfo(
        model, row.dataset, spec.title, scale, pixels, released=True, targets=targets
    )


def _brief(error: BaseException) -> str:
    """The first line of an error, cut to a length that can be read."""
    return (str(error).partition("\n")[0] or type(error).__name__)[:300]
