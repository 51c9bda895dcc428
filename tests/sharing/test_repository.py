"""Repositories of a hub on loopback: uploads, downloads, revisions, and what can go wrong."""

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
from fake_hub import TOKEN, FakeHub, serving
from huggingface_hub import constants, file_download
from huggingface_hub.utils import _http
from loaded import outputs, scores
from safetensors.torch import load_file

import eat
from eat.checkpoint import load_checkpoint, read_origin, save_checkpoint
from eat.cli import main
from eat.models import WeightsError
from eat.personal.own import adapt
from eat.sharing.hub import share

NAME = "hf-hub:org/model"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """An empty hub and an empty cache; the user is logged in."""
    with serving() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        for module in (constants, file_download):
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def shared(hub: FakeHub, checkpoint: Path) -> FakeHub:
    """That hub, with the checkpoint of the run in it."""
    assert main(["share", str(checkpoint), "--out", NAME]) == 0
    return hub


def test_what_is_uploaded_scores_as_its_checkpoint(
    shared: FakeHub, checkpoint: Path, sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (files,) = shared.repositories["org/model"]
    assert files.keys() == {"model.safetensors", "config.json", "README.md"}
    assert not any(str(sample).encode() in content for content in files.values())
    assert scores(NAME, sample) == pytest.approx(scores(checkpoint, sample), abs=1e-5)
    expected = outputs(load_checkpoint(checkpoint)[0])
    assert torch.equal(outputs(eat.from_pretrained("org/model")), expected)
    assert torch.equal(outputs(timm.create_model(NAME, pretrained=True)), expected)
    photo = str(sorted((sample / "images").glob("*.jpg"))[0])
    capsys.readouterr()
    assert main(["score", photo, "--checkpoint", NAME, "--format", "jsonl"]) == 0
    (first, _) = scores(checkpoint, sample)
    assert json.loads(capsys.readouterr().out)["score"] == pytest.approx(first, abs=1e-5)


def test_a_revision_stays_what_it_was(
    shared: FakeHub, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, info = load_checkpoint(checkpoint)
    before = outputs(model)
    torch.nn.init.normal_(model.head.weight)
    save_checkpoint(tmp_path / "other.safetensors", model, info)
    assert main(["share", str(tmp_path / "other.safetensors"), "--out", NAME]) == 0
    for revision, expected in (("", outputs(model)), (f"@{1:040}", before)):
        assert torch.equal(outputs(eat.from_pretrained(f"org/model{revision}")), expected)
        again = timm.create_model(f"{NAME}{revision}", pretrained=True)
        assert torch.equal(outputs(again), expected)
    with pytest.raises(WeightsError, match="Revision Not Found"):
        eat.from_pretrained("org/model@9")
    assert main(["share", str(checkpoint), "--out", f"{NAME}@{1:040}"]) == 2
    assert "a revision is for reading" in capsys.readouterr().err


def test_the_cache_serves_without_a_hub(
    shared: FakeHub, sample: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = scores(NAME, sample)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert scores(NAME, sample) == expected == scores(checkpoint, sample)
    with pytest.raises(WeightsError, match="not in the cache, and the hub cannot be reached"):
        eat.from_pretrained("org/other")
    with pytest.raises(ValueError, match="hf-hub:org/model cannot be written: .*refused"):
        share(checkpoint, NAME)


def test_without_a_login_the_message_says_how(
    shared: FakeHub,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    for argv in (["share", str(checkpoint), "--out", "hf-hub:org/new"],
                 ["score", "photo.jpg", "--checkpoint", "hf-hub:org/private"]):  # fmt: skip
        assert main(argv) == 2
        told = capsys.readouterr().err
        assert "hf auth login" in told and "Traceback" not in told and "org/" in told
    assert "org/new" not in shared.repositories


def test_an_interrupted_upload_changes_nothing_and_can_be_repeated(
    hub: FakeHub,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
    hub.broken = True
    assert main(["share", str(checkpoint), "--out", NAME]) == 2
    assert "model.safetensors" in capsys.readouterr().err and hub.repositories["org/model"] == []
    hub.broken = False
    assert main(["share", str(checkpoint), "--out", NAME]) == 0
    assert len(hub.repositories["org/model"]) == 1


def test_of_a_repository_nothing_but_safetensors_is_read(shared: FakeHub, tmp_path: Path) -> None:
    (files,) = shared.repositories["org/model"]
    (tmp_path / "model.safetensors").write_bytes(files.pop("model.safetensors"))
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pickle")
    files["pytorch_model.bin"] = (tmp_path / "pickle").read_bytes()
    with pytest.raises(WeightsError, match="no model.safetensors can be fetched: Entry Not Found"):
        eat.from_pretrained("org/model")
    with pytest.raises(Exception, match="Entry Not Found"):
        timm.create_model(NAME, pretrained=True)
    files["model.safetensors"] = (
        b"\x40\0\0\0\0\0\0\0" + b'{"x":{"dtype":"F32","shape":[' + bytes(35)
    )
    with pytest.raises(WeightsError, match="truncated, or not a checkpoint"):
        eat.from_pretrained("org/model")


def test_a_terabyte_is_not_downloaded(shared: FakeHub) -> None:
    shared.announced = 10**12
    with pytest.raises(WeightsError, match="1000 GB: expected at most 50 GB"):
        eat.from_pretrained("org/model")


def test_a_model_of_the_hub_is_adapted_and_found_there_again(
    shared: FakeHub, sample: Path, tmp_path: Path
) -> None:
    paths = sorted((sample / "images").glob("*.jpg"))[:12]
    ratings = pd.DataFrame({"image": map(str, paths), "score": [1, 2, 3, 4, 5, 4] * 2})
    small, whole = tmp_path / "small.safetensors", tmp_path / "whole.safetensors"
    adapt(ratings, checkpoint=NAME, out=small)
    adapt(ratings, checkpoint=NAME, out=whole, whole=True)
    origin = read_origin(small)
    assert origin is not None and origin.place == NAME
    assert scores(small, sample) == scores(whole, sample)
