"""Checkpoints, weights in PyTorch's format, and states of runs."""

import hashlib
import inspect
import io
import json
import struct
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hypothesis import strategies as st
from safetensors.torch import load, save

import eat
from eat.checkpoint import CheckpointInfo, ModelSpec, read_info, read_trained_on, save_checkpoint
from eat.config import DataConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig
from eat.config.run import EnhanceConfig
from eat.data.labels.identity import ImageHashes
from eat.data.scales import ScoreScale
from eat.models import load_weights
from eat.training.trainer import train
from fuzzing.damage import VALUES, Files, spoilt_bytes, spoilt_files, spoilt_json, spoilt_values
from fuzzing.samples import PIXELS, TINY, Kind, content_of, picture


def _written(spec: ModelSpec, scale: ScoreScale, targets: dict[str, ScoreScale]) -> Files:
    """A checkpoint of a model with random weights, and a photograph to score."""
    torch.manual_seed(0)
    info = CheckpointInfo(spec, "mine", "mine", scale, PIXELS, metrics={"srcc": 0.5}, epoch=1,
                          score_quantiles=(1.0, 2.0), targets=targets)  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        hashes = ImageHashes(np.array([1, 2]), np.array([3, 4]))
        save_checkpoint(path, spec.build(), info, hashes)
        return {"model.safetensors": path.read_bytes(), "photo.png": picture()}


@cache
def checkpoint() -> Files:
    """A checkpoint of votes."""
    settings = {name: p.default for name, p in inspect.signature(eat.models.EAT).parameters.items()}
    settings = {n: v for n, v in settings.items() if n not in ("num_outputs", "img_size")} | TINY
    spec = ModelSpec("eat_nano", 2, (64, 64), settings)
    return _written(spec, ScoreScale(1, 2, 2, 1.5, num_votes=2), {})


@cache
def enhanced() -> Files:
    """A checkpoint of an enhanced model of timm's with two targets."""
    settings = {"depth": 2, "embed_dim": 8, "num_heads": 2}
    enhance = EnhanceConfig(blocks=[1], points=3)
    spec = ModelSpec("timm/vit_tiny_patch16_224", 2, (64, 64), settings, enhance)
    scale = ScoreScale(0, 10, 10, 5)
    return _written(spec, scale, {"score": scale, "color": scale})


def _parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file as JSON, and the rest."""
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def _whole(header: bytes, rest: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + rest


@st.composite
def spoilt_weights(draw: st.DrawFn, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict with other names, shapes, types or numbers."""
    state = dict(state)
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(state)))
        value = state[name]
        match draw(st.sampled_from(["drop", "number", "type", "shape", "name", "copy"])):
            case "drop":
                del state[name]
            case "number":
                value = value.float().clone()
                value.view(-1)[-1:] = draw(st.sampled_from([float("nan"), float("inf"), 1e38, 0.0]))
                state[name] = value
            case "type":
                names = "float16 bfloat16 float64 int8 int64 bool float8_e4m3fn complex64 uint8"
                state[name] = value.to(getattr(torch, draw(st.sampled_from(names.split()))))
            case "shape":
                shape = draw(st.lists(st.sampled_from([0, 1, 2, 3, 8, 49]), max_size=5))
                state[name] = torch.zeros(shape)
            case "name":
                state[draw(st.text(max_size=8)) + name] = state.pop(name)
            case "copy":
                state[name] = state[draw(st.sampled_from(sorted(state)))].clone()
    return state or {"none": torch.zeros(1)}


def spoilt_checkpoint(files: Files) -> st.SearchStrategy[Files]:
    """Another description, list of images, weights, table of tensors, or other bytes."""
    content = files["model.safetensors"]
    header, rest = _parts(content)
    notes = header["__metadata__"]

    def noted(name: str, text: bytes) -> bytes:
        changed = header | {"__metadata__": notes | {name: text.decode(errors="replace")}}
        return _whole(json.dumps(changed).encode(), rest)

    described = spoilt_json(json.loads(notes["eat"])).map(lambda text: noted("eat", text))
    lists = st.sampled_from(sorted(notes)).flatmap(
        lambda name: spoilt_bytes(notes[name].encode()).map(lambda text: noted(name, text))
    )
    sizes = VALUES | st.sampled_from([[0, 4], [8, 8], 2**40, "F16", "I64", "F8_E4M3", "BOOL"])
    tables = spoilt_values(header, sizes).map(lambda h: _whole(json.dumps(h).encode(), rest))
    weights = spoilt_weights(load(content)).map(lambda state: save(state, notes))
    ways = described | described | lists | tables | weights | spoilt_bytes(content)
    return ways.map(lambda changed: files | {"model.safetensors": changed})


def spoilt_description(files: Files) -> st.SearchStrategy[Files]:
    """Another model, enhancement, targets or pixels; the rest of the file is sound."""
    header, rest = _parts(files["model.safetensors"])
    notes = header["__metadata__"]

    def changed(content: Any) -> Files:
        described = {"__metadata__": notes | {"eat": json.dumps(content)}}
        whole = _whole(json.dumps(header | described).encode(), rest)
        return files | {"model.safetensors": whole}

    odd = VALUES | st.sampled_from([[0], [0, 1], [1, 1], [-1], [10**9], [[0.5] * 3], [1e-3] * 3])
    return spoilt_values(json.loads(notes["eat"]), odd).map(changed)


def score(folder: Path) -> None:
    """Score a photograph; large models are only loaded, as they may be meant."""
    path = folder / "model.safetensors"
    read_trained_on(path)
    if read_info(path).preprocessing.size > 128:
        eat.load_checkpoint(path)
        return
    (found,) = eat.Scorer(path, batch_size=1, workers=1)([folder / "photo.png"])
    if found.error:
        raise ValueError(found.error)


@cache
def weights() -> Files:
    """Weights of ours and of a tiny Swin of timm's as PyTorch files."""
    import timm

    model = eat.create_model("eat_nano", 1, 64, **TINY)
    swin = timm.models.swin_transformer.SwinTransformer(
        img_size=64, embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), num_classes=3
    )
    return {"weights.pth": _pickled(model.state_dict()), "swin.pth": _pickled(swin.state_dict())}


def _pickled(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@st.composite
def spoilt_pth(draw: st.DrawFn, files: Files) -> Files:
    """One file, its state dict wrapped, mixed with other values, of other tensors or bytes."""
    name = draw(st.sampled_from(sorted(files)))
    state = torch.load(io.BytesIO(files[name]), weights_only=True)
    odd = VALUES | st.sampled_from([
        torch.zeros(1).expand(2**20, 2**20), torch.eye(3).to_sparse(), torch.tensor(1.0),
        torch.empty(2, device="meta"), torch.Size([1]), {1: torch.zeros(1)}, b"bytes",
    ])  # fmt: skip
    content: Any = draw(spoilt_weights(state) | st.just(state))
    for _ in range(draw(st.integers(0, 2))):
        key = draw(st.sampled_from(["model", "state_dict", "module.head.bias", 3, *sorted(state)]))
        content = draw(st.sampled_from([{key: content}, dict(content) | {key: draw(odd)}]))
    whole = _pickled(content)
    return {name: draw(st.just(whole) | spoilt_bytes(whole))}


def start_from(folder: Path) -> None:
    """Load the weights into a model, as a run that starts from them."""
    for path in sorted(folder.iterdir()):
        load_weights(eat.create_model("eat_nano", 1, 64, **TINY), path, verbose=False)


def run_config(folder: Path) -> TrainConfig:
    """A run of three steps in two epochs, which saves its state after each."""
    return TrainConfig(
        data=DataConfig(name="table", labels=str(folder / "labels.csv"), workers=0, size=64,
                        images=str(folder), decode="exact"),
        model=ModelConfig(name="eat_nano", settings=TINY),
        optim=OptimConfig(epochs=2, batch_size=4, optimizer="adamw", ema=0.5, schedule="step"),
        run=RunConfig(folder=str(folder / "run"), device="cpu", save_steps=1, keep=9,
                      resume="auto"),
    )  # fmt: skip


@cache
def run() -> Files:
    """The folder of a run with the states of all its steps, and its data."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [(f"{i}.png", "test" if i > 4 else "train", 1 + i) for i in range(8)]
        table = pd.DataFrame(rows, columns=["image", "split", "score"])
        table.to_csv(folder / "labels.csv", index=False)
        for i, image in enumerate(table["image"]):
            (folder / image).write_bytes(picture(side=20 + i))
        train(run_config(folder))
        files = content_of(folder)
    return {name: content for name, content in files.items() if ".lock" not in name}


def spoilt_run(files: Files) -> st.SearchStrategy[Files]:
    """One state under its checksum; rarely other files of the folder too."""
    states = sorted(name for name in files if name.endswith(".pt"))[:3]
    others = {name: files[name] for name in files if "/state-" not in name}

    def named(step: int, content: bytes) -> Files:
        digest = hashlib.sha256(content).hexdigest()[:16]
        return {f"run/checkpoints/state-{step:09}-{digest}.pt": content}

    @st.composite
    def spoilt(draw: st.DrawFn) -> Files:
        step = draw(st.integers(0, len(states) - 1))
        state = torch.load(io.BytesIO(files[states[step]]), weights_only=True)
        part = draw(st.sampled_from(sorted(state)))
        inner = state[part]
        ways = spoilt_values(inner, VALUES | st.just(torch.full((2,), float("nan")))) | VALUES
        if part == "model":
            ways |= spoilt_weights(inner)
        changed = draw(ways)
        whole = _pickled(state | {part: changed})
        return named(step + 1, draw(st.just(whole) | st.just(whole) | spoilt_bytes(whole)))

    written = {n: c for n, c in others.items() if n.startswith("run/") and "safetensors" not in n}
    sound = {name: files[name] for name in states[:1]}
    return (spoilt() | spoilt()).map(lambda state: others | state) | spoilt_files(written).map(
        lambda changed: others | sound | changed
    )


def resume(folder: Path) -> None:
    """Continue the run to its end."""
    train(run_config(folder))


KINDS = {
    "headers": Kind(checkpoint, spoilt_checkpoint, score),
    "enhanced": Kind(enhanced, spoilt_description, score),
    "weights": Kind(weights, spoilt_pth, start_from),
    "states": Kind(run, spoilt_run, resume),
}
