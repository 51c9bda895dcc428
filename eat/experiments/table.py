"""A table or figure of the paper: its rows, how they differ, and what the paper prints for them."""

import json
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from eat.config import TrainConfig
from eat.config.files import read_yaml, shipped_configs
from eat.data.registry import DATASETS
from eat.models.variants import find_variant
from eat.system.schema import check_range, typed
from eat.system.words import nearest
from eat.training.setup import resolve_model

# Options of a run, given those, by dotted name, that win over all others.
Configure = Callable[[Mapping[str, Any]], TrainConfig]
Which = Literal["first", "second"]  # of an experiment's data sets
PAPER_MODEL, PAPER_SIZE = "eat_base", 224  # what the paper trains, unless a row says otherwise


@dataclass(frozen=True)
class Published:
    """Numbers that the paper prints for a row; epochs as at least so many ("25+").

    ``personal`` is SRCC of the adapted models, and ``deviation`` what follows its ±.
    """

    srcc: float | None = None
    plcc: float | None = None
    ratio: float | None = None
    mse: float | None = None
    gflops: float | None = None
    mparams: float | None = None
    epochs: int | None = None
    personal: float | None = None
    deviation: float | None = None


@dataclass(frozen=True)
class Workers:
    """Test workers of a data set.

    Attributes:
        data: the data set's name.
        options: by their names, of the protocol that adapts a model to them.
    """

    data: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A model of an experiment, by what differs from the experiment's base.

    Attributes:
        options: options of a run by their dotted names.
        letters: attention at each of the four stages, as in Table 4: S, D or E, each of which
            stands for as many pairs of blocks (window attention first) as the base has there.
        kernel: k_in of stage 3.
        model: a named model of another family in place of the base, without the base's settings and
            weights; and of its size, where the base is not the paper's.
        size: side of the images where the base takes 224; in proportion where it takes another.
        source: where the paper prints the numbers; "" for the experiment's ``where``.
        shots: ratings of a test worker that adapt the model; None for a row without workers.
        train_on: which of the experiment's data sets the model is trained on.
        test_on: whose workers it is adapted to.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    letters: str | None = None
    kernel: int | None = None
    model: tuple[str, str] | None = None
    size: int = PAPER_SIZE
    published: Published = Published()
    source: str = ""
    shots: int | None = None
    train_on: Which = "first"
    test_on: Which = "first"

    def differences(self, base: TrainConfig) -> dict[str, Any] | None:
        """Options of the row, by dotted name; None if the base's maps are too small for it."""
        settings, side = full_settings(base), image_side(base)
        found: dict[str, Any] = {}
        if self.model is not None:
            name = self.model[base.model.name != PAPER_MODEL]
            found = {"model.name": name, "model.settings": {}, "model.weights": None}
            found |= {"model.enhance": None} if base.model.enhance else {}
        found |= self.options
        if "stages" not in settings and (self.letters is not None or self.kernel is not None):
            raise ValueError(
                f"it differs in settings of EAT, which --model.name {base.model.name} does not have"
            )
        if self.letters is not None:
            pairs = [max(1, len(stage) // 2) for stage in settings["stages"]]
            stages = [f"L{a}" * count for a, count in zip(self.letters, pairs, strict=True)]
            found["model.settings.stages"] = stages
        if self.kernel is not None:
            if self.kernel > -(-side // 16):
                return None
            kernels = [*settings["interest_kernels"]]
            kernels[2] = self.kernel
            found["model.settings.interest_kernels"] = kernels
        if self.size != PAPER_SIZE:
            found["data.size"] = round(side * self.size / PAPER_SIZE / 32) * 32
        return found


@dataclass(frozen=True)
class Experiment:
    """A table or figure.

    Attributes:
        name: of its file.
        where: its place in the paper.
        data: the paper's data set.
        epochs: for which the paper trains, where a row does not say otherwise.
        options: of a run, by dotted name, common to all rows.
        plot: values by row, or over the number of interest points; or, of the first seed's models,
            saliency maps, or best, worst and most wrong predictions.
        slice_by: columns of the labels; SRCC is measured in each slice by the first that is there.
        seeds: runs of each row, unless told otherwise.
        task: of the sample (``eat sample``). On ``background``, which no other data can replace,
            it is measured too how well predictions follow either term, and what is attended to.
        second: the paper's second data set; "" where there is one.
        workers: of the data sets, for rows with ``shots``; no file says them.
    """

    name: str
    title: str
    where: str
    data: str
    epochs: int
    rows: tuple[Row, ...]
    options: dict[str, Any] = field(default_factory=dict)
    plot: Literal["rows", "points", "saliency", "examples"] = "rows"
    slice_by: tuple[str, ...] = ()
    seeds: int = 3
    task: Literal["photos", "background"] = "photos"
    second: str = ""
    workers: dict[Which, Workers] = field(default_factory=dict)

    @property
    def personalised(self) -> bool:
        """Whether models are adapted to single workers."""
        return any(row.shots is not None for row in self.rows)

    def paper_data(self, which: Which) -> str:
        """The paper's data set."""
        return self.data if which == "first" else self.second

    def check(self) -> None:
        """Refuse what cannot be run.

        Raises:
            ValueError: naming what is wrong, and what is expected.
        """
        needs_second = any("second" in (row.train_on, row.test_on) for row in self.rows)
        for name in ("data", "second") if needs_second else ("data",):
            if (found := getattr(self, name)) not in DATASETS:
                raise ValueError(f"{name} is {found!r}: expected one of {', '.join(DATASETS)}")
        names = [row.name for row in self.rows]
        if not names or len({*names}) < len(names):
            raise ValueError(f"rows are {names}: expected at least one, each with its own name")
        check_options("options", self.options)
        for row in self.rows:
            if not row.name.isprintable() or not row.name.strip() or "|" in row.name:
                raise ValueError(f"a row's name is {row.name!r}: expected text without | in a line")
            check_options(f"options of {row.name!r}", row.options)
            for name, value in asdict(row.published).items():
                check_range(f"published.{name} of {row.name!r}", value, 0, 1e9)
            if row.letters is not None and (len(row.letters) != 4 or {*row.letters} - {*"SDE"}):
                raise ValueError(
                    f"letters of {row.name!r} are {row.letters!r}: expected four of S, D and E"
                )

    def reduced(self, row: Row, config: TrainConfig, train_images: int) -> list[str]:
        """What makes a run less than the paper's."""
        paper, optim = self.paper_data(row.train_on), config.optim
        spec = DATASETS[paper]
        model = row.model[0] if row.model is not None else PAPER_MODEL
        epochs = row.published.epochs or self.epochs
        fewer_epochs = (optim.epochs < epochs, f"{optim.epochs} epochs, not {epochs}")
        if self.task == "background":  # is not in the paper
            return [fewer_epochs[1]] * fewer_epochs[0]
        official = spec.counts.get("train", 0)
        other_data = config.data.name != paper
        pairs = [
            (other_data, f"{config.data.name} ({train_images} training images), not {spec.title}"),
            (
                not other_data and train_images < 0.89 * official,  # a tenth may be held out
                f"{train_images} training images of {official}",
            ),
            (config.model.name != model, f"{config.model.name}, not {model}"),
            (image_side(config) < row.size, f"{image_side(config)} pixels, not {row.size}"),
            fewer_epochs,
            (config.model.weights is None, "no pretrained weights"),
        ]
        return [text for holds, text in pairs if holds]


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse options that an experiment's file may not set.

    Raises:
        ValueError: naming them.
    """
    for option in options:
        if option.partition(".")[0] not in ("data", "model", "optim"):
            raise ValueError(
                f"{name} has {reprlib.repr(option)}: expected options of data, model and optim; "
                "those of run belong on the command line"
            )


def full_settings(config: TrainConfig) -> dict[str, Any]:
    """Every keyword that a run's model is built with."""
    return find_variant(str(config.model.name)).all_settings() | config.model.settings


def image_side(config: TrainConfig) -> int:
    """Side of a run's images in pixels."""
    return config.data.size or full_settings(config)["img_size"]


def plain_settings(config: TrainConfig) -> TrainConfig:
    """The same run without settings that its model has anyway, so that equal runs look equal."""
    own = find_variant(str(config.model.name)).all_settings()
    given = {
        name: value
        for name, value in config.model.settings.items()
        if name not in own or json.dumps(value) != json.dumps(own[name])
    }
    return replace(config, model=replace(config.model, settings=given))


def configs_of(experiment: Experiment, configure: Configure) -> list[tuple[Row, TrainConfig]]:
    """The rows that fit the base model, each with the options of its run.

    Raises:
        ValueError: a row's options are out of range, or no row fits.
    """
    base = resolve_model(configure({}))
    found = []
    for row in experiment.rows:
        try:
            if (options := row.differences(base)) is not None:
                found.append((row, plain_settings(resolve_model(configure(options)))))
        except ValueError as error:
            raise ValueError(f"row {row.name!r}: {error}") from error
    if not found:
        raise ValueError(
            f"{experiment.name}: no row fits the base model, whose map in stage 3 has "
            f"{-(-image_side(base) // 16)} tokens a side"
        )
    return found


def read_experiment(path: Path) -> Experiment:
    """Read an experiment's file.

    Raises:
        ValueError: naming the file and what is wrong in it.
    """
    try:
        content = read_yaml(path)
        if not isinstance(content, dict):
            raise ValueError(f"it holds {str(content)[:60]!r}: expected title, where, data, rows")
        found: Experiment = typed(Experiment, content | {"name": path.stem}, "")
        found.check()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return found


def find_experiments(name: str) -> list[Experiment]:
    """The shipped experiment of a name, all of them for ``all``, or that of a file.

    Raises:
        ValueError: there is none; the message lists the names.
    """
    shipped = shipped_configs("experiments")
    if name == "all":
        return [read_experiment(path) for path in shipped.values()]
    if name in shipped or Path(name).is_file():
        return [read_experiment(shipped.get(name) or Path(name))]
    near = nearest(name, shipped)
    hint = f"did you mean {near}? " if near else ""
    raise ValueError(f"no experiment {name!r}; {hint}there are {', '.join(shipped)} and all")
