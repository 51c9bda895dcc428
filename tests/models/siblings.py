"""Golden numbers of the sibling networks, and the rule that filled their weights."""

import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from eat.training.losses import LOSSES

FOLDER = Path(__file__).parents[2].parent / "shared" / "parity" / "siblings"
KEPT = "relative_position_index", "attn_mask", "num_batches_tracked", "point_coord"
ONES = "hist_feature.bin_centers_conv.weight", "hist_feature.bin_widths_conv.bias"
ALIASES = {
    r"^hist_feature\.widths$": "hist_feature.bin_widths_conv.weight",
    r"^ps_layers\.\d+\.position_layer\.": "pos_layer.",
}
State = dict[str, Tensor]


class Golden(NamedTuple):
    meta: dict[str, Any]
    numbers: dict[str, np.ndarray]

    def state(self) -> State:
        """A state dict under the release's names, float64, filled by the rule."""
        keys = self.meta["keys"]
        return {name: torch.from_numpy(fill(name, keys[name], keys)) for name in keys}

    def compare(self, ours: Mapping[str, Tensor], rtol: float = 1e-9) -> None:
        """The largest difference is small beside the largest magnitude, for each tensor."""
        for name, value in ours.items():
            golden = self.numbers[name]
            error = np.abs(value.detach().numpy().reshape(golden.shape) - golden).max()
            assert error < rtol * np.abs(golden).max(), name

    def compare_gradients(self, norms: Mapping[str, float], tag: str = "gradnorm") -> None:
        """Norms by the release's names; those that are rounding noise have a bound alone."""
        golden = {
            k.partition("/")[2]: v for k, v in self.numbers.items() if k.startswith(tag + "/")
        }
        unused, top = set(self.meta["params_without_gradient"]), max(golden.values())
        assert set(golden) - unused == set(norms)
        for name, norm in norms.items():
            noise = name in self.meta["gradnorm_is_zero_or_rounding_noise"]
            if noise or golden[name] < 1e-12 * top:
                assert norm < 1e-11 * top, name
            else:
                assert norm == pytest.approx(float(golden[name]), rel=1e-6), name


def fill(name: str, shape: list[int], keys: Mapping[str, Any]) -> np.ndarray:
    if name.endswith(KEPT):
        return np.zeros(shape)
    if name in ONES:
        return np.ones(shape)
    for alias, own in ALIASES.items():
        name = re.sub(alias, own, name)
    draw = np.asarray(np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape))
    stem, _, last = name.rpartition(".")
    if last == "running_mean":
        return 0.1 * draw
    if last == "running_var":
        return 1 + 0.1 * abs(draw)
    if name.endswith("_table"):
        return 0.5 * draw
    if draw.ndim == 1:
        scale = last == "weight" and (
            stem + ".running_mean" in keys or re.search(r"norm\d*$", stem)
        )
        return 0.1 * draw + bool(scale)
    return draw / np.sqrt(np.prod(shape[1:]))


def read_golden(name: str) -> Golden:
    """Skips the test where the numbers are absent."""
    path = FOLDER / name
    if not path.with_suffix(".npz").is_file():
        pytest.skip(f"{name} is not part of the repository: it is too large for a fixture")
    with np.load(path.with_suffix(".npz")) as numbers:
        return Golden(json.loads(path.with_suffix(".json").read_text()), dict(numbers))


def golden_images(batch: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((batch, 3, 224, 224)))


def golden_target(batch: int, outputs: int) -> Tensor:
    draw = np.random.default_rng(1)
    if outputs == 10:
        return torch.from_numpy(draw.dirichlet(np.ones(10), batch))
    return torch.from_numpy(draw.uniform(0, 1, (batch, outputs)))


def golden_loss(output: Tensor) -> Tensor:
    name = "emd" if output.shape[1] == 10 else "mse"
    return LOSSES[name](output, golden_target(*output.shape))
