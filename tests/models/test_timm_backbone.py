"""timm's models as backbones: what they take and give, and weights by their names."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import Tensor

import eat
from eat.models import WeightsError, timm_backbone
from eat.models.empty import EmptyWeights
from eat.models.timm_backbone import TimmModel
from eat.models.variants import find_variant

CONVNEXT = "timm/convnext_atto.d2_in1k"
SWIN = "timm/swin_tiny_patch4_window7_224.ms_in1k"
VIT = "timm/vit_tiny_patch16_224.augreg_in21k"
TINY: dict[str, dict[str, Any]] = {
    CONVNEXT: {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]},
    SWIN: {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]},
    VIT: {"embed_dim": 24, "depth": 2, "num_heads": 2},
    "timm/resnet10t": {"channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]},
    "timm/swinv2_tiny_window8_256": {"embed_dim": 16, "depths": [1, 1], "num_heads": [1, 1]},
}


def tiny(name: str, seed: int = 0, **settings: Any) -> TimmModel:
    torch.manual_seed(seed)
    model = eat.create_model(name, **{"img_size": 64, **TINY.get(name, {}), **settings})
    assert isinstance(model, TimmModel)
    return model.eval()


def images(count: int = 2, size: int = 64) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def of_timm(name: str, seed: int = 1, size: int = 64, **more: Any) -> torch.nn.Module:
    """The model as timm builds it, with its classifier."""
    torch.manual_seed(seed)
    fixed = {} if name in (CONVNEXT, "timm/resnet10t") else {"img_size": size}
    return timm.create_model(name.removeprefix("timm/"), **TINY[name], **fixed, **more).eval()


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_outputs_are_the_head_on_the_features_that_timm_pools(name: str, tmp_path: Path) -> None:
    net, model = of_timm(name), tiny(name)
    save_file(net.state_dict(), tmp_path / "timm.safetensors")
    report = eat.load_weights(model, tmp_path / "timm.safetensors", verbose=False)
    assert report.format == "timm" and len(report.left_out) == 2  # the classifier
    assert report.missing == ["head.weight", "head.bias"] and not report.resized
    pooled = net.forward_head(net.forward_features(images()), pre_logits=True)
    torch.testing.assert_close(model(images()), model.head(pooled).softmax(dim=-1))
    alone = torch.cat([model(image[None]) for image in images()])
    torch.testing.assert_close(model(images()), alone, rtol=0, atol=1e-6)
    assert not model.mixes_images and not model.enhanced_blocks()


@pytest.mark.parametrize("name", TINY)
def test_every_parameter_learns_and_empty_models_are_filled(name: str) -> None:
    model = tiny(name, num_outputs=1, drop_path_rate=0.0)
    model.set_batch_slice(0, 2)
    model.train()(images()).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    with EmptyWeights():
        empty = eat.create_model(name, 1, 64, **TINY[name])
    assert all(parameter.is_meta for parameter in empty.parameters())
    empty.load_state_dict(model.state_dict(), assign=True)
    assert torch.equal(empty.eval()(images()), model.eval()(images()))


def test_images_are_those_of_timms_configuration() -> None:
    assert find_variant(VIT).inputs.mean == (0.5, 0.5, 0.5) == find_variant(VIT).inputs.std
    assert find_variant(CONVNEXT).inputs.mean == (0.485, 0.456, 0.406)
    assert find_variant("timm/tf_efficientnet_b0.in1k").inputs.interpolation == "bicubic"
    assert find_variant("timm/vgg11").inputs.interpolation == "bilinear"
    assert eat.create_model("timm/resnet10t", **TINY["timm/resnet10t"]).img_size == (176, 176)


def test_names_that_timm_does_not_know_are_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="convnext_ato'; did you mean 'timm/convnext_atto'"):
        find_variant("timm/convnext_ato")
    with pytest.raises(ValueError, match="unknown weights .*: convnext_atto has d2_in1k"):
        find_variant("timm/convnext_atto.d3")
    with pytest.raises(ValueError, match="is a model of ours: its name is 'eat_nano'"):
        find_variant("timm/eat_nano")
    with pytest.raises(ValueError, match="unknown model"):
        find_variant("timm/hf-hub:somebody/model")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (CONVNEXT, {"dimensions": [8]}, "unexpected keyword argument 'dimensions'"),
        (CONVNEXT, {"arch": "resnet10t"}, "arch is no setting of"),
        (CONVNEXT, {"checkpoint_path": "x.pth"}, "checkpoint_path is no setting of"),
        (CONVNEXT, {"pretrained_cfg": {"file": "x"}}, "pretrained_cfg is no setting of"),
        (CONVNEXT, {"dims": [8, 8, 8, 10**6]}, "dims is 1000000: expected -16384 to 16384"),
        (VIT, {"embed_dim": 25}, "cannot be built with"),
        (VIT, {"embed_dim": 16000, "num_heads": 2}, "weights|allocate"),
        ("timm/maxvit_pico_rw_256", {"img_size": 100}, "does not take images of 100 x 100 pixels"),
        (VIT, {"global_pool": ""}, "no features of an image, as one vector"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    name: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        tiny(name, **settings)


def test_drop_path_draws_the_same_however_a_batch_is_divided_up() -> None:
    model = tiny(VIT, drop_path_rate=0.5).train()
    torch.manual_seed(0)
    whole = model(images(8))
    parts = []
    for first in (0, 4):
        torch.manual_seed(0)
        model.set_batch_slice(first, 8)
        parts.append(model(images(8)[first : first + 4]))
    torch.testing.assert_close(torch.cat(parts), whole)
    model.set_batch_slice(0, 8)
    assert not torch.allclose(model(images(8)), whole)


def test_pixels_that_patches_leave_out_are_known() -> None:
    sizes = {64: 0, 70: 6, 79: 15}
    assert {size: tiny(VIT, img_size=size).cropped_pixels for size in sizes} == sizes


def test_gradient_checkpointing_and_decay_are_timms() -> None:
    model = tiny(VIT).train()
    model(images()).square().sum().backward()
    plain = [p.grad for p in model.parameters()]
    model.zero_grad()
    model.set_grad_checkpointing()
    model(images()).square().sum().backward()
    assert model.net.grad_checkpointing
    for before, after in zip(plain, model.parameters(), strict=True):
        torch.testing.assert_close(before, after.grad)
    assert model.no_weight_decay() >= {"net.pos_embed", "net.cls_token"}
    tables = [n for n, _ in tiny(SWIN).named_parameters() if n.endswith("bias_table")]
    assert tables and tiny(SWIN).no_weight_decay() >= set(tables)


@pytest.mark.parametrize("name", [CONVNEXT, SWIN, VIT])
def test_features_of_map_blocks_are_maps(name: str) -> None:
    model, outputs = tiny(name), []
    (*_, last) = model.map_blocks()
    block = model.get_submodule(last)
    block.register_forward_hook(lambda module, given, output: outputs.append(output))
    wide = torch.randn(1, 3, 64, 128) if name == CONVNEXT else images(1)
    model(wide)
    side = 4 if name == VIT else 2
    expected = (1, side, side * wide.shape[-1] // 64)
    assert model.as_map(outputs[0], wide).shape[:3] == expected


def test_position_embeddings_of_another_size_are_resized_and_reported(tmp_path: Path) -> None:
    torch.save(of_timm(VIT, size=96).state_dict(), tmp_path / "vit.pth")
    report = eat.load_weights(tiny(VIT), tmp_path / "vit.pth", verbose=False)
    assert report.resized == ["net.pos_embed"]
    ours = eat.load_weights(tiny(VIT), tiny(VIT, img_size=96).state_dict(), verbose=False)
    assert (ours.format, ours.missing) == ("eat", [])


def test_weights_of_another_architecture_are_refused() -> None:
    for other in (SWIN, "timm/resnet10t"):
        with pytest.raises(WeightsError, match="another architecture"):
            eat.load_weights(tiny(VIT), of_timm(other).state_dict())
    short = of_timm(VIT).state_dict()
    del short["blocks.1.norm1.weight"]
    with pytest.raises(WeightsError, match="1 weights are missing.*'net.blocks.1.norm1.weight'"):
        eat.load_weights(tiny(VIT), short)
    junk = {"pos_embed": torch.zeros(3), "patch_embed.proj.weight": torch.zeros(1)}
    with pytest.raises(WeightsError, match="another architecture"):
        eat.load_weights(tiny(VIT), junk)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, which cannot be reached."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(timm_backbone, "answers", lambda address: False)
    return tmp_path


def publish(cache: Path, name: str, state: dict[str, Tensor]) -> None:
    """Put weights into a cache as the hub's client does."""
    folder = cache / f"models--timm--{name.removeprefix('timm/')}"
    (folder / "snapshots" / "0").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0")
    save_file(state, folder / "snapshots" / "0" / "model.safetensors")


def test_published_weights_come_from_the_cache_by_name(cache: Path) -> None:
    name = "timm/test_vit.r160_in1k"
    torch.manual_seed(2)
    net = timm.create_model(name.removeprefix("timm/"))
    publish(cache, name, net.state_dict())
    model = eat.create_model(name, 1, 64)
    report = eat.load_weights(model, name, verbose=False)
    assert str(report).startswith(f"{name} (timm): loaded ")
    assert report.resized == ["net.pos_embed"]
    assert torch.equal(model.net.blocks[3].attn.qkv.weight, net.blocks[3].attn.qkv.weight)
    with pytest.raises(WeightsError, match="another architecture"):
        eat.load_weights(tiny(VIT), name)


def test_swin_weights_by_name_start_our_models(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {**TINY[SWIN], "depths": [2, 2, 2, 2], "img_size": 64}
    net = timm.create_model(SWIN.removeprefix("timm/"), **small)
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: net)
    sizes = {"dims": (16, 32, 64, 128), "heads": (1, 1, 2, 2)}
    model = eat.create_model("eat_tiny", img_size=64, stages=("LS", "LS", "LE", "LE"), **sizes)
    report = eat.load_weights(model, SWIN, verbose=False)
    assert str(report).startswith(f"{SWIN} (timm Swin): loaded ")
    ours = model.stages[0].blocks[1].mlp.fc1.weight
    assert torch.equal(ours, net.layers[0].blocks[1].mlp.fc1.weight)


def test_what_cannot_be_fetched_is_said_with_what_to_download(cache: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        eat.load_weights(tiny(CONVNEXT), CONVNEXT)
    message = str(caught.value)
    assert "hf download timm/convnext_atto.d2_in1k" in message
    assert "models--timm--convnext_atto.d2_in1k" in message
    assert "--model.weights model.safetensors" in message
    assert not constants.HF_HUB_OFFLINE  # of others
    with pytest.raises(WeightsError, match="timm publishes no weights of timm/coatnet_0_224"):
        eat.load_weights(tiny(CONVNEXT), "timm/coatnet_0_224")
