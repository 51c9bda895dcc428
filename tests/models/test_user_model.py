"""Models that functions in a user's file build."""

from pathlib import Path

import pytest
import torch

import eat
from eat.models.user_model import UserModel

SOURCE = """
import torch
from torch import nn
import eat

class Net(nn.Module):
    def __init__(self, outputs, width=4):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 8, 8)
        self.norm = nn.BatchNorm2d(width)
        self.fc = nn.LazyLinear(outputs)
        self.register_buffer("order", torch.arange(width))

    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).mean(dim=(2, 3))[:, self.order])

def net(num_outputs, img_size, width=4):
    assert len(img_size) == 2
    return Net(num_outputs, width)

def ours(num_outputs, img_size):
    return eat.create_model("psvit_nano", num_outputs, img_size)

def none(num_outputs, img_size): pass
def narrow(num_outputs, img_size): return Net(num_outputs + 1)
def score(num_outputs, img_size): return nn.Sequential(Net(num_outputs), nn.Flatten(0))
def pair(num_outputs, img_size):
    class Pair(Net):
        def forward(self, x): return super().forward(x), x
    return Pair(num_outputs)
def trains(num_outputs, img_size):
    class Trains(Net):
        def forward(self, x): return super().forward(x)[:, : 3 if self.training else None]
    return Trains(num_outputs)
def fails(num_outputs, img_size):
    return nn.Sequential(nn.Linear(7, 2))
def empty(num_outputs, img_size): return nn.Flatten()
def batches(num_outputs, img_size):
    return nn.Sequential(Net(num_outputs), nn.BatchNorm1d(num_outputs))
def pooled(num_outputs, img_size):
    norm = nn.Conv2d(3, 4, 8, 8), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4), nn.Flatten()
    return nn.Sequential(*norm, nn.Linear(4, num_outputs))
def exits(num_outputs, img_size): raise SystemExit(0)
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "my models.py"
    path.write_text(SOURCE)
    return path


def test_a_module_is_wrapped_and_ends_in_a_distribution_if_it_has_several_outputs(
    file: Path,
) -> None:
    model = eat.create_model(f"{file}:net", 10, 64, width=6)
    assert isinstance(model, UserModel)
    assert (model.num_outputs, model.img_size, model.training) == (10, (64, 64), True)
    x = torch.randn(3, 3, 64, 64)
    raw = model.eval().net(x)
    assert torch.equal(model(x), raw.softmax(dim=1))
    assert torch.equal(model.forward_head(model.forward_features(x), pre_logits=True), raw)
    model(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    score = eat.create_model(f"{file}:net", 1, 64).eval()
    assert torch.equal(score(x), score.net(x))
    assert eat.create_model(f"{file}:net").img_size == (224, 224)
    assert score.enhanced_blocks() == score.map_blocks() == score.sampling_blocks() == []


def test_a_model_of_the_package_stays_what_it_is(file: Path) -> None:
    assert type(eat.create_model(f"{file}:ours", 1, 96)).__name__ == "PSViT"


def test_weights_of_an_own_model_load_into_it_again(file: Path) -> None:
    first, second = (eat.create_model(f"{file}:net", 10, 64) for _ in range(2))
    report = eat.load_weights(second, first.state_dict(), verbose=False)
    assert not report.missing
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(first.eval()(x), second.eval()(x))
    with pytest.raises(ValueError, match=r"'net\.fc\.weight'"):
        eat.load_weights(eat.create_model(f"{file}:net", 1, 64), first.state_dict(), verbose=False)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "returned NoneType: expected a torch.nn.Module"),
        ("narrow", "returns shape (2, 11) for images of shape (2, 3, 64, 64): expected (2, 10)"),
        ("score", "returns shape (20,)"),
        ("pair", "returns tuple: expected a tensor"),
        ("trains", "in training its model returns shape (2, 3)"),
        ("fails", "RuntimeError: "),
        ("empty", "without parameters"),
        ("exits", "it calls sys.exit"),
        ("nett", "did you mean 'net'?"),
    ],
)
def test_what_a_function_must_not_return_is_told(name: str, message: str, file: Path) -> None:
    with pytest.raises(ValueError, match=r"my models\.py") as caught:
        eat.create_model(f"{file}:{name}", 10, 64)
    assert message in str(caught.value)


def test_a_setting_that_the_function_does_not_take_is_told(file: Path) -> None:
    with pytest.raises(ValueError, match="unexpected keyword argument 'widht'"):
        eat.create_model(f"{file}:net", 10, 64, widht=4)


def test_what_the_check_computes_leaves_no_trace(file: Path) -> None:
    own = eat.create_model(f"{file}:net", 10, 64)
    assert own.net.norm.num_batches_tracked == 0 and not own.net.norm.running_mean.any()
    assert own.training


@pytest.mark.parametrize("name", ["batches", "pooled"])
def test_batches_of_one_are_refused_where_training_compares_images(name: str, file: Path) -> None:
    model = eat.create_model(f"{file}:{name}", 10, 64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="optim.batch_size is 8: of 25 images the last forward"):
        model.check_batches(25, 8, "optim.batch_size")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.eval().check_batches(25, 8, "optim.batch_size")


def test_batches_of_one_are_taken_where_an_image_has_a_map_to_normalise(file: Path) -> None:
    model = eat.create_model(f"{file}:net", 10, 64)
    torch.manual_seed(0)
    model.check_batches(25, 8, "optim.batch_size")
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))
    assert model.net.norm.num_batches_tracked == 0
