"""Personal models of families that have other files, names or last layers than a run's own."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from eat.checkpoint import CheckpointInfo, ModelSpec, load_checkpoint, save_checkpoint
from eat.config.run import EnhanceConfig
from eat.data.registry import DATASETS
from eat.data.transforms import Preprocessing
from eat.models import WeightsError
from eat.personal.own import adapt
from eat.scoring import Scorer

VIT = {"embed_dim": 16, "depth": 2, "num_heads": 2}
FILE = """
import eat
from torch import nn


def ours(num_outputs, img_size):
    return eat.create_model("vit_nano", num_outputs, img_size, embed_dim=16, depth=2, num_heads=2)


def net(num_outputs, img_size):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_outputs))
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    """A file with functions that build models."""
    (tmp_path / "mine.py").write_text(FILE)
    return str(tmp_path / "mine.py")


def written(folder: Path, spec: ModelSpec, own: str | None = None) -> Path:
    """A checkpoint of random weights."""
    torch.manual_seed(0)
    model, ava = spec.build(own), DATASETS["ava"]
    for parameter in model.parameters():  # so that scores differ
        parameter.data += 0.05 * torch.randn_like(parameter)
    info = CheckpointInfo(spec, ava.name, ava.title, ava.scale, Preprocessing(spec.img_size[0]))
    save_checkpoint(folder / "general.safetensors", model, info)
    return folder / "general.safetensors"


@pytest.fixture
def ratings(sample: Path) -> pd.DataFrame:
    paths = sorted((sample / "images").glob("*.jpg"))[:12]
    return pd.DataFrame({"image": map(str, paths), "score": [1, 2, 3, 4, 5, 4] * 2})


def test_an_enhanced_transformer_of_timm_is_adapted(tmp_path: Path, ratings: pd.DataFrame) -> None:
    spec = ModelSpec("timm/vit_tiny_patch16_224", 10, (64, 64), VIT, EnhanceConfig(every=1))
    general, out = written(tmp_path, spec), tmp_path / "me.safetensors"
    made = adapt(ratings, checkpoint=general, out=out)
    model, info = load_checkpoint(out)
    assert info == made.info and info.model == spec
    before = dict(load_checkpoint(general)[0].named_parameters())
    changed = [n for n, p in model.named_parameters() if not torch.equal(p, before[n])]
    assert changed == ["head.weight", "head.bias"]


def test_a_model_of_the_users_needs_its_function_for_the_small_file_too(
    tmp_path: Path, ratings: pd.DataFrame, mine: str
) -> None:
    own = f"{mine}:ours"
    general = written(tmp_path, ModelSpec(own, 10, (64, 64)), own)
    files = [tmp_path / "small.safetensors", tmp_path / "whole.safetensors"]
    for out in files:
        adapt(ratings, checkpoint=general, model=own, out=out, whole=out == files[1])
    photos = [*map(Path, ratings["image"])]
    small, whole = (
        [score.score for score in Scorer(out, model=own).score_files(photos)] for out in files
    )
    assert small == whole and np.ptp(small) > 0
    with pytest.raises(WeightsError, match="give that file.*--model FILE.py:FUNCTION"):
        load_checkpoint(files[0])


def test_a_model_whose_last_layer_is_not_known_is_refused_by_name(
    tmp_path: Path, ratings: pd.DataFrame, mine: str
) -> None:
    own = f"{mine}:net"
    general = written(tmp_path, ModelSpec(own, 10, (64, 64)), own)
    out = tmp_path / "me.safetensors"
    with pytest.raises(ValueError, match="mine.py:net has no last linear layer .* gives Identity"):
        adapt(ratings, checkpoint=general, model=own, out=out)
    assert not out.exists()


def test_a_model_that_compares_images_is_refused_by_name(
    tmp_path: Path, ratings: pd.DataFrame
) -> None:
    general, out = (
        written(tmp_path, ModelSpec("tanet_ava", 10, (224, 224))),
        tmp_path / "me.safetensors",
    )
    with pytest.raises(ValueError, match="TANet compares the images of a batch"):
        adapt(ratings, checkpoint=general, out=out)
    assert not out.exists()
