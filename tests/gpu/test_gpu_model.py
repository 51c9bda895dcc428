"""On a GPU the model computes what it does on the CPU in float64."""

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("timm")
sys.path.append(str(Path(__file__).parents[2] / "scripts"))


@pytest.mark.parametrize("kind", ["exact", "fp32", "bf16", "fp16"])
def test_outputs_and_gradients_are_within_the_stated_tolerances(
    kind: str, gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu_check

    monkeypatch.setattr(gpu_check, "DEVICE", gpu)
    monkeypatch.setattr(gpu_check, "MODELS", ("eat_nano",))
    (row,) = gpu_check.compare((kind,), compiled=False)
    assert row["ok"], row


def test_drawn_at_random_slices_of_a_batch_are_what_the_undivided_batch_is(
    gpu: torch.device,
) -> None:
    from eat.models import create_model

    torch.manual_seed(0)
    model = create_model("eat_nano", 10, 64, drop_path_rate=0.5).double().to(gpu).train()
    images = torch.randn(6, 3, 64, 64, dtype=torch.float64, device=gpu)

    def outputs(first: int, last: int) -> torch.Tensor:
        torch.manual_seed(1)
        model.set_batch_slice(first, 6)
        return model(images[first:last])

    parts = torch.cat([outputs(0, 1), outputs(1, 4), outputs(4, 6)])
    torch.testing.assert_close(parts, outputs(0, 6), rtol=1e-9, atol=1e-12)
