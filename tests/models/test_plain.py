"""The baseline of the benchmarks computes the same network."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from eat.models import create_model
from eat.models.variants import RELEASED

sys.path.append(str(Path(__file__).parents[2] / "scripts"))
from plain import Plain

SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {"softmax": False},
    "released": RELEASED,
}


@pytest.mark.parametrize("size", [96, 128])  # 128: padded windows, and masks of another size
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("profile", SETTINGS)
def test_the_plain_formulation_is_the_same_network(profile: str, training: bool, size: int) -> None:
    torch.manual_seed(0)
    model = create_model("eat_nano", **SETTINGS[profile] | {"drop_path_rate": 0.3}).double()
    for parameter in model.parameters():  # weights that matter
        torch.nn.init.normal_(parameter, std=0.1)
    model.train(training)
    images = torch.randn(3, 3, size, size, dtype=torch.float64)
    results = []
    for module in (model, Plain(model)):
        torch.manual_seed(1)
        model.zero_grad(set_to_none=True)
        out = module(images)
        out.square().sum().backward()
        results.append((out.detach(), {n: p.grad.clone() for n, p in model.named_parameters()}))
    (ours, our_gradients), (plain, plain_gradients) = results
    torch.testing.assert_close(plain, ours, rtol=1e-10, atol=1e-10)
    for name, gradient in our_gradients.items():
        scale = max(float(gradient.abs().max()), 1.0)
        error = (plain_gradients[name] - gradient).abs().max()
        assert error <= 1e-8 * scale, name
