"""EAT, an Enhancer for Aesthetics-Oriented Transformers: predict how people would rate a photo.

Names are imported when they are first used, so that ``import eat`` and ``eat --help`` load neither
PyTorch nor anything else that is large.
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import wrapt

from eat.version import __version__

if TYPE_CHECKING:
    from eat.models import VARIANTS, create_model, list_models, load_weights
    from eat.models.enhance import enhance
    from eat.personal.own import adapt
    from eat.scoring import Comparison, Score, Scorer, compare, score
    from eat.sharing.hub import from_pretrained

__all__ = [
    "VARIANTS",
    "Comparison",
    "Score",
    "Scorer",
    "__version__",
    "adapt",
    "compare",
    "create_model",
    "enhance",
    "from_pretrained",
    "list_models",
    "load_weights",
    "score",
]

HOMES = {
    "VARIANTS": "eat.models",
    "Comparison": "eat.scoring",
    "Score": "eat.scoring",
    "Scorer": "eat.scoring",
    "compare": "eat.scoring",
    "adapt": "eat.personal.own",
    "create_model": "eat.models",
    "enhance": "eat.models.enhance",
    "from_pretrained": "eat.sharing.hub",
    "list_models": "eat.models",
    "load_weights": "eat.models",
    "score": "eat.scoring",
}


@wrapt.when_imported("timm")
def _register_with_timm(_: ModuleType) -> None:
    """Tell timm of the models, at once if it is there, or else when it is imported."""
    import_module("eat.models.timm_entries")


@wrapt.when_imported("pyiqa")
def _register_with_pyiqa(_: ModuleType) -> None:
    """Tell pyiqa of the scores, in the same way."""
    import_module("eat.sharing.pyiqa_entries")


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *HOMES})
