"""Shared models: a folder or hub repository gives back the same scores, to us and to timm."""

import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants, file_download
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


def scores(model: str | Path, sample: Path) -> list[float]:
    photos = sorted((sample / "images").glob("*.jpg"))[:2]
    return [score.score for score in Scorer(model)(photos)]


@torch.no_grad()
def outputs(model: torch.nn.Module) -> torch.Tensor:
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return model.eval()(pixels)


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
    state, header = load_file(folder / "model.safetensors"), {"format": "pt"}
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as file:
        header = file.metadata()
    if change == "missing":
        del state["patch_embed.conv.bias"]
    else:
        state["more"] = torch.zeros(1)
    save_file(state, damaged / "model.safetensors", header)
    with pytest.raises(WeightsError, match="missing|none of its model's"):
        eat.from_pretrained(damaged)
    with pytest.raises(RuntimeError, match="Missing key|Unexpected key"):
        timm.create_model(f"local-dir:{damaged}", pretrained=True)


def test_files_that_would_run_code_are_not_read(folder: Path, tmp_path: Path) -> None:
    torch.save({"anything": 1}, tmp_path / "pytorch_model.bin")
    (tmp_path / "modeling.py").write_text("raise SystemExit")
    shutil.copy(folder / "config.json", tmp_path)
    with pytest.raises(WeightsError, match="a folder: expected a file"):
        eat.from_pretrained(tmp_path)
    assert main(["share", str(folder), "--out", str(tmp_path)]) == 2  # nor is it written over


class Hub(SimpleHTTPRequestHandler):
    """The part of the hub that a download asks for, of one repository."""

    commit = "0" * 40

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        owner, _, rest = self.path.removeprefix("/").partition("/resolve/")
        path = Path(self.directory, rest.partition("/")[2])
        found = owner == "org/model" and path.is_file()
        content = path.read_bytes() if found else b""
        self.send_response(200 if found else 404)
        headers: dict[str, Any] = {"X-Repo-Commit": self.commit, "Content-Length": len(content)}
        headers["ETag"] = f'"{hash(content) & 0xFFFFFFFF:08x}"'
        if not found:
            headers["X-Error-Code"] = "EntryNotFound" if owner == "org/model" else "RepoNotFound"
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A hub on loopback that has the folder as org/model, and an empty cache."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    for module in (constants, file_download):
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield "hf-hub:org/model"
    server.shutdown()
    server.server_close()


def test_a_repository_of_the_hub_scores_as_its_checkpoint(
    hub: str, checkpoint: Path, sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scores(hub, sample) == scores(checkpoint, sample)
    expected, _ = load_checkpoint(checkpoint)
    assert torch.equal(outputs(eat.from_pretrained("org/model")), outputs(expected))
    model = timm.create_model(hub, pretrained=True)
    assert torch.equal(outputs(model), outputs(expected))
    photo = str(sorted((sample / "images").glob("*.jpg"))[0])
    capsys.readouterr()
    assert main(["score", photo, "--checkpoint", hub, "--format", "jsonl"]) == 0
    (first, _) = scores(checkpoint, sample)
    assert json.loads(capsys.readouterr().out)["score"] == pytest.approx(first, abs=1e-6)
    with pytest.raises(WeightsError, match=r"hf-hub:org/other: no model.safetensors can be fetch"):
        eat.from_pretrained("org/other")
