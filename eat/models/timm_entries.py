"""The named models in timm's registry, for ``timm.create_model``; imported as soon as timm is.

Models that it makes say in ``default_cfg``, as timm's do, what images they take. They load folders
and hub repositories that ``eat share`` wrote (``local-dir:``, ``hf-hub:``).
"""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import timm  # noqa: F401  (finish its import first: another thread may be in the middle of it)
from timm.models import (
    build_model_with_cfg,
    generate_default_cfgs,
    register_model,
    register_notrace_module,
)
from torch import Tensor, nn

from eat.config.pixels import Inputs
from eat.models.backbone import Block, PatchConv
from eat.models.base import AestheticModel
from eat.models.foreign import WeightsError
from eat.models.variants import VARIANTS, create_model
from eat.models.weights import SHARED

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
    pooling = settings.pop("global_pool", None) if VARIANTS[name].family.poolings else None
    model = create_model(name, num_outputs=num_classes or None, **settings)
    if num_classes == 0 or pooling is not None:
        outputs = model.num_outputs if num_classes is None else num_classes
        model.reset_classifier(outputs, pooling)
    return model


def check_names(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A state dict that has the names of the model's weights, but for those of the head.

    timm checks it only where it leaves the head as it is.

    Raises:
        WeightsError: naming a weight that is missing or unexpected.
    """
    own = model.state_dict().keys()
    for name in sorted(own ^ state.keys()):
        if not name.startswith("head."):
            odd = "is missing" if name in own else "is none of the model's"
            raise WeightsError(f"the weight {name!r} {odd}")
    return state


def safe_source(pretrained_cfg: Any) -> dict[str, Any]:
    """What makes timm read the weights of ``eat share`` and never a pickle beside or instead."""
    if not isinstance(pretrained_cfg, dict):
        return {}
    if pretrained_cfg.get("source") == "local-dir":
        return {"source": "", "file": str(Path(pretrained_cfg["file"], SHARED))}
    return {"hf_hub_filename": SHARED}


def as_built(model: AestheticModel) -> dict[str, Any]:
    """What of a model's configuration follows from its settings."""
    maps = getattr(model, "feature_info", None)
    step = maps[-1]["reduction"] if maps else 0
    return {
        "input_size": (3, *model.img_size),
        "pool_size": tuple(-(-side // step) for side in model.img_size) if step else None,
        "num_classes": model.num_outputs,
    }


def entry_function(name: str) -> Any:
    """An entry function as timm's registry takes it: by its name and module."""

    def entry(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: dict[str, Any] | None = None,
        **given: Any,
    ) -> Any:
        if pretrained and not (pretrained_cfg or pretrained_cfg_overlay):
            raise ValueError(
                f"no weights are published under the name {name!r}: build it with pretrained=False "
                "and give your file to eat.load_weights"
            )
        model: Any = build_model_with_cfg(
            partial(build, name),
            name,
            pretrained,
            pretrained_cfg=pretrained_cfg,
            pretrained_cfg_overlay=safe_source(pretrained_cfg) | (pretrained_cfg_overlay or {}),
            pretrained_filter_fn=check_names,
            feature_cfg=dict(FEATURES),
            **given,
        )
        if hasattr(model, "num_outputs"):  # not wrapped for features
            model.default_cfg |= as_built(model)
        return model

    entry.__name__ = entry.__qualname__ = name
    return entry


for _module in (Block, PatchConv):  # whose way depends on the images' size and on chance
    register_notrace_module(_module)

default_cfgs = generate_default_cfgs({name: usual(name) for name in VARIANTS})

for _name in VARIANTS:
    register_model(entry_function(_name))
