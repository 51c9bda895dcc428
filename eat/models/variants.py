"""Named models of all families: one row each."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any, get_type_hints

from eat.config.pixels import Inputs
from eat.models.backbone import EAT
from eat.models.base import AestheticModel
from eat.models.det import DeT
from eat.models.enhance import enhance as enhance_attention
from eat.models.psvit import PSViT
from eat.models.published import PUBLISHED, Result
from eat.models.tanet import TANet
from eat.models.timm_backbone import PREFIX, TimmModel, timm_config
from eat.models.user_model import UserModel, load_model
from eat.system.plugins import is_path
from eat.system.schema import typed
from eat.system.words import nearest


@dataclass(frozen=True)
class Variant:
    """A named model, as a row of :data:`VARIANTS`.

    Attributes:
        family: the class that it is of.
        settings: keywords of the class, where they differ from its defaults.
        about: what it is, in a line.
        paper: where it was published; ``LICENCES`` has the licence of its authors' release.
        inputs: the pixels that it takes.
        published: results in print.
    """

    family: type[AestheticModel]
    settings: dict[str, Any]
    about: str
    paper: str
    inputs: Inputs = Inputs()
    published: tuple[Result, ...] = ()

    def all_settings(self) -> dict[str, Any]:
        """Every keyword that the model is built with."""
        keywords = signature(self.family).parameters
        own = {n: k.default for n, k in keywords.items() if k.default is not k.empty}
        return own | self.settings


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


EAT_SIZES, SWIN_SIZES, DAT_SIZES = layout("LS", "LE"), layout("LS", "LS"), layout("LS", "LD")
# DAT's weights were trained with the shift and the raw head of the code EAT grew from.
DAT = {"shift": RELEASED["shift"], "softmax": False}
PS_VIT_TINY = {"dim": 192, "heads": 3, "depths": (4, 8), "stem_dims": (64, 192)}
PS_VIT_NANO = {
    "img_size": 96,
    "points": 6,
    "dim": 96,
    "heads": 4,
    "depths": (2, 2),
    "stem_dims": (32, 64),
    "drop_path_rate": 0.0,
}
VIT_NANO = {
    "arch": "vit_tiny_patch16_224",
    "img_size": 96,
    "embed_dim": 144,
    "depth": 8,
    "num_heads": 6,
}
ENHANCED = {"enhanced": True}
EAT_PAPER = "EAT, ACM Multimedia 2023"
SWIN_PAPER = "Swin Transformer, ICCV 2021"
DAT_PAPER = "Vision Transformer with Deformable Attention, CVPR 2022"
PS_VIT_PAPER = "Vision Transformer with Progressive Sampling, ICCV 2021"
VIT_PAPER = "An Image is Worth 16x16 Words, ICLR 2021"
TANET_PAPER = "TANet, IJCAI 2022"
DET_PAPER = "Delegate Transformer, ICCV 2023"
LICENCES = {
    EAT_PAPER: "Apache-2.0",
    SWIN_PAPER: "MIT",
    DAT_PAPER: "Apache-2.0",
    PS_VIT_PAPER: "MIT",
    TANET_PAPER: "Apache-2.0",
    DET_PAPER: "Apache-2.0",
    VIT_PAPER: "Apache-2.0",
}
DET = EAT_SIZES["base"] | RELEASED

VARIANTS: dict[str, Variant] = {
    **{
        f"eat_{size}": Variant(EAT, s, f"EAT-{size}, the paper's equations", EAT_PAPER)
        for size, s in EAT_SIZES.items()
    },
    **{
        f"eat_{size}_released": Variant(
            EAT, s | RELEASED, f"EAT-{size}, what its authors' code computes", EAT_PAPER
        )
        for size, s in EAT_SIZES.items()
    },
    "eat_base_384": Variant(
        EAT, EAT_SIZES["base"] | AT_384, "EAT-base for 384 pixels, the paper's equations", EAT_PAPER
    ),
    "eat_base_384_released": Variant(
        EAT,
        EAT_SIZES["base"] | RELEASED | AT_384 | {"shift": 6},
        "EAT-base for 384 pixels, what its authors' code computes",
        EAT_PAPER,
    ),
    "eat_nano": Variant(
        EAT, NANO | {"stages": stages("LS", "LE", 2)}, "a small EAT for experiments", EAT_PAPER
    ),
    **{
        f"swin_{size}": Variant(EAT, s, f"Swin-{size}, built of EAT's blocks", SWIN_PAPER)
        for size, s in SWIN_SIZES.items()
    },
    **{
        f"dat_{size}": Variant(EAT, s | DAT, f"DAT-{size}, built of EAT's blocks", DAT_PAPER)
        for size, s in DAT_SIZES.items()
    },
    "psvit_b": Variant(PSViT, {}, "PS-ViT-B/14, progressive sampling", PS_VIT_PAPER),
    "psvit_ti": Variant(PSViT, PS_VIT_TINY, "PS-ViT-Ti/14, progressive sampling", PS_VIT_PAPER),
    "psvit_nano": Variant(PSViT, PS_VIT_NANO, "a small PS-ViT for experiments", PS_VIT_PAPER),
    "psvit_b_eam": Variant(PSViT, ENHANCED, "PS-ViT-B/14 with enhanced attention (EAM)", EAT_PAPER),
    "psvit_nano_eam": Variant(
        PSViT,
        PS_VIT_NANO | ENHANCED | {"interest_kernel": 3},
        "a small PS-ViT with enhanced attention",
        EAT_PAPER,
    ),
    "vit_nano": Variant(TimmModel, VIT_NANO, "a small ViT", VIT_PAPER),
    "tanet_ava": Variant(TANet, {}, "TANet for votes of AVA", TANET_PAPER),
    "tanet_tad66k": Variant(
        TANet,
        {"num_outputs": 1, "column_norm": False},
        "TANet for scores of TAD66K",
        TANET_PAPER,
    ),
    "det_icaa17k": Variant(
        DeT,
        DET | {"num_outputs": 2, "gate_points": True},
        "DeT for ICAA17K: mean opinion score and colour",
        DET_PAPER,
    ),
    "det_spaq": Variant(DeT, DET | {"num_outputs": 1}, "DeT for SPAQ: colourfulness", DET_PAPER),
}
VARIANTS |= {
    name: replace(VARIANTS[name], published=results) for name, results in PUBLISHED.items()
}


def find_variant(name: str) -> Variant:
    """The row of a named model; one is made up for a model of timm, and for FILE.py:FUNCTION.

    The latter is not imported.

    Raises:
        ValueError: the name is unknown.
    """
    if is_path(name):
        return Variant(UserModel, {"img_size": 224}, name, "")
    if name.startswith(PREFIX):
        arch = name.removeprefix(PREFIX)
        config = timm_config(arch)
        inputs = Inputs(config.mean, config.std, config.interpolation)
        return Variant(TimmModel, {"arch": arch}, arch, "timm", inputs)
    if name not in VARIANTS:
        near = nearest(name, VARIANTS)
        hint = f"did you mean {near!r}? " if near else ""
        raise ValueError(
            f"unknown model {name!r}; {hint}models: {', '.join(VARIANTS)}, or {PREFIX}ARCH"
        )
    return VARIANTS[name]


def create_model(
    name: str,
    num_outputs: int | None = None,
    img_size: int | tuple[int, int] | None = None,
    *,
    enhance: Mapping[str, Any] | None = None,
    **settings: Any,
) -> AestheticModel:
    """Build a named model with fresh weights.

    Args:
        name: a key of ``VARIANTS``, such as ``eat_base`` or ``psvit_b``; any image model of timm,
            as ``timm/ARCH[.TAG]``; or FILE.py:FUNCTION, a function of yours that returns a torch
            module from (B, 3, H, W) normalised pixels to (B, num_outputs). It gets num_outputs,
            img_size (height, width) and the settings.
        num_outputs: 10 for a distribution over the scores 1..10, 1 for a score; None takes the
            variant's own (else 10).
        img_size: side, or (height, width), in pixels; None takes the variant's own (else 224).
        enhance: settings of ``eat.enhance`` to enhance it by; None leaves it as it is.
        **settings: keywords of the variant's family that replace its own.

    Raises:
        ValueError: the name is unknown, or a setting has another type, is out of range, or does not
            fit another; or the file is not as expected.
        TypeError: a setting is not one of the family's.
    """
    variant = find_variant(name)
    if num_outputs is not None:
        settings["num_outputs"] = num_outputs
    if img_size is not None:
        settings["img_size"] = img_size
    if is_path(name):
        model = load_model(name, **settings)
    else:
        if "arch" in settings:  # its pixels would be those of another
            raise TypeError(f"arch is no setting of {name!r}, which says the architecture")
        kinds = get_type_hints(variant.family.__init__)  # an unknown setting is left to the family
        checked = {n: typed(kinds[n], v, n) if n in kinds else v for n, v in settings.items()}
        model = variant.family(**variant.settings | checked)
    if enhance is not None:
        enhance_attention(model, **enhance)
    return model
