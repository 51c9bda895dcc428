"""Named models: one row each."""

from typing import Any, get_type_hints

from eat.models.backbone import EAT
from eat.models.base import AestheticModel
from eat.system.schema import typed
from eat.system.words import nearest

TINY = {"dims": (96, 192, 384, 768), "heads": (3, 6, 12, 24), "drop_path_rate": 0.2}
SMALL = TINY | {"drop_path_rate": 0.3}
BASE = {"dims": (128, 256, 512, 1024), "heads": (4, 8, 16, 32), "drop_path_rate": 0.5}
NANO = {
    "dims": (32, 64, 128, 256),
    "heads": (1, 2, 4, 8),
    "img_size": 96,
    "window_size": 6,
    "interest_kernels": (21, 9, 3, 1),
    "drop_path_rate": 0.0,
}

# What the authors' code computes, where it differs from the paper's equations (docs/fidelity.md).
RELEASED = {
    "interest_kernels": (1, 1, 1, 1),
    "offset_kernels": (9, 7, 5, 3),
    "pad_offsets": True,
    "range_factor": 2.0,
    "average_points": True,
    "rotate": False,
    "bound_positions": False,
    "softmax": False,
    "shift": 4,
}
AT_384 = {"img_size": 384, "window_size": 12}


def stages(early: str, late: str, depth: int) -> tuple[str, str, str, str]:
    """Block letters: two pairs early, then ``depth`` blocks in stage 3 and two in stage 4."""
    return early, early, late * (depth // 2), late


def layout(early: str, late: str) -> dict[str, dict[str, Any]]:
    """The three published sizes with the given pairs of block letters."""
    return {
        "tiny": TINY | {"stages": stages(early, late, 6)},
        "small": SMALL | {"stages": stages(early, late, 18)},
        "base": BASE | {"stages": stages(early, late, 18)},
    }


EAT_SIZES = layout("LS", "LE")
VARIANTS: dict[str, dict[str, Any]] = {
    **{f"eat_{size}": settings for size, settings in EAT_SIZES.items()},
    **{f"eat_{size}_released": settings | RELEASED for size, settings in EAT_SIZES.items()},
    "eat_base_384": EAT_SIZES["base"] | AT_384,
    "eat_base_384_released": EAT_SIZES["base"] | RELEASED | AT_384 | {"shift": 6},
    "eat_nano": NANO | {"stages": stages("LS", "LE", 2)},
    **{f"swin_{size}": settings for size, settings in layout("LS", "LS").items()},
    **{
        # DAT's weights were trained with the shift and the raw head of the code EAT grew from.
        f"dat_{size}": settings | {"shift": RELEASED["shift"], "softmax": False}
        for size, settings in layout("LS", "LD").items()
    },
}


def find_variant(name: str) -> dict[str, Any]:
    """The settings of a named model.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in VARIANTS:
        near = nearest(name, VARIANTS)
        hint = f"did you mean {near!r}? " if near else ""
        raise ValueError(f"unknown model {name!r}; {hint}models: {', '.join(VARIANTS)}")
    return VARIANTS[name]


def create_model(
    name: str, num_outputs: int = 10, img_size: int | tuple[int, int] | None = None, **settings: Any
) -> AestheticModel:
    """Build a named model with fresh weights.

    Args:
        name: a key of ``VARIANTS``, such as ``eat_base`` or ``eat_base_released``.
        num_outputs: 10 for a distribution over the scores 1..10, 1 for a score.
        img_size: side, or (height, width), in pixels; None takes the variant's own (else 224).
        **settings: keywords of ``EAT`` that replace the variant's.

    Raises:
        ValueError: the name is unknown, or a setting has another type, is out of range, or does not
            fit another.
        TypeError: a setting is not one of ``EAT``'s.
    """
    variant = find_variant(name)
    settings["num_outputs"] = num_outputs
    if img_size is not None:
        settings["img_size"] = img_size
    kinds = get_type_hints(EAT.__init__)  # an unknown setting is left to EAT
    checked = {n: typed(kinds[n], v, n) if n in kinds else v for n, v in settings.items()}
    return EAT(**variant | checked)
