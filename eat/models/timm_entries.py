"""The named models in timm's registry, for ``timm.create_model``; imported as soon as timm is.

Models that it makes say in ``default_cfg``, as timm's do, what images they take.
"""

from dataclasses import asdict
from typing import Any

import timm  # noqa: F401  (finish its import first: another thread may be in the middle of it)
from timm.models import register_model
from torch.nn import Conv2d

from eat.models.base import AestheticModel
from eat.models.variants import VARIANTS, create_model


def entry_function(name: str) -> Any:
    """An entry function as timm's registry takes it: by its name and module."""

    def entry(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: Any = None,
        cache_dir: Any = None,
        num_classes: int | None = None,
        **settings: Any,
    ) -> AestheticModel:
        if pretrained:
            raise ValueError(
                f"no weights are published under the name {name!r}: build it with pretrained=False "
                "and give your file to eat.load_weights"
            )
        model: Any = create_model(name, num_outputs=num_classes, **settings)
        model.default_cfg = model.pretrained_cfg = {
            "input_size": (3, *model.img_size),
            **asdict(VARIANTS[name].inputs),
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "num_classes": model.num_outputs,
            "first_conv": next(n for n, m in model.named_modules() if isinstance(m, Conv2d)),
            "classifier": "head",
        }
        return model

    entry.__name__ = entry.__qualname__ = name
    return entry


for _name in VARIANTS:
    register_model(entry_function(_name))
