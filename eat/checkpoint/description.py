"""A checkpoint's description of itself: all that scoring needs beside the weights."""

import json
import reprlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from eat.checkpoint.adapted import OF_GENERAL
from eat.checkpoint.releases import RELEASED, USUAL_BATCH, Release
from eat.config.run import MAX_SIZE, EnhanceConfig
from eat.data.registry import DATASETS
from eat.data.scales import ScoreScale
from eat.data.transforms import Preprocessing
from eat.models import AestheticModel, WeightsError, create_model
from eat.system.plugins import is_path
from eat.system.schema import check_range, typed
from eat.system.words import brief

FORMAT = 2  # of the description; raise it when an older version could not read a new one
HEADER = "eat"  # key of our JSON in the safetensors header
MAX_SCORE = 1e9
MAX_TITLE = 1000  # characters of a data set's title or name
MAX_TARGET = 200  # characters of a target's name
OUR_COLUMNS = ("image", "error", "note", "percentile")  # beside the targets in files of scores
MAX_EVAL_BATCH = 64  # images of a forward pass that keeps nothing for a backward one


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

    @property
    def chosen_on(self) -> str:
        """The split that chose the epoch, in a word."""
        return "validation" if "val" in self.splits else "test"

    @property
    def ranked_among(self) -> str:
        """The photographs whose predicted scores have ``score_quantiles``, in words."""
        return f"the {self.chosen_on} split's photographs of {self.title}"

    @property
    def is_personal(self) -> bool:
        """Whether ``eat adapt`` has made the model."""
        return any(name.endswith(OF_GENERAL) for name in self.metrics)

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
            if not 0 < len(name) <= MAX_TARGET or not name.isprintable() or name in OUR_COLUMNS:
                raise ValueError(
                    f"targets has {reprlib.repr(name)}: expected a name of up to {MAX_TARGET} "
                    f"characters that can be printed, other than {', '.join(OUR_COLUMNS)}"
                )
        ranks = self.score_quantiles
        check_range("score_quantiles", list(ranks), -MAX_SCORE, MAX_SCORE)
        if len(ranks) == 1 or list(ranks) != sorted(ranks):
            raise ValueError(
                f"score_quantiles is {reprlib.repr(ranks)}: expected none, or several in ascending "
                "order"
            )
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
        for name, text in (("title", self.title), ("dataset", self.dataset)):
            if len(text) > MAX_TITLE:
                raise ValueError(
                    f"{name} is {reprlib.repr(text)}: expected up to {MAX_TITLE} characters"
                )
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


def parse(header: dict[str, str], path: str | Path) -> CheckpointInfo:
    """The description in a header.

    Raises:
        WeightsError: it is damaged, of a newer version, or describes what cannot be.
    """
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
        raise WeightsError(f"{path}: its description cannot be read: {brief(error)}") from error
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


def describe_release(release: Release) -> CheckpointInfo:
    """The description of one of the authors' checkpoints."""
    pixels, spec = release.preprocessing, DATASETS[release.dataset]
    outputs = len(release.targets) or max(release.heads.values())
    scales = spec.scales(release.targets)
    return CheckpointInfo(
        model=ModelSpec(release.model, outputs, (pixels.size, pixels.size)),
        dataset=release.dataset,
        title=spec.title,
        scale=next(iter(scales.values())),
        preprocessing=pixels,
        released=True,
        targets=scales if release.targets else {},
    )
