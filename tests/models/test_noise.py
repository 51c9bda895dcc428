"""Random draws hang on the step's whole batch, not on how it is split up."""

import pytest
import torch

from eat import create_model
from eat.models.noise import DropPath

SMALL = {"dims": [16, 32, 32, 64], "heads": [1, 1, 2, 4], "stages": ["L", "S", "LE", "E"]}


def test_parts_of_a_batch_draw_what_the_whole_draws() -> None:
    torch.manual_seed(0)
    model = create_model("eat_nano", 10, 64, drop_path_rate=0.5, **SMALL).double().train()
    images = torch.randn(6, 3, 64, 64, dtype=torch.float64)

    def outputs(first: int, last: int) -> torch.Tensor:
        torch.manual_seed(1)
        return model(images[first:last])

    whole = outputs(0, 6)
    parts = []
    for first, last in ((0, 1), (1, 4), (4, 6)):
        model.set_rows(first, 6)
        parts.append(outputs(first, last))
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-14)
    model.set_rows(0, 6)
    assert not torch.allclose(outputs(4, 6), whole[4:])  # draws of other rows


def test_drop_path_leaves_a_share_out_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    layer, seen = DropPath(0.25), []

    def branch(part: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
        seen.append(len(part))
        return torch.ones_like(part)

    out = layer(torch.zeros(20000, 2, 1), branch)
    assert torch.equal(out[:, 0], out[:, 1])
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert out.mean().item() == pytest.approx(1, abs=0.02)
    assert seen == [(out[:, 0, 0] > 0).sum()]  # the others were not computed
    assert torch.equal(layer.eval()(out, branch), out + 1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rate", [0.5, 0.97])
def test_leaving_images_out_gives_the_gradients_of_a_mask(rate: float, seed: int) -> None:
    torch.manual_seed(0)
    model = create_model("eat_nano", 10, 64, drop_path_rate=rate, **SMALL).double().train()
    images = torch.randn(5, 3, 64, 64, dtype=torch.float64)

    def gradients() -> list[torch.Tensor]:
        torch.manual_seed(seed)
        model.zero_grad()
        model(images).square().sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    some = gradients()
    for block in (block for stage in model.stages for block in stage.blocks):
        block.attn.together = True  # of attention; the MLP's are compared by what is below it
    whole = gradients()
    for one, other in zip(some, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)
