"""The rule by which the parity numbers' weights were filled (shared/parity/README.md)."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eat.models.backbone import EAT

FIXTURES = Path(__file__).parent / "fixtures"
BUFFERS = ("relative_position_index", "attn_mask")


def release_state(keys: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """A state dict under the release's names, float64, filled by the rule."""
    state = {}
    for name, shape in keys.items():
        if name.endswith(BUFFERS):
            state[name] = torch.zeros(shape)
            continue
        draw = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
        if name.endswith("_table"):
            draw = 0.5 * draw
        elif len(shape) == 1:
            draw = 0.1 * draw + name.endswith("norm.weight")
        else:
            draw = draw / np.sqrt(np.prod(shape[1:]))
        state[name] = torch.from_numpy(np.asarray(draw))
    return state


def released_model(config: dict[str, Any]) -> EAT:
    """The released profile at the size of a release's configuration, in float64."""
    from eat.models.variants import RELEASED

    letters = ["".join(stage).replace("D", "E") for stage in config["stage_spec"]]
    return EAT(
        **RELEASED,
        num_outputs=config["num_classes"],
        img_size=config["img_size"],
        stages=letters,
        dims=config["dims"],
        heads=config["heads"],
        groups=[max(1, g) for g in config["groups"]],
        window_size=config["window_sizes"][0],
        drop_path_rate=config["drop_path_rate"],
    ).double()


def read_case(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Configuration and numbers of one parity case; ``path`` without suffix."""
    case = json.loads(path.with_suffix(".json").read_text())
    with np.load(path.with_suffix(".npz")) as numbers:
        return case, dict(numbers)
