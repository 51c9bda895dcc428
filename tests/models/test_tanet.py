"""TANet computes what its release computes, and its scores depend on the batch."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from siblings import Golden, golden_images, golden_loss, golden_target, read_golden
from torch import Tensor, nn

from eat.models.empty import EmptyWeights
from eat.models.foreign import TANET_RULES, rename
from eat.models.tanet import TANet
from eat.models.variants import create_model
from eat.models.weights import WeightsError, load_weights


class Case(NamedTuple):
    model: TANet
    golden: Golden
    seen: dict[str, Tensor]  # golden names, after a batch of two
    outputs: dict[int, Tensor]  # by batch size
    norms: dict[int, dict[str, float]]  # of gradients, by the release's names


def observe(model: TANet, seen: dict[str, Tensor]) -> None:
    """Have a forward pass leave its intermediate tensors under the golden names."""
    stages: list[Tensor] = []

    def keep(module: nn.Module, name: str) -> None:
        module.register_forward_hook(lambda _, __, y: seen.update({name: y.detach().clone()}))

    def norms(_: nn.Module, __: object, y: Tensor) -> None:
        stages.append(torch.stack([y.mean(), y.norm()]).detach())
        seen["mobile.block_mean_norm"] = torch.stack(stages[-19:])

    target = model.theme.target
    for module, name in (
        (model.theme.scenes, "theme.logits365"),
        (target.hyper_weight, "theme.hyper_w"),
        (target.hyper_bias, "theme.hyper_b"),
        (target.fc, "theme.fc1"),
        (target.norm, "theme.bn1"),
        (target.act, "theme.q"),
        (target, "theme.pooled"),
        (model.mobile, "mobile.out"),
        (model.colour, "rgb.out"),
    ):
        keep(module, name)
    model.mobile.head.register_forward_pre_hook(
        lambda _, args: seen.update({"mobile.pooled": args[0].detach()})
    )
    for layer in model.mobile.features:
        layer.register_forward_hook(norms)


@pytest.fixture(scope="module", params=["AVA", "TAD66K"])
def case(request: pytest.FixtureRequest) -> Case:
    """A variant with golden weights, after two batches of images and their gradients."""
    golden = read_golden(f"tanet_{request.param}")
    with EmptyWeights():
        model = create_model(f"tanet_{request.param.lower()}").double().eval()
    assert isinstance(model, TANet)
    load_weights(model, golden.state(), verbose=False)
    case = Case(model, golden, {}, {}, {})
    seen: dict[str, Tensor] = {}
    observe(model, seen)
    for batch in (2, 5):
        output = model(golden_images(batch))
        golden_loss(output).backward()
        case.outputs[batch] = output.detach()
        case.norms[batch] = gradient_norms(model, golden)
        case.seen.update(seen if batch == 2 else {"theme.pooled_B5": seen["theme.pooled"]})
        model.zero_grad()
    return case


def gradient_norms(model: TANet, golden: Golden) -> dict[str, float]:
    _, origin = rename(golden.state(), TANET_RULES, "golden")
    learning = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {origin[name]: grad.norm().item() for name, grad in learning.items()}


def test_outputs_and_losses_agree(case: Case) -> None:
    two, five = case.outputs[2], case.outputs[5]
    case.golden.compare({"output": two, "output_B5": five})
    case.golden.compare({"loss": golden_loss(two), "loss_B5": golden_loss(five)})
    if case.model.num_outputs == 10:
        difference = (two - golden_target(2, 10)).cumsum(dim=1)
        case.golden.compare({"loss_r1": difference.abs().mean()})


def test_the_branches_agree(case: Case) -> None:
    assert len(case.seen) == 12
    case.golden.compare(case.seen)
    similarity = case.model.colour.similarity(golden_images(2))
    themes = case.seen["theme.logits365"]
    case.golden.compare(
        {
            "rgb.similarity_rows0_48_96": similarity[:, [0, 48, 96]],
            "rgb.similarity_norm": similarity.norm(dim=(1, 2)),
            "theme.matrix_raw": case.model.theme.target.compare(themes),
            "theme.matrix": case.model.theme.target.relate(themes),
        }
    )


def test_the_theme_branch_agrees_for_batches_of_any_size(case: Case) -> None:
    sizes = [int(n.partition("_B")[2]) for n in case.golden.numbers if n.startswith("themeonly.m")]
    assert sizes == ([2, 7, 12] if case.model.num_outputs == 10 else [1, 2, 7, 12])
    target = case.model.theme.target
    for size in sizes:
        themes = torch.from_numpy(np.random.default_rng(2).standard_normal((size, 365)))
        case.golden.compare({f"themeonly.matrix_B{size}": target.relate(themes)})
        case.golden.compare({f"themeonly.pooled_B{size}": target(themes)})


def test_the_norms_of_all_gradients_agree(case: Case) -> None:
    case.golden.compare_gradients(case.norms[2])
    case.golden.compare_gradients(case.norms[5], "gradnorm_B5")


def test_one_image_alone_has_a_score_only_without_column_norm(case: Case) -> None:
    images = golden_images(2)
    with torch.no_grad():
        if case.model.num_outputs == 10:
            with pytest.raises(ValueError, match="expected at least 2 in each, got 1"):
                case.model(images[:1])
        else:
            alone = torch.cat([case.model(image[None]) for image in images])
            case.golden.compare({"output_one_by_one": alone})


def test_scores_depend_on_the_other_images_and_on_their_order(case: Case) -> None:
    order = torch.tensor([2, 0, 1, 4, 3])
    with torch.no_grad():
        permuted = case.model(golden_images(5)[order])
    assert (permuted - case.outputs[5][order]).abs().max() > 1e-6
    assert (case.outputs[2] - case.outputs[5][:2]).abs().max() > 1e-6
    assert case.model.mixes_images
    with pytest.raises(ValueError, match="no score of one image alone"):
        case.model.use_own_points()


def test_parameters_are_those_of_the_release_less_one_that_is_unused(case: Case) -> None:
    count = sum(p.numel() for p in case.model.parameters())
    unused = case.model.num_outputs == 1  # the column's PReLU
    assert count == case.golden.meta["n_params_unique"] - unused


def test_our_rule_compares_an_image_with_copies_of_itself(case: Case) -> None:
    target, themes = case.model.theme.target, torch.randn(2, 365).double()
    expected = [target(theme.expand(12, -1))[0] for theme in themes]
    case.model.use_own_rule(12)
    assert not case.model.mixes_images and case.model.smallest_batch == 1
    found = target(themes)
    target.copies = None
    torch.testing.assert_close(found, torch.stack(expected))


# Without golden numbers


def test_every_learning_parameter_receives_a_gradient_and_the_frozen_ones_none() -> None:
    torch.manual_seed(0)
    for column_norm in (True, False):
        model = TANet(column_norm=column_norm).train()
        model(torch.randn(3, 3, 224, 224)).square().sum().backward()
        without = {n for n, p in model.named_parameters() if p.grad is None}
        assert without == {f"theme.scenes.{n}" for n, _ in model.theme.scenes.named_parameters()}


def test_weights_of_the_other_variant_leave_out_head_and_column_activation() -> None:
    ava, tad = TANet(), TANet(num_outputs=1, column_norm=False)
    report = load_weights(tad, ava.state_dict(), verbose=False)
    prelu = "theme.target.column_act.weight"
    assert report.format == "eat"
    assert sorted(report.left_out) == ["head.bias", "head.weight", prelu]
    report = load_weights(ava, tad.state_dict(), verbose=False)
    assert sorted(report.missing) == ["head.bias", "head.weight", prelu]


def test_it_is_deterministic_runs_in_half_precision_and_has_no_blocks_to_compute_twice() -> None:
    model, images = TANet().eval(), golden_images(2).float()
    with torch.no_grad():
        scores = model(images)
        assert torch.equal(model(images), scores)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert (model(images) - scores).abs().max() < 0.1
    model.set_grad_checkpointing(False)
    with pytest.raises(ValueError, match="TANet has no blocks that could be computed twice"):
        model.set_grad_checkpointing()


def test_part_of_its_weights_is_refused() -> None:
    model, state = TANet(), TANet().state_dict()
    del state["mobile.features.3.conv.1.running_mean"]
    with pytest.raises(WeightsError, match=r"1 weights are missing, the first is 'mobile\.feat"):
        load_weights(model, state)


@pytest.mark.parametrize("side", [223, 256])
def test_sizes_that_the_pooling_does_not_fit_are_refused(side: int) -> None:
    with pytest.raises(ValueError, match=f"224 to 255 pixels a side, got {side} x {side}"):
        TANet(img_size=side)
