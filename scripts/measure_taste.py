"""Personal models beside the general one, on the sample's test workers: SRCC on what is left.

    eat sample data/sample --workers 30
    python scripts/measure_taste.py --checkpoint runs/quickstart/checkpoints/best.safetensors

A draw takes so many ratings of a worker to learn from, and the worker's others to test on, the same
for all methods: the general model, ``eat adapt``, and the last layer fine-tuned by Adam as ``eat
personalize --scope head`` does, but without augmentation, on features that are computed once. SRCC
is the mean over draws, then over workers. The interval of the difference to the general model is a
bootstrap over workers. Writes taste.csv and taste.md.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from stated import state
from torch import Tensor
from torch.nn import Linear

from eat.config.personal import PersonalizeOptions
from eat.data.registry import DATASETS
from eat.evaluation.metrics import bootstrap_interval, srcc
from eat.personal.adaptation import Rater, draw_shots
from eat.personal.own import head_of
from eat.personal.protocol import read_panel
from eat.personal.taste import Head, Ratings, TasteModel
from eat.scoring import Scorer
from eat.system.files import file_digest

SCALE = DATASETS["flickr_aes"].scale
Change = tuple[Tensor, Tensor]  # of the last layer's weight and bias
Method = Callable[[Head, Tensor, Linear], Change]  # of photographs, their ratings and that layer


def general(head: Head, ratings: Tensor, layer: Linear) -> Change:
    return torch.zeros_like(layer.weight).double(), torch.zeros_like(layer.bias).double()


def adapted(head: Head, ratings: Tensor, layer: Linear) -> Change:
    """As ``eat adapt``."""
    model, said = TasteModel(head), Ratings(torch.arange(len(ratings)), ratings)
    return model.change(model.best(said, seed=0), layer)


def fine_tuned(lr: float, epochs: int) -> Method:
    """As ``eat.personal.adaptation.Adapter``: Adam, on all ratings in each step."""

    def method(head: Head, ratings: Tensor, layer: Linear) -> Change:
        change = tuple(part.requires_grad_() for part in general(head, ratings, layer))
        optimizer = torch.optim.Adam(change, lr=lr)
        for _ in range(epochs):
            optimizer.zero_grad()
            error = (scores(head, change) - ratings) / SCALE.target_scale
            error.square().mean().backward()
            optimizer.step()
        weight, bias = change
        return weight.detach(), bias.detach()

    return method


METHODS: dict[str, Method] = {
    "general model": general,
    "eat adapt": adapted,
    "Adam, lr 1e-5, 20 epochs": fine_tuned(1e-5, 20),  # the defaults of eat personalize
    # Of lr 0.003 to 0.1 and 30 to 300 epochs the best, chosen on what is tested on.
    "Adam, lr 3e-3, 100 epochs": fine_tuned(3e-3, 100),
}


def scores(head: Head, change: Change) -> Tensor:
    """Scores (N,) after a change of the last layer."""
    weight, bias = change
    return head.score(head.logits + head.features @ weight.T + bias)


def results(
    rater: Rater, head: Head, layer: Linear, options: PersonalizeOptions
) -> Iterator[list[float]]:
    """SRCC of each method, draw by draw."""
    ratings = torch.tensor(rater.ratings, dtype=torch.float64)
    for repeat in range(options.repeats):
        draw = draw_shots(rater.worker, len(ratings), repeat, options)
        seen, rest = (
            replace(head, features=head.features[rows], logits=head.logits[rows])
            for rows in (draw.shots, draw.rest)
        )
        changes = [method(seen, ratings[draw.shots], layer) for method in METHODS.values()]
        yield [srcc(scores(rest, one).numpy(), ratings[draw.rest].numpy()) for one in changes]


def measure(args: argparse.Namespace) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A row for each method and number of ratings, and what the numbers depend on."""
    options = PersonalizeOptions(name="flickr_aes", labels=str(args.sample / "flickr_aes"),
                                 images=str(args.sample / "images"), seed=args.seed,
                                 repeats=args.repeats)  # fmt: skip
    scorer = Scorer(args.checkpoint, scale="own")
    layer, (target, *_) = scorer.model.get_classifier(), scorer.info.scales
    raters, rows = read_panel(options).raters, []
    paths = [[Path(options.images) / image for image in rater.images] for rater in raters]
    heads = [head_of(scorer, own, target, SCALE, [])[0] for own in paths]
    for shots in args.shots:
        drawn = replace(options, shots=shots)
        found = np.array([  # (workers, draws, methods)
            [*results(rater, head, layer, drawn)]
            for rater, head in zip(raters, heads, strict=True)
        ]).mean(1)  # fmt: skip
        rows += [row(f"{shots}, {name}", found, k) for k, name in enumerate(METHODS)]
    settings = {"seed": args.seed, "draws": args.repeats, "workers": len(raters)}
    return pd.DataFrame(rows), settings | {"sha256": file_digest(Path(args.checkpoint))}


def row(name: str, found: NDArray[np.float64], method: int) -> dict[str, str]:
    """A method beside the first, of SRCC (workers, methods)."""
    more = found[:, method] - found[:, 0]
    low, high = bootstrap_interval(np.mean, more)
    return {
        "ratings and method": name,
        "SRCC": f"{found[:, method].mean():.3f}",
        "difference": f"{more.mean():+.3f}" if method else "-",
        "95% over workers": f"{low:+.3f} to {high:+.3f}" if method else "-",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--sample", type=Path, default=Path("data/sample"))
    parser.add_argument("--out", type=Path, default=Path("results/taste"))
    parser.add_argument("--shots", type=int, nargs="+", default=[30, 100])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    measured, settings = measure(args)
    state(measured, args.out, "Personal models", settings)


if __name__ == "__main__":
    main()
