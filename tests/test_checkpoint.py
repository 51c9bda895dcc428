"""Checkpoints: what they say of themselves, wherever they are read, and what is refused."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SMALL
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import eat
from eat.checkpoint import (
    CheckpointInfo,
    ModelSpec,
    described_model,
    load_checkpoint,
    read_info,
    read_trained_on,
    save_checkpoint,
)
from eat.cli import main
from eat.config import TrainConfig
from eat.data.labels.identity import ImageHashes
from eat.data.registry import DATASETS
from eat.data.scales import ScoreScale
from eat.data.transforms import Preprocessing
from eat.models import WeightsError
from eat.training.trainer import train

LEGACY = Path(__file__).parent / "fixtures" / "legacy"
PERCENT = ScoreScale(low=0, high=100, target_scale=100, positive_above=50)


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a data set that nobody registered, with scores 0..100."""
    torch.manual_seed(0)
    model = eat.create_model("eat_nano", 1, 64, **SMALL)
    torch.nn.init.constant_(model.head.bias, 0.25)
    info = CheckpointInfo(
        ModelSpec("eat_nano", 1, (64, 64), SMALL),
        "mine",
        "my album",
        PERCENT,
        Preprocessing(
            size=64, train_resize=72, interpolation="bilinear", flip=False, upright=False,
            decode="fast",
        ),
        epoch=3,
        metrics={"srcc": 0.5},
        splits={"test": {"images": 3, "fingerprint": "x"}},
        score_quantiles=(20.0, 25.0, 30.0),
    )  # fmt: skip
    path = tmp_path_factory.mktemp("mine") / "model.safetensors"
    trained_on = ImageHashes(np.array([-(2**63), 0, 2**63 - 1]), np.array([7]))
    save_checkpoint(path, model, info, trained_on)
    return path


def rewritten(
    path: Path,
    into: Path,
    describe: Callable[[dict[str, Any]], Any] = lambda described: None,
    weigh: Callable[[dict[str, torch.Tensor]], Any] = lambda weights: None,
) -> Path:
    """A copy of a checkpoint whose description or weights a function has changed in place.

    A function of the description may also return another one, or any text in its place.
    """
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    described, weights = json.loads(header["eat"]), load_file(path)
    other = describe(described)
    weigh(weights)
    header["eat"] = other if isinstance(other, str) else json.dumps(described)
    save_file(weights, into, header)
    return into


def test_a_checkpoint_of_version_0_1_scores_as_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = LEGACY / "whole" / "checkpoints" / "best.safetensors"
    photos = sorted(map(str, (LEGACY / "data" / "images").glob("50000*.jpg")))
    assert main(["score", *photos, "--checkpoint", str(checkpoint), "--format", "jsonl"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = [json.loads(line) for line in (LEGACY / "scores.jsonl").read_text().splitlines()]
    assert [Path(f["image"]).name for f in found] == [Path(e["image"]).name for e in expected]
    for one, other in zip(found, expected, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)
        assert one["votes"] == pytest.approx(other["votes"], abs=1e-5)
    info = read_info(checkpoint)
    assert (info.title, info.scale) == ("sample data", DATASETS["sample"].scale)
    assert (info.model.img_size, info.preprocessing.decode) == ((64, 64), "fast")
    assert info.epoch == 2 and info.config["optim"]["batch_size"] == 8 and not info.released
    assert read_trained_on(checkpoint).names.shape == (24,)


def test_weights_and_description_come_back_as_they_were(mine: Path, tmp_path: Path) -> None:
    model, info = load_checkpoint(mine)
    save_checkpoint(tmp_path / "again.safetensors", model, info, read_trained_on(mine))
    again, told = load_checkpoint(tmp_path / "again.safetensors")
    assert told == info == read_info(mine) and info.scale == PERCENT and not model.training
    assert told.preprocessing.train_resize == 72 and told.score_quantiles == (20.0, 25.0, 30.0)
    for one, other in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    hashes = read_trained_on(tmp_path / "again.safetensors")
    assert hashes.names.tolist() == [-(2**63), 0, 2**63 - 1] and hashes.names.dtype == np.int64
    assert hashes.contents.tolist() == [7]
    save_checkpoint(tmp_path / "again.safetensors", model, info)
    assert read_trained_on(tmp_path / "again.safetensors") is None


def test_an_ordinary_loader_finds_weights_alone(mine: Path) -> None:
    model = eat.create_model("eat_nano", 1, 64, **SMALL)
    model.load_state_dict(load_file(mine))
    with safe_open(mine, framework="pt") as file:
        assert file.metadata()["format"] == "pt"


def test_a_model_of_an_unregistered_data_set_scores_in_a_fresh_process(
    mine: Path, sample: Path
) -> None:
    photo = str(next((sample / "images").iterdir()))
    argv = [sys.executable, "-m", "eat", "score", photo, "--checkpoint", str(mine)]
    for more, low, high in (([], 1, 10), (["--scale", "own"], 15, 35)):
        out = subprocess.check_output([*argv, "--format", "jsonl", *more], text=True)
        assert low <= json.loads(out)["score"] <= high


def test_a_model_of_an_unregistered_data_set_is_evaluated_on_labels_of_another_scale(
    mine: Path, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = sorted(p.name for p in (sample / "images").iterdir())[:4]
    table = pd.DataFrame({"image": images, "score": [2.0, 3.0, 5.0, 7.0]})
    table.to_csv(tmp_path / "labels.csv", index=False)
    argv = ["evaluate", str(mine), "--name", "table", "--labels", str(tmp_path / "labels.csv")]
    argv += ["--images", str(sample / "images"), "--workers", "0", "--samples", "0"]
    assert main([*argv, "--out", str(tmp_path / "out")]) == 0
    assert "scores mapped from my album (0..100)" in capsys.readouterr().out
    predicted = pd.read_csv(tmp_path / "out" / "predictions.csv")["predicted"]
    own = [score.score for score in eat.Scorer(mine)([sample / "images" / i for i in images])]
    assert predicted.tolist() == pytest.approx(own, abs=1e-3)


def drop(*path: str) -> Callable[[dict[str, Any]], None]:
    """Take an entry away."""

    def change(content: dict[str, Any]) -> None:
        for name in path[:-1]:
            content = content[name]
        del content[path[-1]]

    return change


def put(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Give an entry another value."""

    def change(content: dict[str, Any]) -> None:
        for name in path[:-1]:
            content = content[name]
        content[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (drop("dataset"), "dataset is missing"),
        (drop("model", "img_size"), "model.img_size is missing"),
        (drop("scale", "low"), "scale.low is missing"),
        (put("scale", "low", value="zero"), "scale.low is 'zero': expected float"),
        (put("scale", "low", value=100), "scale.low is 100.0: expected less than high, 100.0"),
        (put("scale", "high", value=float("nan")), "scale.high is nan: expected"),
        (put("scale", "high", value=float("inf")), "scale.high is inf: expected"),
        (put("scale", "positive_above", value=float("nan")), "scale.positive_above is nan"),
        (put("scale", "num_votes", value=-3), "scale.num_votes is -3: expected 0"),
        (put("scale", "target_scale", value=0), "scale.target_scale is 0.0: expected 1e-09"),
        (put("model", "num_outputs", value=0), "cannot be built: num_outputs is 0: expected 1"),
        (put("model", "num_outputs", value=True), "model.num_outputs is True: expected int"),
        (
            put("model", "img_size", value=[64]),
            "model.img_size is [64]: expected a list of 2: int, int",
        ),
        (
            put("model", "img_size", value=[10**9, 10**9]),
            "model.img_size is (1000000000, 1000000000): expected the 64 x 64",
        ),
        (put("model", "name", value="eat_nino"), "cannot be built: unknown model 'eat_nino'"),
        (put("model", "settings", value={"etta": 1}), "cannot be built: "),
        (put("model", "settings", value={"dims": "wide"}), "cannot be built: "),
        (put("model", "settings", value={"heads": [0, 1, 1, 1]}), "heads is 0: expected 1 to 1024"),
        (put("model", "settings", value={"heads": None}), "heads is None: expected a list of int"),
        (put("model", "settings", value={"stages": "LSLE"}), "stages is 'LSLE': expected a list"),
        (put("model", "settings", value={"eta": [[[[[[[[0]]]]]]]]}), "eta is [[[[[[["),
        (put("model", "settings", value={"mlp_ratio": 10**400}), "mlp_ratio is 1000"),
        (
            put("model", "settings", value={"stages": ["L" * 400_000, "L", "L", "L"]}),
            "the number of blocks in stages is 400003: expected 1 to 256",
        ),
        (put("model", "settings", value={"dims": [160_000] * 4}), "dims is 160000: expected 1 to"),
        (put("model", "settings", value={"dims": [16_384] * 4}), "ask for 2.6e+10 weights"),
        (
            put("model", "settings", value={"window_size": 32, "stages": ["L" * 50] * 4}),
            "masks and indices",
        ),
        (
            put("model", "settings", value=SMALL | {"dims": [64] * 4}),
            "has shape (16, 3, 4, 4): expected",
        ),
        (put("epoch", value=-1), "epoch is -1: expected 0"),
        (
            put("title", value="t" * 10**5),
            "title is 'tttttttttttt...ttttttttttttt': expected up to",
        ),
        (put("title", value="\ud800"), "title and dataset hold characters that cannot be printed"),
        (
            put("released", value=True),
            "released is true, and the authors published no 'eat_nano' of 'mine'",
        ),
        (put("config", value={"data": None}), "config.data is None: expected a mapping"),
        (put("preprocessing", "size", value=10**9), "preprocessing.size is 1000000000: expected 1"),
        (put("preprocessing", "train_resize", value=32), "train_resize is 32: expected 64 to"),
        (put("preprocessing", value=None), "preprocessing is None: expected a mapping"),
        (put("preprocessing", "decode", value="slow"), "preprocessing.decode is 'slow'"),
        (put("preprocessing", "size", value=0), "preprocessing.size is 0: expected 1"),
        (put("preprocessing", "train_resize", value="big"), "preprocessing.train_resize is 'big'"),
        (put("score_quantiles", value=["x"]), "score_quantiles is 'x': expected float"),
        (put("extra", value=1), "'extra' is unknown"),
        (put("format", value=3), "its format is 3, and this version of eat reads up to 2: a newer"),
        (put("format", value=1), "it was trained on 'mine', which is no registered data set"),
        (lambda content: "[" * 100_000, "description cannot be read"),
        (lambda content: "[]", "it is []: expected an object"),
        (lambda content: "junk", "description cannot be read"),
    ],
)
def test_a_description_that_cannot_be_used_is_one_error(
    mine: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, Any]], Any],
    reason: str,
) -> None:
    path = rewritten(mine, tmp_path / "changed.safetensors", change)
    assert main(["score", "x.jpg", "--checkpoint", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"eat score: error: {path}: ") and reason in err
    assert err.count("\n") == 1 and len(err) < 600


def test_a_model_is_compared_with_the_file_before_weights_are_read_or_made(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SMALL | {"dims": [4096] * 4}  # of 4 GB
    path = rewritten(mine, tmp_path / "large.safetensors", put("model", "settings", value=settings))
    for function in ("load_file", "as_weight"):
        monkeypatch.setattr(eat.checkpoint.files, function, pytest.fail)
    with pytest.raises(WeightsError, match=r"has shape \(16, 3, 4, 4\): expected \(4096, 3"):
        load_checkpoint(path)


def test_weights_to_start_from_say_that_a_newer_version_wrote_them(
    mine: Path, tmp_path: Path
) -> None:
    model = described_model(mine)
    assert model is not None and model.name == "eat_nano"
    newer = rewritten(mine, tmp_path / "newer.safetensors", put("format", value=3))
    with pytest.raises(WeightsError, match="reads up to 2: a newer one wrote it"):
        described_model(newer)
    save_file(load_file(mine), tmp_path / "bare.safetensors")
    assert described_model(tmp_path / "bare.safetensors") is None


def spoil(weights: dict[str, torch.Tensor]) -> None:
    weights["norm.weight"][3] = float("inf")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda weights: weights.pop("head.weight"), "the weight 'head.weight' is missing"),
        (
            lambda weights: weights.pop("stages.0.blocks.0.attn.bias_table"),
            "the weight 'stages.0.blocks.0.attn.bias_table' is missing",
        ),
        (
            lambda weights: weights.update(extra=torch.zeros(1)),
            "the weight 'extra' is none of its model's",
        ),
        (
            lambda weights: weights.update({"head.bias": torch.zeros(2)}),
            "'head.bias' has shape (2,): expected (1,)",
        ),
        (
            lambda weights: weights.update({"head.bias": weights["head.bias"].int()}),
            "'head.bias' is of torch.int32: expected floating point",
        ),
        (spoil, "'norm.weight' holds NaN or infinite values"),
    ],
)
@pytest.mark.parametrize("command", [["score", "x.jpg", "--checkpoint"], ["evaluate"]])
def test_weights_that_are_incomplete_or_not_finite_are_refused_by_name(
    mine: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, torch.Tensor]], Any],
    reason: str,
    command: list[str],
) -> None:
    path = rewritten(mine, tmp_path / "changed.safetensors", weigh=change)
    assert main([*command, str(path)]) == 2
    assert f"{path}: {reason}" in capsys.readouterr().err.replace("incomplete: ", "")


def test_a_run_does_not_start_from_an_incomplete_checkpoint(
    mine: Path, tmp_path: Path, config: TrainConfig
) -> None:
    path = rewritten(mine, tmp_path / "part.safetensors", weigh=lambda w: w.pop("head.weight"))
    config.model.weights = str(path)
    with pytest.raises(WeightsError, match="incomplete: the weight 'head.weight' is missing"):
        train(config)


def test_a_damaged_list_of_training_images_is_named(mine: Path, tmp_path: Path) -> None:
    with safe_open(mine, framework="pt") as file:
        header = file.metadata() | {"trained_on": "AAA*"}
    save_file(load_file(mine), tmp_path / "odd.safetensors", header)
    with pytest.raises(WeightsError, match="its list of training images is damaged"):
        read_trained_on(tmp_path / "odd.safetensors")


def test_a_list_of_training_images_of_fractions_is_named(mine: Path, tmp_path: Path) -> None:
    odd = rewritten(
        mine,
        tmp_path / "odd.safetensors",
        weigh=lambda weights: weights.update(trained_on=torch.rand(3)),
    )
    with pytest.raises(WeightsError, match="its list of training images is damaged"):
        read_trained_on(odd)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(WeightsError, match="pipe.safetensors: a pipe, socket or device"):
        load_checkpoint(tmp_path / "pipe.safetensors")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.safetensors", b"no weights", "truncated, or not a checkpoint"),
        ("x.pth", b"no weights", "truncated or not a PyTorch file"),
        ("x.pth", b"", "truncated or not a PyTorch file"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_named(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=f"{name}: {reason}"):
        load_checkpoint(tmp_path / name)
