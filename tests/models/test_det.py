"""DeT computes what its release computes; gate and histogram by hand."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from minis import MINI, PROFILES, images, mini
from siblings import Golden, State, golden_images, golden_loss, read_golden
from torch import Tensor, nn

from eat.models.det import ColourHistogram, DeT
from eat.models.empty import EmptyWeights
from eat.models.foreign import DET_RULES, rename
from eat.models.variants import EAT_SIZES, RELEASED
from eat.models.weights import WeightsError, load_weights

pytestmark = pytest.mark.long(together=True)

# What the release stores beside the weights that it uses.
UNUSED = {
    "cls_head.weight",
    "cls_head.bias",
    "hist_feature.centers",
    "hist_feature.bin_centers_conv.weight",
    "hist_feature.bin_widths_conv.bias",
}


class Case(NamedTuple):
    model: DeT
    golden: Golden
    output: Tensor
    loss: Tensor
    seen: dict[str, Tensor]  # by golden names
    record: dict[str, dict[str, Tensor]]
    norms: dict[str, float]  # of gradients, by the release's names


@pytest.fixture(scope="module")
def state() -> State:
    """Golden weights of both variants; the names of one are among those of the other."""
    return read_golden("det_ICAA17K").state()


@pytest.fixture(scope="module", params=["ICAA17K", "SPAQ"])
def case(request: pytest.FixtureRequest, state: State) -> Case:
    """A variant with golden weights, after one batch and its gradients."""
    golden = read_golden(f"det_{request.param}")
    outputs = golden.numbers["output"].shape[1]
    with EmptyWeights():
        settings = EAT_SIZES["base"] | RELEASED
        model = DeT(**settings, num_outputs=outputs, gate_points=outputs == 2).double().eval()
    keys: dict[str, list[int]] = golden.meta["keys"]
    load_weights(model, {name: state[name].view(keys[name]) for name in keys}, verbose=False)
    record = {
        f"stages.{name[4]}.blocks.{name[6:]}": dict[str, Tensor]()
        for name in golden.numbers
        if name.startswith("pos.")
    }
    seen: dict[str, Tensor] = {}
    histogram = model.histogram
    histogram.coordinates.register_forward_hook(lambda _, x, y: seen.update(hst36=y))
    histogram.register_forward_hook(lambda _, x, y: seen.update(features1024=x[0], histogram216=y))
    output = model(golden_images(2), record)
    loss = golden_loss(output)
    loss.backward()
    norms = gradient_norms(model, keys)
    model.zero_grad()
    first = {name: value.detach() for name, value in seen.items()}
    return Case(model, golden, output.detach(), loss.detach(), first, record, norms)


def gradient_norms(model: DeT, keys: dict[str, list[int]]) -> dict[str, float]:
    """Norms under the release's names, whose heads are one for each target."""
    heads = ("class_head", "class_head2")
    names = {name: torch.empty(0) for name in keys if not name.startswith("class_head2")}
    _, origin = rename(names, DET_RULES, "golden")
    norms = {}
    for name, parameter in model.named_parameters():
        grad = parameter.grad
        assert grad is not None, name
        foreign = origin[name].replace("bin_widths_conv.weight", "widths")  # its alias
        if name.startswith("head."):
            norms |= {f"{h}.{name[5:]}": g.norm().item() for h, g in zip(heads, grad, strict=False)}
        else:
            norms[foreign] = grad.norm().item()
    return norms


def test_outputs_and_loss_agree(case: Case) -> None:
    case.golden.compare({"output": case.output, "loss": case.loss})


def test_the_outputs_of_each_image_alone_agree(case: Case) -> None:
    with torch.no_grad():
        alone = torch.cat([case.model(image[None]) for image in golden_images(2)])
    case.golden.compare({"output_one_by_one": alone})
    assert (alone - case.output).abs().max() > 1e-6
    assert case.model.mixes_images


def test_features_coordinates_and_histogram_agree(case: Case) -> None:
    assert len(case.seen) == 3
    case.golden.compare(case.seen)


def test_points_positions_and_gates_agree(case: Case) -> None:
    compared = {}
    for name, golden in case.golden.numbers.items():
        kind, _, block = name.partition(".")
        key = {"pos": "positions", "ref": "points", "gate_mean_conv": "gate"}.get(kind)
        if key is not None:
            s, b = block.split(".")
            compared[name] = case.record[f"stages.{s}.blocks.{b}"][key]
            assert compared[name].numel() == golden.size
    assert len(compared) == 4 * (3 if case.model.num_outputs == 2 else 2)
    case.golden.compare(compared)


def test_the_norms_of_all_gradients_agree(case: Case) -> None:
    case.golden.compare_gradients(case.norms)


def test_parameters_are_those_of_the_release_less_what_it_does_not_use(case: Case) -> None:
    meta = case.golden.meta
    assert UNUSED == set(meta["params_without_gradient"])
    unused = sum(int(np.prod(meta["keys"][name])) for name in UNUSED)
    count = sum(p.numel() for p in case.model.parameters())
    assert count == meta["n_params_unique"] - unused


def test_a_fresh_histogram_counts_as_the_releases() -> None:
    golden = read_golden("det_SPAQ")
    draw = np.random.default_rng(3).uniform(-0.3, 1.3, (4, 36))
    histogram = ColourHistogram(8).double()  # its centres rounded to float32, as the release's are
    golden.compare({"histogram_constructor.centers": histogram.shifts})
    golden.compare({"histogram_constructor.out": histogram.count(torch.from_numpy(draw))})


# Without golden numbers


def small(**settings: Any) -> DeT:
    torch.manual_seed(0)
    base = {"img_size": 64, "drop_path_rate": 0.0, "num_outputs": 2, "gate_points": True}
    return DeT(**MINI | PROFILES["released"] | base | settings)


def test_a_fresh_histogram_is_triangles_that_touch() -> None:
    count = ColourHistogram(8).count
    places = torch.tensor([-0.1, 0.0, 1 / 12, 1 / 8, 1 / 6, 11 / 12, 1.0, 1.1])
    bins = count(places[:, None].expand(-1, 36))
    torch.testing.assert_close(bins.view(8, 36, 6), bins[:, None, :6].expand(-1, 36, -1))
    expected = torch.zeros(8, 6)
    expected[2, 0], expected[3, 0], expected[5, 5] = 1, 0.5, 1
    torch.testing.assert_close(bins[:, :6], expected)


def test_a_closed_gate_samples_the_centre_and_an_open_one_changes_nothing() -> None:
    model, plain = small().eval(), small(gate_points=False).eval()
    load_weights(plain, {n: v for n, v in model.state_dict().items() if ".gate." not in n})
    gates = [m for n, m in model.named_modules() if n.endswith(".gate.conv")]
    assert len(gates) == 2
    for bias in (-1.0, 1.0):
        for gate in gates:
            nn.init.zeros_(gate.weight)
            nn.init.constant_(gate.bias, bias)
        record: dict[str, dict[str, Tensor]] = {}
        with torch.no_grad():
            same = torch.equal(model(images(), record), plain(images()))
        assert same == (bias < 0)
        centred = [not r["positions"].any() for r in record.values() if "positions" in r]
        assert centred == [bias > 0] * 2


def test_points_of_its_own_make_a_score_independent_of_the_batch() -> None:
    model = small().eval()
    model.use_own_points()
    assert not model.mixes_images
    with torch.no_grad():
        alone = torch.cat([model(image[None]) for image in images()])
        torch.testing.assert_close(model(images()), alone)


def test_it_starts_from_weights_of_eat_and_from_its_other_variant() -> None:
    model, eat = small(), mini("released")
    state = eat.state_dict()
    report = load_weights(model, state, verbose=False)
    assert report.left_out == ["head.weight", "head.bias"]
    fresh = {n.split(".attn.")[-1].split(".")[0] for n in report.missing}
    assert fresh == {"gate", "histogram", "head"}
    spaq = small(num_outputs=1, gate_points=False)
    report = load_weights(spaq, model.state_dict(), verbose=False)
    assert {n.split(".attn.")[-1].split(".")[0] for n in report.left_out} == {"gate", "head"}
    assert set(report.missing) == {"head.weight", "head.bias"}


def test_a_histogram_with_other_constants_is_refused() -> None:
    name = "hist_feature.bin_widths_conv.bias"
    state = {"hst_head.weight": torch.zeros(36, 32), name: torch.full((216,), 2.0)}
    with pytest.raises(WeightsError, match=f"'{name}' has shape .* not the constant 1"):
        load_weights(small(), state)


def test_a_gate_needs_interest_points() -> None:
    with pytest.raises(ValueError, match="gate_points needs interest points"):
        small(interest=False)
