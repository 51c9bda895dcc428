"""Our models as citizens of timm: what its own tests ask of every model in its registry."""

from functools import cache
from pathlib import Path

import pytest
import timm
import torch
from timm.models import FeatureInfo, get_notrace_modules
from timm.models import create_feature_extractor as extractor
from torch import Tensor, nn
from torchvision.models.feature_extraction import NodePathTracer

import eat  # noqa: F401  (registers the models)
from eat.models import AestheticModel

NARROW = {"dims": (24, 48, 96, 192)}  # a quarter of the tiny ones' channels
NAMES = {"eat_nano": {}, "eat_tiny_released": NARROW, "dat_tiny": NARROW}
# Tests of timm's tests/test_models.py that cannot hold. docs/sharing.md has the same table.
SCRIPT = "PyTorch has deprecated TorchScript, and it takes no functions as arguments"
LEFT_OUT = {
    "test_model_forward_torchscript": SCRIPT,
    "test_model_forward_fx_torchscript": SCRIPT,
}


@cache
def pixels(side: int = 64) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest) -> AestheticModel:
    """A model in evaluation mode, as timm makes it; tests leave it as it was."""
    return timm.create_model(request.param, **NAMES[request.param]).eval()


def gradients(net: nn.Module, outputs: Tensor) -> set[str]:
    """Names of the parameters that a backward pass reaches."""
    outputs.mean().backward()
    return {name for name, weight in net.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_receives_a_gradient(name: str) -> None:
    net = timm.create_model(name, num_classes=42, **NAMES[name]).train()
    outputs = net(pixels())
    assert outputs.shape == (2, 42) and outputs.isfinite().all()
    assert gradients(net, outputs) == dict(net.named_parameters()).keys()


def test_the_registrys_configuration_describes_the_model(model: AestheticModel) -> None:
    config, registered = (
        model.default_cfg,
        timm.get_pretrained_cfg(model.default_cfg["architecture"]),
    )
    assert tuple(config["input_size"]) == registered.input_size == (3, *model.img_size)
    assert model.num_classes == model.num_outputs == config["num_classes"] == registered.num_classes
    names = model.state_dict().keys()
    assert f"{config['classifier']}.weight" in names and f"{config['first_conv']}.weight" in names
    with torch.no_grad():
        features = model.forward_features(torch.zeros(1, *config["input_size"]))
    assert features.shape == (1, *config["pool_size"], model.num_features)
    assert model.forward_head(features, pre_logits=True).shape == (1, model.head_hidden_size)


@torch.no_grad()
def test_without_head_and_pooling_the_features_come_out() -> None:
    net = timm.create_model("eat_nano").eval()
    features = net.forward_features(pixels())
    pooled = net.forward_head(features, pre_logits=True)
    net.reset_classifier(0)
    assert net.num_classes == 0 and torch.equal(net(pixels()), pooled)
    net.reset_classifier(0, "")
    assert torch.equal(net(pixels()), features)
    net.reset_classifier(7, "avg")
    assert net(pixels()).shape == (2, 7)
    built = timm.create_model("eat_nano", num_classes=0, global_pool="").eval()
    assert built(pixels()).shape == features.shape
    with pytest.raises(ValueError, match="global_pool is 'max': expected 'avg', ''"):
        timm.create_model("eat_nano", global_pool="max")
    with pytest.raises(ValueError, match="in_chans is 1: expected 3"):
        timm.create_model("eat_nano", in_chans=1)


@torch.no_grad()
def test_intermediate_maps_are_what_feature_info_says(model: AestheticModel) -> None:
    info = FeatureInfo(model.feature_info, len(model.feature_info))
    features, maps = model.forward_intermediates(pixels(96))
    for one, channels, step in zip(maps, info.channels(), info.reduction(), strict=True):
        assert one.shape == (2, channels, 96 // step, 96 // step)
    assert torch.equal(features, model.forward_features(pixels(96)))
    first, last = model.forward_intermediates(
        pixels(96), [0, -1], norm=True, output_fmt="NHWC", intermediates_only=True
    )
    assert torch.equal(first.permute(0, 3, 1, 2), maps[0]) and torch.equal(last, features)
    (second,) = model.forward_intermediates(pixels(96), (1,), intermediates_only=True)
    assert torch.equal(second, maps[1])
    with pytest.raises(IndexError):
        model.forward_intermediates(pixels(96), [4])


@torch.no_grad()
@pytest.mark.parametrize("kind", ["hook", "getter"])
def test_features_only_gives_the_maps(kind: str) -> None:
    torch.manual_seed(0)
    net = timm.create_model("eat_nano", features_only=True, out_indices=(1, 3), feature_cls=kind)
    torch.manual_seed(0)
    _, maps = timm.create_model("eat_nano").eval().forward_intermediates(pixels())
    assert net.feature_info.channels() == [64, 256] and net.feature_info.reduction() == [8, 32]
    for one, expected in zip(net.eval()(pixels()), (maps[1], maps[3]), strict=True):
        assert torch.equal(one.permute(0, 3, 1, 2) if kind == "hook" else one, expected)


@torch.no_grad()
def test_fx_traces_the_model_and_takes_features_from_the_graph(model: AestheticModel) -> None:
    net = extractor(model, {"stages.1.blocks.1": "map", "head": "head"})
    found = net(pixels())
    _, maps = model.forward_intermediates(pixels())
    assert torch.equal(found["map"].permute(0, 3, 1, 2), maps[1])
    pooled = model.pool(model.forward_features(pixels()))
    assert torch.equal(found["head"], model.head(pooled))


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_receives_a_gradient_through_fxs_graph(name: str) -> None:
    net = timm.create_model(name, num_classes=42, **NAMES[name]).train()
    graph = NodePathTracer(leaf_modules=get_notrace_modules()).trace(net)
    outputs = torch.fx.GraphModule(net, graph)(pixels())
    assert outputs.shape == (2, 42)
    assert gradients(net, outputs) == dict(net.named_parameters()).keys()


def test_what_is_left_out_fails_and_is_told() -> None:
    with pytest.raises(Exception, match="function definitions aren't supported"):
        torch.jit.script(timm.create_model("eat_nano"))
    document = (Path(__file__).parents[2] / "docs" / "sharing.md").read_text()
    for name, reason in LEFT_OUT.items():
        assert f"| `{name}` | {reason} |" in document
