"""The named models in timm's registry, for ``timm.create_model``; imported as soon as timm is.

Models that it makes say in ``default_cfg``, as timm's do, what images they take. They load folders
and hub repositories that ``eat share`` wrote (``local-dir:``, ``hf-hub:``).
"""

from dataclasses import asdict
from functools import partial
from typing import Any

import timm  # noqa: F401  (finish its import first: another thread may be in the middle of it)
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from eat.config.pixels import Inputs
from eat.models.base import AestheticModel
from eat.models.variants import VARIANTS, create_model

# Stages are whole: hooks take the output of their last blocks.
FEATURES = {"out_indices": (0, 1, 2, 3), "feature_cls": "hook", "flatten_sequential": False}


def configuration(
    name: str, inputs: Inputs, img_size: tuple[int, int], num_outputs: int
) -> dict[str, Any]:
    """What timm wants to know of a model: its images, its first layer and its head."""
    return {
        "input_size": (3, *img_size),
        **asdict(inputs),
        "crop_pct": 1.0,
        "crop_mode": "squash",
        "num_classes": num_outputs,
        "first_conv": VARIANTS[name].family.first_conv,
        "classifier": "head",
    }


def usual(name: str) -> dict[str, Any]:
    """The configuration of a model without other settings."""
    row = VARIANTS[name]
    settings = row.all_settings()
    size = settings["img_size"]
    sides = (size, size) if isinstance(size, int) else tuple(size)
    return configuration(name, row.inputs, sides, settings["num_outputs"])


def build(
    name: str, *, num_classes: int | None = None, in_chans: int = 3, **settings: Any
) -> AestheticModel:
    """Build a named model from timm's keywords; without a head for 0 classes.

    Raises:
        ValueError: the images are to have other channels than 3; or as ``create_model``.
    """
    if in_chans != 3:
        raise ValueError(f"in_chans is {in_chans}: expected 3, as photographs have")
    model = create_model(name, num_outputs=num_classes or None, **settings)
    if num_classes == 0:
        model.reset_classifier(0)
    return model


def entry_function(name: str) -> Any:
    """An entry function as timm's registry takes it: by its name and module."""

    def entry(pretrained: bool = False, pretrained_cfg: Any = None, **given: Any) -> Any:
        if pretrained and not pretrained_cfg:
            raise ValueError(
                f"no weights are published under the name {name!r}: build it with pretrained=False "
                "and give your file to eat.load_weights"
            )
        model: Any = build_model_with_cfg(
            partial(build, name),
            name,
            pretrained,
            pretrained_cfg=pretrained_cfg,
            feature_cfg=dict(FEATURES),
            **given,
        )
        if "img_size" in given and hasattr(model, "img_size"):
            model.default_cfg["input_size"] = (3, *model.img_size)
        model.default_cfg["num_classes"] = getattr(model, "num_classes", 0)
        return model

    entry.__name__ = entry.__qualname__ = name
    return entry


default_cfgs = generate_default_cfgs({name: usual(name) for name in VARIANTS})

for _name in VARIANTS:
    register_model(entry_function(_name))
