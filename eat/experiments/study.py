"""The study of the background: whether models look at it, on scenes whose merits are known."""

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from scipy import optimize, stats

from eat.checkpoint import load_checkpoint
from eat.evaluation.metrics import partial_srcc
from eat.evaluation.shares import attention_on_masks, gradient_on_masks
from eat.models import EAT
from eat.personal.adaptation import mean_scores
from eat.sample.make import background_masks
from eat.system.files import finite

BATCH = 50


def measure_background(folder: Path, model: str) -> dict[str, Any]:
    """What a finished run on scenes of the task ``background`` makes of it, on the test split.

    Returns:
        ``foreground_srcc`` and ``background_srcc``, how predictions follow either term where the
        other is given; ``background_attention`` and ``background_gradient``, JSON objects of each
        block's share of the two on the background; ``background_area``, its share of the images.
    """
    net, info = load_checkpoint(folder / "checkpoints" / "best.safetensors", model)
    data = info.config["data"]
    predictions = pd.read_csv(folder / "predictions.csv")
    names = predictions["image"].tolist()
    terms = pd.read_csv(Path(data["labels"]) / "factors.csv").set_index("image").loc[names]
    front, back = terms["foreground"].to_numpy(), terms["background"].to_numpy()
    predicted = predictions["predicted"].to_numpy()
    masks = torch.from_numpy(background_masks(data["labels"], names, info.preprocessing.size))
    found: dict[str, Any] = finite(
        {
            "foreground_srcc": partial_srcc(predicted, front, back),
            "background_srcc": partial_srcc(predicted, back, front),
            "background_area": masks.mean().item(),
        }
    )
    net.eval()
    if isinstance(net, EAT):
        pixels = [info.preprocessing.evaluation(Path(data["images"]) / name) for name in names]
        batches = info.preprocessing.normalise(torch.stack(pixels)).split(BATCH)
        score = partial(mean_scores, info=info, target=info.scale)
        shares = {
            "background_attention": attention_on_masks(net, batches, masks),
            "background_gradient": gradient_on_masks(net, batches, masks, score),
        }
        for name, blocks in shares.items():
            found[name] = json.dumps({block: round(share, 4) for block, share in blocks.items()})
    return found


def detectable(deviation: float, count: int, power: float = 0.8, level: float = 0.05) -> float:
    """The true mean difference that a two-sided paired t test finds with a given probability.

    Args:
        deviation: of the differences, above 0.
        count: of the pairs, at least 2.
        power: probability to find it, between `level` and 1.
        level: probability to find a difference where there is none.
    """
    freedom = count - 1
    bound = stats.t.ppf(1 - level / 2, freedom)

    def excess(shift: float) -> float:
        # Findings in the wrong direction are too rare to count.
        return float(stats.nct.sf(bound, freedom, shift)) - power

    shift = optimize.brentq(excess, 0, 10 * bound)
    return float(shift * deviation / math.sqrt(count))


def pooled_deviation(deviations: Sequence[float], counts: Sequence[int]) -> float:
    """One standard deviation from several groups', weighted by their degrees of freedom."""
    squares = sum(d**2 * (n - 1) for d, n in zip(deviations, counts, strict=True))
    return math.sqrt(squares / sum(n - 1 for n in counts))
