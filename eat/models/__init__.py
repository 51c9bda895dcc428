"""The network and its weights. Knows nothing of data, training or tuning."""

from eat.models.backbone import EAT
from eat.models.base import AestheticModel
from eat.models.variants import VARIANTS, create_model
from eat.models.weights import LoadReport, WeightsError, load_weights

__all__ = [
    "AestheticModel",
    "EAT",
    "VARIANTS",
    "LoadReport",
    "WeightsError",
    "create_model",
    "load_weights",
]
