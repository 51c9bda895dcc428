"""EAT, an Enhancer for Aesthetics-Oriented Transformers: predict how people would rate a photo."""

from eat.models import VARIANTS, create_model, load_weights
from eat.version import __version__

__all__ = ["VARIANTS", "__version__", "create_model", "load_weights"]
