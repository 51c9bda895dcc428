"""The network and its weights.

Read ``backbone`` first (Figure 4), then ``attention`` and ``deformable`` (section 4.1).
``variants`` lists the named models, ``kernels`` holds faster forms of plain operations.
``checkpoint`` and the rooms above it may import this one, which imports only ``system``.
"""

from eat.models.backbone import EAT
from eat.models.base import AestheticModel
from eat.models.variants import VARIANTS, create_model
from eat.models.weights import LoadReport, WeightsError, load_weights

__all__ = [
    "EAT",
    "VARIANTS",
    "AestheticModel",
    "LoadReport",
    "WeightsError",
    "create_model",
    "load_weights",
]
