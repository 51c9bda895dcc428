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


def test_drop_path_zeroes_a_share_of_the_images_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    layer = DropPath(0.25)
    out = layer(torch.ones(20000, 2, 1))
    assert torch.equal(out[:, 0], out[:, 1])
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert out.mean().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(layer.eval()(out), out)
