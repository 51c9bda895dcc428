"""EAT, an Enhancer for Aesthetics-Oriented Transformers: predict how people would rate a photo."""

from typing import Any

from eat.models import VARIANTS, create_model, load_weights
from eat.version import __version__

__all__ = ["VARIANTS", "Scorer", "__version__", "create_model", "load_weights"]


def __getattr__(name: str) -> Any:
    # Scoring needs pandas and more; a model alone does not.
    if name == "Scorer":
        from eat.score import Scorer

        return Scorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
