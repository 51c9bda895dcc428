"""Health of interest points: whether they still look at different places, or have collapsed."""

from collections import defaultdict

import torch
from torch import Tensor

COLLAPSED = 0.1  # spread below which a block's points count as one spot; a uniform grid has 0.57
SATURATED = 0.99  # of the tanh of Eq. 4, beyond which hardly any gradient comes back

Health = dict[str, dict[str, float]]  # statistics by block name


class PointWatch:
    """Statistics of the points of each enhanced block, over the first images of a split.

    Args:
        blocks: names of the blocks, as in ``EAT.forward_features``.
        images: how many images are looked at; further batches are not.
    """

    def __init__(self, blocks: list[str], images: int = 256) -> None:
        self.blocks, self.left = blocks, images
        self._seen: dict[str, list[dict[str, Tensor]]] = defaultdict(list)

    def wants_more(self) -> bool:
        """Whether the next batch is looked at."""
        return bool(self.blocks) and self.left > 0

    def record(self) -> dict[str, dict[str, Tensor]]:
        """An empty record for a forward pass, to give to ``add`` afterwards."""
        return {name: {} for name in self.blocks}

    def add(self, record: dict[str, dict[str, Tensor]]) -> None:
        """Take in what a forward pass has recorded."""
        kept = ("points", "positions", "moves")
        for name, block in record.items():
            self._seen[name].append({key: block[key].float().cpu() for key in kept})
        self.left -= len(block["positions"])

    def health(self) -> Health:
        """For each block, in units of half a map's side (-1 and 1 are its outermost tokens):

        - ``points``: standard deviation of the interest points within an image, the median over
          images (a uniform grid has 0.57);
        - ``positions``: the same of the positions, moved by the offsets;
        - ``between``: standard deviation of a point over images, the mean over points;
        - ``saturated``: share of the moves beyond 0.99 in size.
        """
        found: Health = {}
        for name, parts in self._seen.items():
            points, positions, moves = (
                torch.cat([part[key] for part in parts]) for key in ("points", "positions", "moves")
            )
            found[name] = {
                "points": _spread(points),
                "positions": _spread(positions),
                "between": points.std(dim=0, correction=0).mean().item(),
                "saturated": (moves.abs() > SATURATED).float().mean().item(),
            }
        return found


def _spread(places: Tensor) -> float:
    """Standard deviation of places (B, ..., 2) within an image, the median over images."""
    return places.flatten(1, -2).std(dim=1, correction=0).mean(dim=1).median().item()


def collapsed(health: Health) -> list[str]:
    """Names of the blocks whose interest points have fallen onto one spot."""
    return [name for name, block in health.items() if not block["points"] >= COLLAPSED]
