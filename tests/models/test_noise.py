"""Random draws depend on the step's batch, not on how it is divided up."""

import pytest
import torch

from eat import create_model
from eat.models.attention import WindowAttention
from eat.models.deformable import DeformableAttention
from eat.models.noise import DropPath, Subset

SMALL = {"dims": [16, 32, 32, 64], "heads": [1, 1, 2, 4], "stages": ["L", "S", "LE", "E"]}


def test_slices_of_a_batch_draw_what_the_undivided_batch_draws() -> None:
    torch.manual_seed(0)
    model = create_model("eat_nano", 10, 64, drop_path_rate=0.5, **SMALL).double().train()
    images = torch.randn(6, 3, 64, 64, dtype=torch.float64)

    def outputs(first: int, last: int) -> torch.Tensor:
        torch.manual_seed(1)
        return model(images[first:last])

    whole = outputs(0, 6)
    parts = []
    for first, last in ((0, 1), (1, 4), (4, 6)):
        model.set_batch_slice(first, 6)
        parts.append(outputs(first, last))
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-14)
    model.set_batch_slice(0, 6)
    assert not torch.allclose(outputs(4, 6), whole[4:])  # draws of other rows


def test_drop_path_leaves_a_share_out_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    layer, seen = DropPath(0.25), []

    def branch(x: torch.Tensor, subset: Subset | None) -> torch.Tensor:
        seen.append(len(x))
        return torch.ones_like(x)

    out = layer(branch, torch.zeros(20000, 2, 1))
    assert torch.equal(out[:, 0], out[:, 1])
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert out.mean().item() == pytest.approx(1, abs=0.02)
    assert seen == [(out[:, 0, 0] > 0).sum()]  # the others were not computed
    assert torch.equal(layer.eval()(branch, out), torch.ones_like(out))


def test_drop_path_stays_on_where_rotation_is_over() -> None:
    def differs(rate: float) -> bool:
        model = create_model("eat_nano", 10, 64, drop_path_rate=rate, **SMALL).train()
        model.set_epoch(1, 1)
        images = torch.randn(4, 3, 64, 64)
        return not torch.equal(model(images), model(images))

    torch.manual_seed(0)
    assert differs(0.5)
    assert not differs(0.0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rate", [0.5, 0.97])
def test_leaving_images_out_gives_the_gradients_of_a_mask(
    rate: float, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = create_model("eat_nano", 10, 64, drop_path_rate=rate, **SMALL).double().train()
    images = torch.randn(5, 3, 64, 64, dtype=torch.float64)

    def gradients() -> list[torch.Tensor]:
        torch.manual_seed(seed)
        model.zero_grad()
        model(images).square().sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    some = gradients()
    # of attention; the MLP's are compared by what is below it
    monkeypatch.setattr(WindowAttention, "mixes_images", True)
    monkeypatch.setattr(DeformableAttention, "mixes_images", True)
    whole = gradients()
    for one, other in zip(some, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)
