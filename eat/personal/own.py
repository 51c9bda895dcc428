"""A personal model of one person's ratings or choices (``eat adapt``). ``taste`` has the fit."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Linear

from eat.checkpoint import CheckpointInfo, read_info, read_origin, read_trained_on, save_checkpoint
from eat.checkpoint.adapted import OF_GENERAL, describe_general
from eat.config.personal import AdaptOptions
from eat.data.labels.identity import ImageHashes, content_hashes, fingerprint, name_hashes
from eat.data.labels.opinions import Opinions as Table
from eat.data.labels.opinions import read_opinions
from eat.data.labels.table import LabelError, quote
from eat.data.scales import ScoreScale
from eat.evaluation.metrics import bootstrap_interval
from eat.models import WeightsError
from eat.models.weights import weights_file
from eat.personal.taste import Choices, Head, Opinions, Ratings, TasteModel
from eat.scoring import Scorer, note_lines
from eat.system.files import finite
from eat.system.schema import check_range
from eat.system.stops import interruptible

LEAST = {"ratings": (10, 10), "choices": (10, 5)}  # opinions, and photographs that they are about


@dataclass(frozen=True)
class Evidence:
    """How a personal model and the general one agree with opinions that neither has seen.

    Attributes:
        metric: "SRCC" with ratings, or "accuracy" of choices.
        personal: of the personal model, each photograph's score by the opinions on other folds.
        general: of the general model.
        low: lower end of the 95% bootstrap interval, over photographs, of the difference.
        high: upper end.
        opinions: their number.
        photographs: that they are about.
    """

    metric: str
    personal: float
    general: float
    low: float
    high: float
    opinions: int
    photographs: int

    @property
    def difference(self) -> float:
        return self.personal - self.general

    @property
    def better(self) -> bool:
        """Whether the whole interval is above 0."""
        return self.low > 0

    def words(self) -> str:
        """The evidence in a sentence."""
        interval = f"(95% {self.low:+.2f} to {self.high:+.2f})"
        values = f"{self.personal:.2f} against {self.general:.2f}"
        how = f"on {self.photographs} photographs, each by the {self.what} of others"
        if self.better:
            by = f"{self.difference:+.2f} {self.metric} {interval}"
            return f"better than the general model by {by}: {values} {how}"
        difference = f"difference {self.difference:+.2f} {interval}"
        return f"no better than the general model: {self.metric} {values}, {difference}, {how}"

    @property
    def what(self) -> str:
        return "ratings" if self.metric == "SRCC" else "choices"


@dataclass(frozen=True)
class Adaptation:
    """A personal model that was written.

    Attributes:
        out: the file.
        info: what it says of itself.
        evidence: of what it is worth.
        notes: remarks on the ratings, and on how the photographs were read.
    """

    out: Path
    info: CheckpointInfo
    evidence: Evidence
    notes: list[str]

    def words(self) -> str:
        """The evidence in a sentence: better than the general model, or no better."""
        return self.evidence.words()


def adapt(
    ratings: str | Path | pd.DataFrame, *, checkpoint: str | Path, out: str | Path, **options: Any
) -> Adaptation:
    """Write a personal model of one person's ratings or choices.

    The general model's last linear layer is changed by as much as the opinions call for, by ridge
    regression (of ratings, on their own scale) or the Bradley-Terry model (of choices): see
    ``eat.personal.taste``. The same arguments write the same bytes on the same machine.

    Args:
        ratings: a file or table, as ``eat.data.labels.opinions.read_opinions`` takes it.
        checkpoint: the general model.
        out: safetensors file to write, completely or not at all. Only another personal model is
            written over.
        options: the others of ``eat.config.personal.AdaptOptions``.

    Raises:
        LabelError: the ratings cannot be read, are too few or all alike, or have no photographs.
        WeightsError: the checkpoint cannot be read.
        ValueError: an option is out of range, a photograph cannot be read, or the model's scores
            are not those of a last linear layer, each image by itself.
    """
    given = AdaptOptions(checkpoint=str(checkpoint), out=str(out), **options)
    check_range("seed", given.seed, 0, 2**31)
    if read_origin(checkpoint):
        raise ValueError(
            f"{checkpoint} is a personal model: adapt the general one, to the ratings of both"
        )
    _check_out(Path(out), weights_file(checkpoint))
    opinions = read_opinions(ratings, given.low, given.high)
    beside = Path() if isinstance(ratings, pd.DataFrame) else Path(ratings).parent
    paths, table, notes = _find(opinions.table, given.images, beside)
    _check_enough(table)
    origin = describe_general(checkpoint)
    scorer = Scorer(checkpoint, model=given.model, general=given.general, device=given.device,
                    batch_size=given.batch_size, workers=given.workers, scale="own")  # fmt: skip
    info, target = scorer.info, _target(scorer.info, given.target)
    scale = info.scales[target]
    if "score" in table:
        scale = _scale(opinions, scale)
        if opinions.guessed:
            notes.append(f"ratings taken as from {scale.low:g} to {scale.high:g}; for others give "
                         "--low and --high")  # fmt: skip
    head, general = head_of(scorer, paths, target, scale, notes)
    said: Opinions
    if "score" in table:
        said = Ratings(torch.arange(len(paths)), torch.tensor(table["score"].to_numpy()))
    else:
        winners, losers = (torch.tensor(table[name].to_numpy()) for name in ("winner", "loser"))
        spread = max(float(general.std()), 1e-9 * (scale.high - scale.low))
        said = Choices(winners, losers, spread)
    model = TasteModel(head)
    evidence = _evidence(said, model.held_out(said, given.seed).numpy(), general)
    names = _change(scorer, model, model.best(said, given.seed))
    info = _info(info, target, scale, evidence, paths)
    if describe_general(checkpoint) != origin:
        raise WeightsError(f"{checkpoint} changed while it was adapted: adapt it again")
    small = None if given.whole else replace(origin, changed=tuple(names))
    seen = _trained_on(checkpoint, paths)
    save_checkpoint(out, scorer.model, info, seen, general=small)
    return Adaptation(Path(out), info, evidence, notes)


def _check_out(out: Path, general: Path) -> None:
    """Refuse a file that could not be written, or that would be lost, by a ValueError."""
    if out.suffix != ".safetensors" or not out.parent.is_dir():
        raise ValueError(f"{out}: give a .safetensors file in a folder that is there as --out")
    if os.path.lexists(out) and (not out.is_file() or not _is_personal(out)):
        raise ValueError(f"{out} is there and no personal model: give another --out")
    if out.exists() and out.samefile(general):
        raise ValueError(f"{out} is the general model itself: give another --out")


def _is_personal(path: Path) -> bool:
    try:
        return read_info(path).is_personal
    except WeightsError:
        return False


def _find(
    table: pd.DataFrame, images: str | None, beside: Path
) -> tuple[list[Path], pd.DataFrame, list[str]]:
    """The N distinct photographs, the opinions with their numbers 0..N-1 for names, and notes.

    Files of one content are one photograph. The mean stands for several ratings of it.

    Raises:
        LabelError: photographs are not there, or a winner is its own loser.
    """
    columns = [name for name in ("image", "winner", "loser") if name in table]
    names = pd.unique(table[columns].to_numpy().ravel())
    folders = [Path(images)] if images else [beside, Path()]
    places = {name: [folder / name for folder in folders] for name in names}
    found = {n: next((path for path in places[n] if os.path.exists(path)), None) for n in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise LabelError(
            f"{len(missing)} of {len(names)} rated images are not in {folders[0]}, such as "
            f"{quote(missing)}; give their folder as --images"
        )
    paths = [path for path in found.values() if path is not None]
    contents = content_hashes(pd.DataFrame({"image": map(str, paths)}), "")
    # What cannot be read, the scorer will name.
    keys = [content or str(path) for content, path in zip(contents.tolist(), paths, strict=True)]
    first = {key: number for number, key in reversed([*enumerate(keys)])}
    order = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    numbers = {name: order[key] for name, key in zip(names, keys, strict=True)}
    table = table.assign(**{name: table[name].map(numbers) for name in columns})
    distinct = [paths[first[key]] for key in order]
    if "score" not in table:
        same = table["winner"] == table["loser"]
        if same.any():
            one = distinct[table.loc[same, "winner"].iloc[0]]
            raise LabelError(f"{one}: chosen over a copy of itself; remove that choice")
        return distinct, table, []
    means = table.groupby("image")[["score"]].mean().reset_index()
    again = len(table) - len(means)
    notes = [f"{again} ratings repeat a photograph, by name or content: their mean stands for them"]
    return distinct, means, notes if again else []


def _check_enough(table: pd.DataFrame) -> None:
    """Refuse opinions that nothing can be learnt from, by a LabelError."""
    what = "ratings" if "score" in table else "choices"
    photographs = len(np.unique(table.drop(columns="score", errors="ignore")))
    opinions, distinct = LEAST[what]
    if len(table) < opinions or photographs < distinct:
        raise LabelError(
            f"{len(table)} {what} of {photographs} photographs: expected at least {opinions}, of "
            f"{distinct} photographs; a few dozen are better"
        )
    if what == "ratings" and table["score"].nunique() == 1:
        raise LabelError(f"all ratings are {table['score'].iloc[0]:g}: they tell nothing apart")


def _target(info: CheckpointInfo, target: str | None) -> str:
    """The target that opinions are about."""
    if target is not None and target not in info.targets:
        known = ", ".join(info.targets) or "none: it predicts one score"
        raise ValueError(f"target is {target!r}: expected one of the model's: {known}")
    return target or next(iter(info.scales))


def _scale(opinions: Table, general: ScoreScale) -> ScoreScale:
    """The scale of ratings, with the model's number of votes."""
    low, high = opinions.low, opinions.high
    size = max(abs(low), abs(high))
    return ScoreScale(low, high, size, (low + high) / 2, general.num_votes)


def _weights(info: CheckpointInfo, target: str, scale: ScoreScale) -> Tensor:
    """(K,) what the outputs are weighed by in the mean score on a scale."""
    if info.num_votes:
        return torch.linspace(scale.low, scale.high, info.num_votes, dtype=torch.float64)
    weights = torch.zeros(len(info.scales), dtype=torch.float64)
    weights[[*info.scales].index(target)] = scale.target_scale
    return weights


def _layer(scorer: Scorer) -> Linear:
    """The model's last layer.

    Raises:
        ValueError: it is not linear, or not known.
    """
    layer = scorer.model.get_classifier()
    if not isinstance(layer, Linear) or layer.bias is None:
        raise ValueError(
            f"{scorer.info.model.name} has no last linear layer with a bias that adapt could "
            f"change, or does not name it: get_classifier() gives {type(layer).__name__}"
        )
    return layer


def head_of(
    scorer: Scorer, paths: list[Path], target: str, scale: ScoreScale, notes: list[str]
) -> tuple[Head, NDArray[np.float64]]:
    """What the last layer takes and gives for photographs, and the general scores (N,).

    What was read in part is added to the notes.

    Raises:
        ValueError: a photograph cannot be read; or the scores do not come from that layer.
    """
    inputs, outputs = [], []

    def keep(_: torch.nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        inputs.append(args[0].cpu().numpy())
        outputs.append(output.cpu().numpy())

    hook = _layer(scorer).register_forward_hook(keep)
    scores = list(interruptible(scorer.score_files(paths)))
    hook.remove()
    errors = [score.error for score in scores if score.error]
    if errors:
        raise ValueError(f"{len(errors)} of {len(paths)} photographs cannot be read: {errors[0]}")
    notes += note_lines((score.image, score.note) for score in scores)
    features, logits = (
        torch.from_numpy(np.concatenate(parts)[: len(paths)]).double()
        for parts in (inputs, outputs)
    )
    general = np.array([score.targets.get(target, score.score) for score in scores])
    weights, own = (_weights(scorer.info, target, s) for s in (scale, scorer.info.scales[target]))
    activate = scorer.model.activate
    again = (activate(logits) @ own).numpy()
    if not np.allclose(again, general, rtol=1e-4, atol=1e-4 * np.abs(own.numpy()).max()):
        raise ValueError("the model's scores are not made by its last linear layer alone")
    direction = weights - weights.mean() if scorer.info.num_votes else weights / weights.sum()
    return Head(features, logits, direction, lambda z: activate(z) @ weights), general


def _evidence(
    said: Opinions, held_out: NDArray[np.float64], general: NDArray[np.float64]
) -> Evidence:
    """Both models' agreement with the opinions, the personal one's by those of other folds."""

    def agreements(rows: NDArray[Any]) -> tuple[float, float]:
        return said.agreement(held_out, rows), said.agreement(general, rows)

    rows: NDArray[Any] = np.arange(len(general))
    personal, before = agreements(rows)
    low, high = bootstrap_interval(lambda drawn: np.subtract(*agreements(drawn)), rows)
    return Evidence(said.metric, personal, before, float(low), float(high), len(said), len(rows))


def _change(scorer: Scorer, model: TasteModel, coefficients: Tensor) -> list[str]:
    """Change the last layer, and return the names of its weights."""
    layer = _layer(scorer)
    with torch.no_grad():
        for parameter, change in zip(
            (layer.weight, layer.bias), model.change(coefficients, layer), strict=True
        ):
            parameter += change.to(parameter)
    return [n for n, p in scorer.model.named_parameters() if p is layer.weight or p is layer.bias]


def _info(
    info: CheckpointInfo,
    target: str,
    scale: ScoreScale,
    evidence: Evidence,
    paths: list[Path],
) -> CheckpointInfo:
    """The description of the personal model."""
    table = pd.DataFrame({"image": map(str, paths)})
    metric = evidence.metric.lower()
    metrics = {metric: evidence.personal, f"{metric}{OF_GENERAL}": evidence.general,
               "difference_low": evidence.low, "difference_high": evidence.high}  # fmt: skip
    own = replace(
        info,
        title=f"{info.title}, adapted to {evidence.opinions} {evidence.what}",
        metrics=finite(metrics),
        splits={"train": {"images": len(paths), "fingerprint": fingerprint(table)}},
        score_quantiles=(),
        released=False,
    )
    if evidence.what == "choices":
        return own
    places = dict.fromkeys(("labels", "images", "test", "val", "cache"))
    data = {"name": "table", "low": scale.low, "high": scale.high, **places}
    config = info.config | {"data": info.config.get("data", {}) | data}
    targets = info.targets | ({target: scale} if info.targets else {})
    first = next(iter(targets.values()), scale)
    return replace(own, dataset="table", scale=first, targets=targets, config=config)


def _trained_on(checkpoint: str | Path, paths: list[Path]) -> ImageHashes | None:
    """The images that the general model or the person's opinions are of, if all are known."""
    known = read_trained_on(checkpoint)
    if known is None:
        return None
    table = pd.DataFrame({"image": map(str, paths)})
    rated = name_hashes(table), content_hashes(table, "")
    return ImageHashes(*map(np.union1d, known, rated))
