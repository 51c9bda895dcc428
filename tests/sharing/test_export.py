"""Exported files: the scores of PyTorch in other hands, or no file."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from eat.checkpoint import CheckpointInfo, ModelSpec, save_checkpoint
from eat.cli import main
from eat.config.sharing import ExportOptions
from eat.data.registry import DATASETS
from eat.data.transforms import FILTERS, Preprocessing
from eat.models import create_model
from eat.models.empty import EmptyWeights
from eat.scoring import Scorer
from eat.sharing import export as exporting
from eat.sharing.export import export
from eat.sharing.formats import Array, OnnxFile, Run
from eat.sharing.graph import Rater, resize

EXAMPLE = Path(__file__).parents[2] / "docs" / "export.md"
SETTINGS: dict[str, dict[str, Any]] = {
    "eat_nano": {"dims": (8, 8, 8, 16), "heads": (1, 1, 1, 2), "stages": ("L", "L", "L", "E")},
    "vit_nano": {"embed_dim": 16, "depth": 2, "num_heads": 2},
}


def tiny(name: str, folder: Path, outputs: int = 10) -> Path:
    """A checkpoint of a very small model with random weights, of a scale of its own."""
    torch.manual_seed(0)
    spec = ModelSpec(name, outputs, (64, 64), SETTINGS[name])
    model = spec.build()
    for parameter in model.parameters():  # so that scores differ
        parameter.data += 0.1 * torch.randn_like(parameter)
    data = DATASETS["spaq" if outputs == 1 else "ava"]
    info = CheckpointInfo(spec, data.name, data.title, data.scale, Preprocessing(64))
    save_checkpoint(folder / "tiny.safetensors", model, info)
    return folder / "tiny.safetensors"


def photographs(sample: Path) -> list[Path]:
    return sorted((sample / "images").glob("*.jpg"))[:5]


@pytest.mark.long
@pytest.mark.parametrize("outputs", [10, 1])
def test_a_file_scores_photographs_as_the_checkpoint_does(
    outputs: int, sample: Path, tmp_path: Path
) -> None:
    session = pytest.importorskip("onnxruntime").InferenceSession
    checkpoint = tiny("vit_nano", tmp_path, outputs)
    out = tmp_path / "model.onnx"
    card = export(checkpoint, ExportOptions(out=str(out), pixels=True))
    assert card["difference"] <= 1e-4
    scores = [score.score for score in Scorer(checkpoint)(photographs(sample))]
    photos = [Image.open(path).resize((64, 64), FILTERS["bicubic"]) for path in photographs(sample)]
    found, *votes = session(out).run(None, {"pixels": np.stack(photos)})
    np.testing.assert_allclose(found, scores, atol=1e-4)
    assert [v.shape for v in votes] == ([] if outputs == 1 else [(5, 10)])
    own = session(out).get_modelmeta().custom_metadata_map
    assert json.loads(own["eat"]) == json.loads(json.dumps(card))
    assert b"site-packages" not in out.read_bytes()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tiny("vit_nano", tmp_path)


@pytest.fixture
def refused(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Call ``eat export`` beside the checkpoint, which fails and changes nothing: its message."""
    monkeypatch.chdir(checkpoint.parent)

    def call(*options: str) -> str:
        before = {path.name: path.read_bytes() for path in Path().iterdir()}
        assert main(["export", "--checkpoint", "tiny.safetensors", *options]) == 2
        assert {path.name: path.read_bytes() for path in Path().iterdir()} == before
        return capsys.readouterr().err.strip()

    return call


class Plain(OnnxFile):
    """PyTorch in place of ONNX, without a file worth the name."""

    def __init__(self, rater: Rater, *, quantise: bool) -> None:
        self.rater = rater

    def content(self, card: dict[str, Any]) -> bytes:
        return json.dumps(card).encode()

    def runner(self) -> Run:
        return self.rater.rate


class Wrong(Plain):
    """A runtime that is wrong by a thousandth of a vote."""

    def runner(self) -> Run:
        def run(images: Array) -> list[Array]:
            scores, votes = self.rater.rate(images)
            return [scores, votes + 1e-3]

        return run


class Broken(Plain):
    """A runtime that fails as they do."""

    def runner(self) -> Run:
        raise RuntimeError("no kernel\nat line 3")


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (Wrong, r"would differ from PyTorch by 0\.001 .*at most 0\.0001 in fp32; nothing"),
        (Broken, r"vit_nano as onnx cannot be made, or does not run: no kernel$"),
    ],
)
def test_a_file_that_disagrees_or_does_not_run_is_not_written(
    form: type[Plain],
    message: str,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(exporting.FORMATS, "onnx", form)
    Path("model.onnx").write_bytes(b"\x08\n\x12\x07pytorch")
    assert re.search(message, refused("--out", "model.onnx"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "model.pt2"], "out is 'model.pt2': expected a name that ends in .onnx"),
        (["--out", "m.onnx", "--precision", "bf16"], "--format onnx has no bf16"),
        (["--out", "m.onnx", "--labels", "x.csv"], "give --images"),
        (["--out", "m.onnx", "--images", "nowhere"], "nowhere: no such file"),
        (["--out", "m.onnx"], r"needs onnx, .*pip install 'eat-iaa\[export\]'"),
        (["--out", "theirs.onnx"], "theirs.onnx is there and not of this command's making"),
        (["--out", "own.pt2", "--format", "torch-export"], "own.pt2 is there and not of this"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: list[str],
    message: str,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    Path("theirs.onnx").write_bytes(b"before")
    torch.save({"weight": torch.zeros(1)}, "own.pt2")
    assert re.search(message, refused(*options))


def test_a_model_that_compares_images_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmptyWeights():
        tanet = create_model("tanet_tad66k")
    monkeypatch.setattr(exporting, "load_checkpoint", lambda *_: (tanet, None))
    with pytest.raises(ValueError, match="TANet compares the images of a batch"):
        export("any", ExportOptions(out=str(tmp_path / "model.onnx")))


@pytest.mark.parametrize("scale", ["ten", "own"])
@pytest.mark.parametrize("outputs", [10, 1])
def test_a_rater_gives_the_scores_of_eat_score(
    scale: Any, outputs: int, sample: Path, tmp_path: Path
) -> None:
    checkpoint = tiny("eat_nano", tmp_path, outputs)
    scorer = Scorer(checkpoint, scale=scale)
    rater = Rater(scorer.model, scorer.info, scorer.scales, pixels=True)
    scores, *votes = rater.rate(rater.taken(photographs(sample)))
    expected = list(scorer(photographs(sample)))
    np.testing.assert_allclose(scores, [one.score for one in expected], rtol=1e-5)
    if votes:
        np.testing.assert_allclose(votes[0], [one.votes for one in expected], atol=1e-6)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("height", "width"), [(97, 310), (40, 64), (64, 20)])
def test_the_resize_of_the_graph_is_that_of_pil(
    interpolation: str, height: int, width: int
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    wanted = Image.fromarray(pixels).resize((64, 64), FILTERS[interpolation])
    found = resize(torch.from_numpy(pixels)[None], 64, interpolation)[0].numpy()
    gaps = np.abs(found - np.asarray(wanted, np.float32))
    assert gaps.max() <= 1 and (gaps > 0).mean() < 0.01


@pytest.mark.long
def test_an_exported_program_resizes_photographs_of_any_size(
    checkpoint: Path, sample: Path, tmp_path: Path
) -> None:
    out, images = tmp_path / "model.pt2", tmp_path / "images"
    images.mkdir()
    for path in photographs(sample):
        shutil.copy(path, images)
    argv = ["--format", "torch-export", "--resize", "true", "--images", str(images)]
    assert main(["export", str(checkpoint), "--out", str(out), *argv]) == 0
    extra = {"eat.json": ""}
    module = torch.export.load(out, extra_files=extra).module()
    assert json.loads(extra["eat.json"])["images"] == 5
    photo = Image.open(photographs(sample)[0])
    small = photo.resize((64, 64), FILTERS["bicubic"])
    pairs = [torch.from_numpy(np.stack([image, image])) for image in (photo, small)]
    scores = [module(pair)[0] for pair in pairs]
    torch.testing.assert_close(scores[0], scores[1], atol=0.02, rtol=0)


@pytest.mark.long
def test_half_precision_samples_in_float32(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx")
    scorer = Scorer(tiny("eat_nano", tmp_path))
    plain = Rater(scorer.model, scorer.info, scorer.scales)
    images = plain.taken(photographs(sample))
    (wanted, _) = plain.rate(images)
    bf16 = Rater(deepcopy(scorer.model), scorer.info, scorer.scales, dtype=torch.bfloat16)
    assert 0 < np.abs(bf16.rate(images)[0] - wanted).max() < 0.2
    half = Rater(scorer.model, scorer.info, scorer.scales, dtype=torch.float16)
    program = half.program()
    monkeypatch.setattr(half, "program", lambda: program)
    kinds = {"grid_sampler": set(), "aten.tanh": set(), "aten.linear": set()}
    for node in program.graph.nodes:
        for name in kinds:
            if name in str(node.target):
                kinds[name] |= {arg.meta["val"].dtype for arg in node.args[:2]}
    float32, float16 = {torch.float32}, {torch.float16}
    assert kinds == {"grid_sampler": float32, "aten.tanh": float32, "aten.linear": float16}
    file = OnnxFile(half, quantise=False)
    assert 0 < np.abs(file.runner()(images)[0] - wanted).max() < 0.02
    model = onnx.shape_inference.infer_shapes(file.model)
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    samplers = [node for node in model.graph.node if node.op_type == "GridSample"]
    found = {types[name] for node in samplers for name in node.input}
    assert found == {onnx.TensorProto.FLOAT}


@pytest.mark.long
def test_eight_bits_tell_their_loss_and_the_example_scores_without_this_package(
    sample: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    checkpoint = tiny("vit_nano", tmp_path)
    argv = ["--precision", "int8", "--pixels", "true", "--images", str(sample / "images")]
    argv += ["--labels", str(sample), "--name", "sample"]
    assert main(["export", str(checkpoint), "--out", "model.onnx", *argv]) == 0
    assert re.search(r"SRCC -?0\.\d{4} of the checkpoint, -?0\.\d{4} of", capsys.readouterr().out)
    photo = photographs(sample)[0]
    shutil.copy(photo, "photo.jpg")
    code = re.search(r"```python\n(.*?)```", EXAMPLE.read_text(), re.DOTALL)
    assert code is not None and len(code[1].splitlines()) <= 15
    check = "\nimport sys; assert not {'eat', 'torch'} & {*sys.modules}"
    printed = subprocess.check_output([sys.executable, "-c", code[1] + check], text=True)
    (score,) = Scorer(checkpoint)(photo)
    assert abs(float(printed.split()[0]) - score.score) < 0.3
