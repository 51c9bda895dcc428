"""The networks and their weights.

Read ``backbone`` first (Figure 4), then ``attention`` and ``deformable`` (section 4.1). ``base`` is
what families of models have in common; ``psvit`` is another one.
``variants`` lists the named models, ``kernels`` holds faster forms of plain operations.
``checkpoint`` and the rooms above it may import this one, which imports only ``system``.
"""

from eat.models.backbone import EAT
from eat.models.base import AestheticModel
from eat.models.listing import list_models
from eat.models.psvit import PSViT
from eat.models.variants import VARIANTS, create_model
from eat.models.weights import LoadReport, WeightsError, load_weights

__all__ = [
    "EAT",
    "VARIANTS",
    "AestheticModel",
    "LoadReport",
    "PSViT",
    "WeightsError",
    "create_model",
    "list_models",
    "load_weights",
]
