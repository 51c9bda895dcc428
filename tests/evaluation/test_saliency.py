"""Attention and gradients on the tokens of a map, against cases worked out by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eat.evaluation.saliency import (
    bilinear_spread,
    gradcam,
    map_size,
    rollout,
    score_gradient,
    share_on_mask,
    stage_of,
    through_block,
    through_samples,
    to_patches,
)
from eat.models import EAT
from eat.models.attention import WindowAttention
from eat.models.base import Record
from eat.models.deformable import DeformableAttention
from eat.models.variants import RELEASED

ROWS, COLS = 5, 4
TOKENS = ROWS * COLS
SWIN, DAT = {"stages": ("LS", "LS", "LS", "LS")}, {"stages": ("LS", "LS", "LD", "LD")}
NORM1 = "stages.3.blocks.1.norm1"


def mini(**settings: Any) -> EAT:
    torch.manual_seed(0)
    small = {"dims": (8, 16, 16, 32), "heads": (1, 2, 2, 4), "window_size": 3, "img_size": 64}
    paper = {"interest_kernels": (13, 7, 3, 1), "stages": ("LS", "LS", "LE", "LE")}
    return EAT(**small | paper | settings).eval()


def images(height: int = 64, width: int = 64, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def first_output(outputs: Tensor) -> Tensor:
    return outputs[:, 0]


def windows(shift: int = 0) -> WindowAttention:
    return WindowAttention(TOKENS, 1, feature_size=(ROWS, COLS), window_size=2, shift=shift)


def deformable(**settings: Any) -> DeformableAttention:
    given = {"num_groups": 1, "feature_size": (ROWS, COLS), "pad_offsets": False}
    given |= {"interest_kernel": 2, "offset_kernel": 2, "range_factor": None}
    return DeformableAttention(TOKENS, 1, **given | settings)


def matrix_and_moved(attn: Any) -> tuple[Tensor, Tensor]:
    """A block's token-to-token matrix twice: by its forward pass, and by ``through_block``.

    Each token has a channel of its own, which the values keep: so the output has at each token the
    attention to each, without padding and what lies outside the map.
    """
    torch.manual_seed(0)
    for parameter in attn.parameters():
        nn.init.normal_(parameter)
    values = attn.qkv if isinstance(attn, WindowAttention) else attn.v
    for linear, first in ((values, values.out_features - TOKENS), (attn.proj, 0)):
        linear.weight.data[first:], linear.bias.data[first:] = torch.eye(TOKENS), 0
    record: dict[str, Tensor] = {}
    with torch.no_grad():
        x = torch.eye(TOKENS).view(1, ROWS, COLS, TOKENS)
        output = attn.eval()(x, record).view(TOKENS, TOKENS)
        every = {name: value.expand(TOKENS, *value.shape[1:]) for name, value in record.items()}
        moved = through_block(torch.eye(TOKENS).view(TOKENS, ROWS, COLS), attn, every)
    return output / output.sum(dim=1, keepdim=True), moved.flatten(1)


@pytest.mark.parametrize(
    "attn",
    [windows(), windows(shift=1), deformable(), deformable(interest=False, range_factor=4.0)],
    ids=["windows", "shifted", "points", "some outside"],
)
def test_weights_move_as_the_block_mixes_its_tokens(attn: nn.Module) -> None:
    matrix, moved = matrix_and_moved(attn)
    torch.testing.assert_close(moved, matrix)
    torch.testing.assert_close(moved.sum(dim=1), torch.ones(TOKENS))


def test_a_window_block_never_leaves_its_window() -> None:
    _, moved = matrix_and_moved(windows())
    y, x = torch.arange(TOKENS) // COLS // 2, torch.arange(TOKENS) % COLS // 2
    same = (y[:, None] == y) & (x[:, None] == x)
    assert (moved > 0).equal(same)


def test_a_position_is_spread_bilinearly_over_its_tokens() -> None:
    corner, between, outside = bilinear_spread(
        torch.tensor([[-1.0, -1.0], [0.5, -0.5], [-1.5, 0.0]]), height=3, width=5
    )
    assert corner[0, 0] == corner.sum() == 1
    expected = torch.zeros(3, 5)  # row 1.5, column 1
    expected[1:, 1] = 0.5
    assert between.equal(expected)
    assert outside[0, 2] == outside.sum() == 0.5


def test_heads_of_a_group_share_positions_and_count_alike() -> None:
    positions = torch.tensor([[-1.0, -1.0], [1.0, 1.0]]).view(1, 2, 1, 1, 2)  # a point a group
    attention = torch.ones(1, 4, 4, 1)  # two heads a group
    weights = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    moved = through_samples(weights, attention, positions)
    assert moved.tolist() == [[[0.5, 0.0], [0.0, 0.5]]]


def test_a_step_between_stages_spreads_over_two_by_two_without_padding() -> None:
    moved = to_patches(torch.tensor([[[4.0, 2.0], [6.0, 3.0]]]), height=3, width=3)
    assert moved.tolist() == [[[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [3.0, 3.0, 3.0]]]


def rollout_by_matrices(model: EAT, pixels: Tensor) -> Tensor:
    """The same by whole matrices, from the first block to the last."""
    record: Record = {}
    with torch.no_grad():
        model(pixels, record)
    stage, total = 0, torch.eye(map_size(pixels, 0)[0] * map_size(pixels, 0)[1])
    for name in record:
        size = map_size(pixels, stage_of(name))
        tokens = size[0] * size[1]
        every = {key: value.expand(tokens, *value.shape[1:]) for key, value in record[name].items()}
        each = torch.eye(tokens).view(tokens, *size)
        if stage_of(name) > stage:
            stage = stage_of(name)
            total = to_patches(each, *map_size(pixels, stage - 1)).flatten(1) @ total
        attended = through_block(each, model.get_submodule(f"{name}.attn"), every).flatten(1)
        total = (0.5 * torch.eye(tokens) + 0.5 * attended) @ total
    torch.testing.assert_close(total.sum(dim=1), torch.ones(len(total)))
    return total.mean(dim=0).view(map_size(pixels, 0))


@pytest.mark.parametrize("settings", [{}, SWIN, DAT], ids=["eat", "swin", "dat"])
def test_rollout_is_the_product_of_the_blocks_matrices(settings: dict[str, Any]) -> None:
    model, pixels = mini(**settings), images(72, 64, batch=1)
    torch.testing.assert_close(rollout(model, pixels)[0], rollout_by_matrices(model, pixels))


def test_rollout_sums_to_one_in_every_image_and_at_every_block() -> None:
    model = mini(**RELEASED | {"shift": 2})
    model.use_own_points()
    pixels = images(80, 64)
    both = rollout(model, pixels)
    assert both.shape == (2, 20, 16)
    torch.testing.assert_close(both.sum(dim=(1, 2)), torch.ones(2))
    torch.testing.assert_close(rollout(model, pixels[1:])[0], both[1])
    early = rollout(model, pixels, "stages.0.blocks.0")
    torch.testing.assert_close(early.sum(dim=(1, 2)), torch.ones(2))
    assert not early.allclose(both)
    with pytest.raises(
        ValueError, match="no block 'stages.9'; nearest: stages.* stages.3.blocks.1$"
    ):
        rollout(model, pixels, "stages.9")


def test_the_gradient_is_that_of_a_small_change_of_the_features() -> None:
    model, pixels = mini().double(), images(batch=1).double()
    norms = score_gradient(model, pixels, NORM1, first_output)
    assert norms.shape == (1, 2, 2)
    step, found = 1e-5, torch.zeros(32, dtype=torch.float64)
    for channel in range(32):
        scores = []
        for sign in (1, -1):

            def nudge(*call: Any, by: float = sign * step, at: int = channel) -> Tensor:
                changed: Tensor = call[-1].clone()
                changed[0, 1, 0, at] += by
                return changed

            with model.get_submodule(NORM1).register_forward_hook(nudge), torch.no_grad():
                scores.append(model(pixels)[0, 0])
        found[channel] = (scores[0] - scores[1]) / (2 * step)
    torch.testing.assert_close(norms[0, 1, 0], found.norm(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("settings", [{}, SWIN, DAT], ids=["eat", "swin", "dat"])
def test_gradcam_is_the_features_weighted_by_their_mean_gradient(settings: dict[str, Any]) -> None:
    pytest.importorskip("pytorch_grad_cam", reason="GradCAM is in the extra 'saliency'")
    model, pixels = mini(**settings), images(128, 96)
    found = {}
    for layer in ("stages.2.blocks.1.norm1", "stages.2.blocks.1.norm2"):
        kept: list[Tensor] = []
        hook = model.get_submodule(layer).register_forward_hook(lambda *call: kept.append(call[-1]))  # noqa: B023
        with hook:
            total = model(pixels)[:, 0].sum()
        (gradient,) = torch.autograd.grad(total, kept)
        plain = (kept[0] * gradient.mean(dim=(1, 2), keepdim=True)).sum(dim=-1).relu()
        found[layer] = gradcam(model, pixels, layer, first_output)
        assert found[layer].shape == (2, 128, 96)
        for one, cam in zip(plain.detach(), found[layer], strict=True):
            assert cam.min() >= 0 and cam.max() <= 1
            y, x = divmod(int(one.argmax()), one.shape[1])  # a token is 16 pixels a side
            assert cam[16 * y : 16 * y + 16, 16 * x : 16 * x + 16].max() == cam.max()
    assert not torch.equal(*found.values())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_gradcam_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pytorch_grad_cam", None)
    with pytest.raises(
        ValueError, match=r"pip install 'eat-iaa\[saliency\]', or take eat saliency --method"
    ):
        gradcam(mini(), images(), NORM1, first_output)


def test_the_share_on_a_mask_by_hand() -> None:
    weights = torch.tensor([[[3.0, 1.0], [0.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
    mask = torch.zeros(4, 4)
    mask[:2, :2], mask[2, 2:] = 1, 1  # all of the first weight, half of the last
    shares = share_on_mask(weights, mask.expand(2, 4, 4))
    assert shares[0] == (3 + 2) / 8 and shares[1].isnan()
    even = share_on_mask(torch.ones(6, 6), mask)
    assert even == pytest.approx(mask.mean().item())
