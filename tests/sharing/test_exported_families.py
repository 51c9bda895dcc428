"""Every family of models in both forms of file: PyTorch's scores, in a batch of any number."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from eat.checkpoint import CheckpointInfo, ModelSpec
from eat.config.run import EnhanceConfig
from eat.data.registry import DATASETS
from eat.data.transforms import Preprocessing
from eat.sharing.formats import OPSET, OnnxFile, TorchFile
from eat.sharing.graph import Rater

AVA = DATASETS["ava"]
MINE = """
from torch import nn


def net(num_outputs, img_size):
    layers = nn.Conv2d(3, 8, 4, 4), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(8, num_outputs))
"""


class Case(NamedTuple):
    """A very small model.

    Attributes:
        name: of the model.
        settings: with which it is built.
        enhance: as ``eat.enhance`` has it.
        outputs: of its head.
        targets: that it predicts in place of votes.
        side: of its images in pixels.
    """

    name: str
    settings: dict[str, Any] = {}
    enhance: EnhanceConfig | None = None
    outputs: int = 10
    targets: tuple[str, ...] = ()
    side: int = 64

    def rater(self, model: str | None = None) -> Rater:
        torch.manual_seed(0)
        spec = ModelSpec(
            self.name, self.outputs, (self.side, self.side), self.settings, self.enhance
        )
        net = spec.build(model)
        if self.name.startswith("tanet"):
            net.use_own_rule(40)
        else:
            net.use_own_points()
        for parameter in net.parameters():  # so that scores differ
            parameter.data += 0.02 * torch.randn_like(parameter)
        info = CheckpointInfo(
            spec,
            AVA.name,
            AVA.title,
            AVA.scale,
            Preprocessing(self.side),
            targets=dict.fromkeys(self.targets, AVA.scale),
        )
        return Rater(net, info, info.scales, pixels=True)


NARROW: dict[str, Any] = {"dims": (8, 8, 8, 8), "heads": (1, 1, 1, 1)}
SWIN = NARROW | {"stages": ("L", "S", "L", "L")}
VIT = {"embed_dim": 16, "depth": 1, "num_heads": 2}
TIMM_SWIN = {"embed_dim": 8, "depths": (1, 2), "num_heads": (1, 1), "window_size": 4}
PSVIT = {"points": 4, "dim": 8, "heads": 2, "depths": (1, 1), "stem_dims": (4, 8)}
FAMILIES = {
    "eat": Case("eat_nano", NARROW | {"stages": ("L", "L", "L", "E")}),
    "eat_released": Case("eat_base_released", NARROW | {"stages": ("L", "L", "L", "E")}),
    "swin": Case("swin_tiny", SWIN),
    "dat": Case("dat_tiny", NARROW | {"stages": ("L", "L", "L", "D")}),
    "det, two targets": Case(
        "det_icaa17k",
        NARROW | {"stages": ("L", "L", "L", "E")},
        outputs=2,
        targets=("score", "color"),
    ),
    "psvit": Case("psvit_nano_eam", PSVIT),
    "vit, a score": Case("vit_nano", VIT, outputs=1),
    "timm convnext": Case("timm/convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}),
    "timm vit": Case("timm/vit_tiny_patch16_224", VIT),
    "timm swin": Case("timm/swin_tiny_patch4_window7_224", TIMM_SWIN),
    "swin, enhanced by a gate": Case(
        "swin_tiny", SWIN, EnhanceConfig(stages=[3], every=1, gate=True)
    ),
    "timm vit, enhanced": Case("timm/vit_tiny_patch16_224", VIT, EnhanceConfig(every=1)),
    "timm swin, enhanced by a gate": Case(
        "timm/swin_tiny_patch4_window7_224",
        TIMM_SWIN,
        EnhanceConfig(stages=[1], every=2, gate=True),
    ),
    "mine": Case("mine.py:net"),
}


def images(side: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (3, side, side, 3), np.uint8)


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_both_forms_of_any_family_score_as_pytorch_does_in_any_batch(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    case, pixels = FAMILIES[family], images(64)
    mine = tmp_path / "mine.py"
    mine.write_text(MINE)
    rater = case.rater(f"{mine}:net" if family == "mine" else None)
    expected = rater.rate(pixels)
    assert len(expected) == (2 if case.outputs > 1 else 1)
    assert np.ptp(expected[0]) > 1e-4
    program = rater.program()
    monkeypatch.setattr(rater, "program", lambda: program)  # traced once for both
    onnx = OnnxFile(rater, quantise=False)
    assert [opset.version for opset in onnx.model.opset_import if not opset.domain] == [OPSET]
    modes = [a.s for node in onnx.model.graph.node for a in node.attribute if a.name == "mode"]
    assert b"linear" not in modes  # GridSample of opset 20, which TensorRT reads as nearest
    for run in (onnx.runner(), TorchFile(rater, quantise=False).runner()):
        for batch in (slice(0, 3), slice(1, 2)):
            for found, wanted in zip(run(pixels[batch]), expected, strict=True):
                np.testing.assert_allclose(found, wanted[batch], atol=1e-4)


def test_tanet_is_exported_by_our_rule() -> None:
    pixels = images(224)
    rater = Case("tanet_ava", side=224).rater()
    expected = rater.rate(pixels)
    run = TorchFile(rater, quantise=False).runner()
    for batch in (slice(0, 3), slice(1, 2)):
        np.testing.assert_allclose(run(pixels[batch])[0], expected[0][batch], atol=1e-4)
