"""The model card: each of its lines is true of the checkpoint, and none names its machine."""

import getpass
import json
import re
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open

from eat.checkpoint import CheckpointInfo, read_info
from eat.checkpoint.description import describe_release
from eat.checkpoint.releases import RELEASED
from eat.cli import main
from eat.config.run import EnhanceConfig
from eat.data.scales import ScoreScale
from eat.sharing.card import card, evaluation


@pytest.fixture
def info(checkpoint: Path) -> CheckpointInfo:
    return read_info(checkpoint)


def plain(text: str) -> str:
    """A card on one line, as Markdown is read."""
    return re.sub(r"\s+", " ", text)


def test_the_card_of_a_run_tells_its_data_metrics_and_pixels(info: CheckpointInfo) -> None:
    text = plain(card(info))
    size, mean = info.preprocessing.size, list(info.preprocessing.mean)
    for name, split in info.splits.items():
        assert f"| {name} | {split['images']} | `{split['fingerprint'][:16]}` |" in text
    for name, value in info.metrics.items():
        assert f"| {name} | {value:.4f} |" in text
    for part in (
        "license: apache-2.0",
        "A small EAT for experiments; from a photograph to 10 vote shares. Scores: 1..10 (score).",
        "Settings other than the named model's: `{",
        f"Trained on sample data, from scratch. These are the weights of epoch {info.epoch} of 2.",
        "Of the test split, which chose the epoch",
        f"turned by EXIF, converted to sRGB, on white, resized to {size} x {size} pixels",
        f"mean {mean} and deviation",
        "after `import eat`",
        "@inproceedings{he2023eat",
    ):
        assert part in text
    for part in ("95% interval", "enhanced", "training began from"):
        assert part not in text
    validated = replace(info, splits=info.splits | {"val": {}})
    assert "Of the validation split, which chose the epoch" in card(validated)


def test_an_evaluation_beside_the_run_is_told_with_its_intervals(
    run: Path, tmp_path: Path, sample: Path
) -> None:
    copied = shutil.copytree(run, tmp_path / "run")
    checkpoint = copied / "checkpoints" / "best.safetensors"
    assert evaluation(checkpoint) is None
    argv = ["evaluate", str(checkpoint), "--samples", "20", "--workers", "0"]
    assert main([*argv, "--labels", str(sample), "--images", str(sample / "images")]) == 0
    found = json.loads((copied / "eval" / "metrics.json").read_text())
    out = tmp_path / "shared"
    assert main(["share", str(checkpoint), "--out", str(out)]) == 0
    text = plain((out / "README.md").read_text())
    low, high = found["intervals"]["srcc"]
    assert f"| srcc | {found['metrics']['srcc']:.4f} | {low:.4f} to {high:.4f} |" in text
    assert f"test split, 16 images (fingerprint `{found['fingerprint'][:16]}`)" in text
    assert all(note in text for note in map(plain, found["notes"]))
    moved = copied.rename(tmp_path / "moved") / "checkpoints"
    assert evaluation(moved.parent) == found
    other = moved / "other.safetensors"
    other.write_bytes((moved / "best.safetensors").read_bytes() + b" ")
    assert evaluation(other) is None
    chosen = found | {"split": "", "dataset": "pairs.csv", "metrics": {"accuracy": None}}
    assert "Of pairs.csv, 16 images" in card(read_info(out), chosen)


def test_where_the_weights_came_from_is_told_with_their_licence(info: CheckpointInfo) -> None:
    def started(name: str, **model: object) -> str:
        config = info.config | {"model": {"weights": None, "pretrained": False} | model}
        return plain(card(replace(info, model=replace(info.model, name=name), config=config)))

    text = started("timm/vit_small_patch16_dinov3.lvd1689m", pretrained=True)
    assert "license: dinov3-license" in text
    assert "timm's weights `vit_small_patch16_dinov3.lvd1689m` (licence: dinov3-license)" in text
    assert "timm.create_model" not in text
    assert "library_name: timm" not in text
    assert "license: apache-2.0" in started(
        "timm/vit_small_patch16_dinov3.lvd1689m"
    )  # from scratch
    assert "timm's weights `convnext_atto.d2_in1k`" in started(
        "timm/convnext_atto", pretrained=True
    )
    assert "from the weights in `dat_base.pth`" in started("eat_base", weights="dat_base.pth")
    assert "license: other" in started("net.py:build") and "one's own" in started("net.py:build")


@pytest.mark.parametrize("release", RELEASED, ids=lambda row: f"{row.model}-{row.dataset}")
def test_the_authors_checkpoints_are_called_theirs(release: object) -> None:
    text = plain(card(describe_release(release)))
    assert "The weights that the authors published, trained on" in text
    assert "epoch" not in text and "| split |" not in text and "None are recorded" in text


def test_targets_and_enhanced_attention_are_told(info: CheckpointInfo) -> None:
    scale = ScoreScale(0, 1, target_scale=1, positive_above=0.5)
    told = plain(card(replace(info, targets={"score": scale, "colour": scale})))
    assert "Scores: 0..1 (score), 0..1 (colour)." in told
    spec = replace(info.model, enhance=EnhanceConfig(points=5))
    text = card(replace(info, model=spec))
    assert "Its attention is enhanced: `{" in text and '"points": 5' in text


def test_a_personal_model_is_told_with_its_evidence(info: CheckpointInfo) -> None:
    metrics = {"srcc": 0.5, "srcc_of_general": 0.4, "difference_low": -0.1, "difference_high": 0.3}
    title = "sample data, adapted to 36 ratings"
    text = plain(card(replace(info, title=title, metrics=metrics)))
    assert f"A general model (from scratch), trained on {title}, by `eat adapt`." in text
    assert "Cross-validated, beside those of the general model" in text and "epoch" not in text
    assert "| srcc_of_general | 0.4000 |" in text


def test_nothing_shared_names_the_machine_or_its_user(
    checkpoint: Path, sample: Path, tmp_path: Path
) -> None:
    from eat.checkpoint import load_checkpoint, save_checkpoint

    model, info = load_checkpoint(checkpoint)
    places = {"weights": "/home/alice/w.pth", "settings": {"x": ["/home/alice/y", "C:\\alice\\z"]}}
    places |= {"name": "../alice/net.py:build", "pretrained": False}
    config = info.config | {"model": places, "optim": {"loss": "/home/alice/loss.py:mine"}}
    save_checkpoint(tmp_path / "x.safetensors", model, replace(info, config=config))
    assert main(["share", str(tmp_path / "x.safetensors"), "--out", str(tmp_path / "out")]) == 0
    secrets = [str(sample), str(tmp_path), "alice", str(Path.home()), socket.gethostname()]
    secrets += [f"/{getpass.getuser()}"]
    for path in (tmp_path / "out").iterdir():
        content = path.read_bytes()
        if path.suffix == ".safetensors":
            with safe_open(path, "np") as file:
                content = json.dumps(file.metadata()).encode()
        assert [secret for secret in secrets if secret.encode() in content] == []
    kept = read_info(tmp_path / "out").config
    assert kept["model"]["weights"] == "w.pth" and kept["optim"]["loss"] == "loss.py:mine"
    assert kept["data"]["labels"] is None and kept["data"]["name"] == "sample"
