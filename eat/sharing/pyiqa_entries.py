"""Scores as metrics of pyiqa, in its ``list_models()`` as soon as both are imported."""

import torch
from pyiqa.default_model_configs import DEFAULT_CONFIGS
from pyiqa.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from eat.checkpoint.releases import RELEASED
from eat.scoring import Scorer


@ARCH_REGISTRY.register(name="EATScore")
class Metric(nn.Module):
    """Scores from 1 to 10 of a checkpoint, without gradients.

    Args:
        checkpoint: whatever ``eat score --checkpoint`` takes; no weights come with the package.
        trained: MODEL-DATASET, as the metric's name says; "" takes any checkpoint.
        own_rule: as of ``Scorer``; TANet needs it.

    Raises:
        ValueError: there is no checkpoint, or it is of another model or data set; or as ``Scorer``.
    """

    def __init__(self, checkpoint: str = "", trained: str = "", own_rule: bool = False) -> None:
        super().__init__()
        if not checkpoint:
            raise ValueError("give the file of the weights: create_metric(NAME, checkpoint=FILE)")
        self.scorer = Scorer(checkpoint, own_rule=own_rule)
        found = trained_name(self.scorer.info.model.name, self.scorer.info.dataset)
        if trained not in ("", found):
            raise ValueError(f"{checkpoint} is {found}: expected {trained}")

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] -> (B, 1)."""
        scores = list(self.scorer((x * 255).round().clamp(0, 255).byte().cpu()))
        for score in scores:
            if score.error:
                raise ValueError(score.error)
        return torch.tensor([[score.score] for score in scores], device=x.device)


def trained_name(model: str, dataset: str) -> str:
    """eat-ava for ``eat_base_released`` on ``ava``."""
    return f"{model.partition('_')[0]}-{dataset}"


for _trained in ("", *(trained_name(row.model, row.dataset) for row in RELEASED)):
    DEFAULT_CONFIGS[_trained or "eat"] = {
        "metric_opts": {"type": "EATScore", "trained": _trained},
        "metric_mode": "NR",
        "score_range": "1, 10",
    }
