"""Shared folders: they give back the same scores, to us, to timm and to transformers."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import full_disk
from loaded import outputs, scores
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import eat
from eat.checkpoint import load_checkpoint, read_info, read_trained_on
from eat.cli import main
from eat.models import WeightsError
from eat.scoring import Scorer


@pytest.fixture(scope="module")
def folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``eat share`` makes of a run's checkpoint."""
    out = tmp_path_factory.mktemp("shared") / "model"
    assert main(["share", str(checkpoint), "--out", str(out)]) == 0
    return out


def test_a_shared_folder_scores_as_its_checkpoint(
    folder: Path, checkpoint: Path, sample: Path
) -> None:
    assert scores(folder, sample) == scores(checkpoint, sample)
    assert scores(checkpoint.parent.parent, sample) == scores(checkpoint, sample)  # a run's folder
    ours, theirs = read_trained_on(folder), read_trained_on(checkpoint)
    assert ours is not None and theirs is not None and (ours.names == theirs.names).all()


def test_the_folder_and_its_card_name_no_place_of_the_run(folder: Path, sample: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors",
        "config.json",
        "README.md",
    }
    for path in folder.iterdir():
        assert str(sample).encode() not in path.read_bytes()
    info, card = read_info(folder), (folder / "README.md").read_text()
    fingerprint, srcc = info.splits["train"]["fingerprint"][:16], f"{info.metrics['srcc']:.4f}"
    parts = "license: apache-2.0", "# eat_nano on ", fingerprint, srcc, "64 x 64", "@inproceedings"
    for text in parts:
        assert text in card


@pytest.mark.parametrize("how", ["local-dir", "checkpoint_path", "from_pretrained"])
def test_every_way_of_loading_gives_the_same_outputs(
    how: str, folder: Path, checkpoint: Path
) -> None:
    expected, info = load_checkpoint(checkpoint)
    if how == "local-dir":
        model = timm.create_model(f"local-dir:{folder}", pretrained=True)
        assert model.default_cfg["input_size"] == (3, 64, 64)
    elif how == "checkpoint_path":
        file = folder / "model.safetensors"
        sizes = info.model.settings | {"img_size": 64}
        model = timm.create_model("eat_nano", checkpoint_path=file, **sizes)
    else:
        model = eat.from_pretrained(folder)
    assert torch.equal(outputs(model), outputs(expected))


def test_timm_takes_features_and_no_head_from_the_folder(folder: Path, checkpoint: Path) -> None:
    expected, _ = load_checkpoint(checkpoint)
    name = f"local-dir:{folder}"
    bare = timm.create_model(name, pretrained=True, num_classes=0)
    pixels = torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        pooled = expected.pool(expected.forward_features(pixels))
        torch.testing.assert_close(bare.eval()(pixels), pooled)
        maps = timm.create_model(name, pretrained=True, features_only=True).eval()(pixels)
    assert [one.shape[-1] for one in maps] == [16, 32, 32, 64]


def test_what_timm_saves_timm_loads(tmp_path: Path, checkpoint: Path) -> None:
    _, info = load_checkpoint(checkpoint)
    model = timm.create_model("eat_nano", img_size=64, num_classes=3, **info.model.settings)
    timm.models._hub.save_for_hf(model, tmp_path, safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert torch.equal(outputs(model), outputs(again))


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_weights_that_are_missing_or_unexpected_raise(
    change: str, folder: Path, tmp_path: Path
) -> None:
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    state = load_file(folder / "model.safetensors")
    with safe_open(folder / "model.safetensors", "pt") as file:
        header = file.metadata()
    if change == "missing":
        del state["patch_embed.conv.bias"]
    else:
        state["more"] = torch.zeros(1)
    save_file(state, damaged / "model.safetensors", header)
    told = "'patch_embed.conv.bias' is missing|'more' is none of"
    with pytest.raises(WeightsError, match=told):
        eat.from_pretrained(damaged)
    ways: list[dict[str, Any]] = [{}, {"num_classes": 0}, {"num_classes": 3}]
    for way in [*ways, {"features_only": True}]:
        with pytest.raises(WeightsError, match=told):
            timm.create_model(f"local-dir:{damaged}", pretrained=True, **way)


def test_files_that_would_run_code_are_not_read(folder: Path, tmp_path: Path) -> None:
    state = load_file(folder / "model.safetensors")
    torch.save(state, tmp_path / "pytorch_model.bin")
    (tmp_path / "modeling.py").write_text("raise SystemExit")
    shutil.copy(folder / "config.json", tmp_path)
    with pytest.raises(WeightsError, match="a folder: expected a file"):
        eat.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError):
        timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert main(["share", str(folder), "--out", str(tmp_path)]) == 2  # nor is it written over
    torch.save(state, tmp_path / "weights.bin")
    overlay = {"file": str(tmp_path / "weights.bin")}  # what a user of timm names is read
    settings = json.loads((folder / "config.json").read_text())["model_args"]
    timm.create_model("eat_nano", pretrained=True, pretrained_cfg_overlay=overlay, **settings)


@pytest.mark.parametrize(
    ("forged", "error"),
    [
        ({"architecture": "vit_nano"}, "unexpected keyword argument"),
        ({"architecture": "evil.py:build"}, "Unknown model"),
        ({"model_args": {"dims": [10**9, 2, 2, 2]}}, "dims"),
        ({"model_args": {"checkpoint_path": "/etc/passwd"}}, "checkpoint_path"),
    ],
)
def test_a_forged_configuration_is_an_error_for_timm_and_nothing_to_eat(
    forged: dict[str, Any], error: str, folder: Path, tmp_path: Path
) -> None:
    forgery = shutil.copytree(folder, tmp_path / "forgery")
    config = json.loads((folder / "config.json").read_text())
    (forgery / "config.json").write_text(json.dumps(config | forged))
    with pytest.raises((ValueError, TypeError, RuntimeError), match=error):
        timm.create_model(f"local-dir:{forgery}", pretrained=True)
    assert torch.equal(outputs(eat.from_pretrained(forgery)), outputs(eat.from_pretrained(folder)))


def test_a_folder_of_ours_is_replaced_and_no_other(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    foreign = {"README.md": b"mine", "config.json": b"{}", "model.safetensors": b"theirs"}
    for name, content in foreign.items():
        out.mkdir()
        (out / name).write_bytes(content)
        assert main(["share", str(folder), "--out", str(out)]) == 2
        assert "holds other files, such as " + name in capsys.readouterr().err
        assert (out / name).read_bytes() == content
        shutil.rmtree(out)
    out.write_text("mine")
    assert main(["share", str(folder), "--out", str(out)]) == 2
    assert "no folder" in capsys.readouterr().err and out.read_text() == "mine"
    out.unlink()

    (out / ".git").mkdir(parents=True)  # a clone of a repository
    secret = tmp_path / "secret"
    secret.write_text("kept")
    for _ in range(2):
        assert main(["share", str(folder), "--out", str(out)]) == 0
        assert {one.name for one in out.iterdir()} == {".git", *foreign}
        (out / "README.md").unlink()
        (out / "README.md").symlink_to(secret)
    assert secret.read_text() == "kept" and not list(tmp_path.glob("*.partial"))


def test_a_full_disk_leaves_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with full_disk():
        assert main(["share", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert str(tmp_path / "out") in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
    (tmp_path / "out.partial").mkdir()  # of a call that was killed
    assert main(["share", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert "is left of a call that was killed" in capsys.readouterr().err


@torch.no_grad()
def test_transformers_takes_the_folder_with_its_preprocessing(folder: Path, sample: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="an optional package")
    model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    photo = sorted((sample / "images").glob("*.jpg"))[0]
    (expected,) = Scorer(folder)(photo)
    votes = model(**processor(Image.open(photo))).logits[0]
    torch.testing.assert_close(votes, torch.tensor(expected.votes), atol=1e-4, rtol=0)
    backbone = transformers.AutoModel.from_pretrained(folder).eval()
    found = backbone(**processor(Image.open(photo)), output_hidden_states=True)
    assert found.pooler_output.shape == (1, 64) and len(found.hidden_states) == 4
