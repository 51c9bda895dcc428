"""A checkpoint as one file for another runtime, checked against PyTorch before it is written."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from eat.checkpoint import CheckpointInfo, load_checkpoint
from eat.config.commands import EvaluateOptions
from eat.config.sharing import ExportOptions
from eat.data.photos import find_images
from eat.data.scales import Scales
from eat.models.weights import weights_file
from eat.scoring.scorer import ONE_TO_TEN
from eat.sharing.formats import FORMATS, Array, Card, Run
from eat.sharing.graph import Rater
from eat.system.device import DTYPES
from eat.system.files import file_digest, refuse_foreign, write_atomically
from eat.system.words import brief
from eat.version import __version__

DRAWN, BATCH, MOST = 8, 8, 64  # images that are drawn, computed at a time, and compared
# Largest difference from PyTorch's fp32, as `difference` has it, that a file is written with.
TOLERANCES = {"fp32": 1e-4, "fp16": 0.02, "bf16": 0.2, "int8": 0.3}
RESIZE_TOLERANCE = 0.02


def export(checkpoint: str | Path, options: ExportOptions) -> Card:
    """Write a checkpoint as a file that scores photographs without this package.

    Args:
        checkpoint: of a run, or one of the authors'.
        options: as documented there.

    Returns:
        What the file says of itself.

    Raises:
        WeightsError: the checkpoint cannot be read.
        ImageError: a photograph cannot be read.
        ValueError: options do not fit one another, a package is missing, the model has no scores of
            single images or no such form, the file does not score as PyTorch does, or something
            else is where it would go.
    """
    form, out = FORMATS[options.format], Path(options.out)
    if out.suffix != form.suffix:
        raise ValueError(f"out is {options.out!r}: expected a name that ends in {form.suffix}")
    refuse_foreign(out, *form.marks)
    if options.precision in form.lacks:
        raise ValueError(f"--format {options.format} has no {options.precision}: take another")
    if options.labels and not options.images:
        raise ValueError("--labels needs the folder of its images: give --images")
    model, info = load_checkpoint(checkpoint, options.model, options.general)
    if options.own_rule:
        model.use_own_rule(info.batch_size)
    else:
        model.use_own_points()
    scales = info.scales
    if options.scale == "ten":
        scales = dict.fromkeys(scales, ONE_TO_TEN)
    with photographs(options.images) as files:
        groups = in_batches(files, 1 if options.resize else BATCH)
        plain = Rater(model, info, scales)
        expected = [plain.rate(plain.taken(group)) for group in groups]
        rater = Rater(
            model,
            info,
            scales,
            pixels=options.pixels or options.resize,
            resize=options.resize,
            dtype=DTYPES.get(options.precision, torch.float32),
        )
        with naming(f"{info.model.name} as {options.format}"):
            file = form(rater, quantise=options.precision == "int8")
            run = file.runner()
            found = [run(rater.taken(group)) for group in groups]
    worst = difference(found, expected, scales)
    most = TOLERANCES[options.precision] + RESIZE_TOLERANCE * options.resize
    if not worst <= most:
        raise ValueError(
            f"{out} would differ from PyTorch by {worst:.2g} points of a scale from 1 to 10: "
            f"expected at most {most:g} in {options.precision}; nothing was written"
        )
    card = described(checkpoint, info, rater, scales) | {
        "precision": options.precision,
        "own_rule": options.own_rule,
        "images": len(files),
        "drawn": options.images is None,
        "difference": worst,
    }
    if options.labels:
        card |= correlations(checkpoint, options, rater, run)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, file.content(card))
    return card


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Name in one line what an exporter or a runtime could not do, whatever it raised."""
    try:
        yield
    except (ValueError, OSError):  # of ours
        raise
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:  # exporters wrap it in advice for their own authors
            cause = cause.__cause__
        raise ValueError(f"{what} cannot be made, or does not run: {brief(cause)}") from error


@contextmanager
def photographs(images: str | None) -> Iterator[list[Path]]:
    """Files to compare scores on: those of a folder, else drawn ones, for as long as it takes."""
    if images is not None:
        files = find_images([images])
        yield files[:: -(-len(files) // MOST)]
        return
    from eat.sample.scenes import draw_factors, draw_scene

    rng = np.random.default_rng(0)
    with TemporaryDirectory() as folder:
        drawn = [Path(folder, f"{i}.png") for i in range(DRAWN)]
        for file in drawn:
            draw_scene(draw_factors(rng), rng, 320).save(file)
        yield drawn


def in_batches(files: Sequence[Path], size: int) -> list[Sequence[Path]]:
    """A batch of one, then batches of a size: the score of an image is to be the same in any."""
    return [files[:1], *(files[i : i + size] for i in range(1, len(files), size))]


def difference(
    found: Sequence[Sequence[Array]], expected: Sequence[Sequence[Array]], scales: Scales
) -> float:
    """The largest of all batches: of scores, on a scale from 1 to 10, and of shares of the votes.

    Args:
        found: for each batch each target's scores (B,), and the votes (B, K) if there are.
        expected: the same.
        scales: of the scores.
    """
    units = [*(9 / (scale.high - scale.low) for scale in scales.values()), 1.0]
    gaps = [
        unit * np.abs(one - other).max()
        for batch, wanted in zip(found, expected, strict=True)
        for one, other, unit in zip(batch, wanted, units, strict=False)
    ]
    return float(np.max(gaps))  # which of NaN is NaN


def described(checkpoint: str | Path, info: CheckpointInfo, rater: Rater, scales: Scales) -> Card:
    """What a file says of its origin and its use; nothing of the folders of the run."""
    own = asdict(info)
    del own["config"]
    return own | {
        "eat": __version__,
        "fingerprint": file_digest(weights_file(checkpoint)),
        "input": {"name": rater.input_name, "shape": rater.input_shape},
        "outputs": rater.output_names,
        "score_scales": {name: [scale.low, scale.high] for name, scale in scales.items()},
    }


def correlations(
    checkpoint: str | Path, options: ExportOptions, rater: Rater, run: Run
) -> dict[str, float]:
    """SRCC of the checkpoint and of the file on labelled images."""
    from eat.evaluation.evaluate import evaluate_checkpoint
    from eat.evaluation.metrics import srcc

    assert options.images is not None
    chosen = EvaluateOptions(
        labels=options.labels,
        images=options.images,
        name=options.name,
        model=options.model,
        general=options.general,
        own_points=True,
        own_rule=options.own_rule,
        samples=0,
    )
    evaluation = evaluate_checkpoint(checkpoint, chosen)
    table = evaluation.predictions
    files = [Path(options.images, name) for name in table["image"]]
    scores = np.concatenate([run(rater.taken([file]))[0] for file in files])
    return {"srcc": evaluation.metrics["srcc"], "srcc_of_file": srcc(scores, table["score"])}
