"""Checkpoint files, ours and those that the authors published."""

import base64
import json
import logging
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from eat.checkpoint.adapted import GENERAL, General, find_general, read_general
from eat.checkpoint.description import (
    FORMAT,
    HEADER,
    CheckpointInfo,
    ModelSpec,
    describe_release,
    parse,
)
from eat.checkpoint.releases import recognise
from eat.data.labels.identity import ImageHashes
from eat.models import AestheticModel, WeightsError
from eat.models.empty import EmptyWeights
from eat.models.foreign import State
from eat.models.timm_backbone import is_name
from eat.models.weights import (
    TRAINED_ON,
    as_weight,
    check_dtypes,
    load_state,
    read_state,
    sound,
    weights_file,
)
from eat.system.files import appearing_whole, file_digest
from eat.system.plugins import digest, is_path
from eat.system.words import brief

log = logging.getLogger("eat")
TRAINED_KEYS = (TRAINED_ON, f"{TRAINED_ON}_contents")  # of ImageHashes in the header


def save_checkpoint(
    path: str | Path,
    model: AestheticModel | Mapping[str, Tensor],
    info: CheckpointInfo,
    trained_on: ImageHashes | None = None,
    *,
    general: General | None = None,
) -> None:
    """Write weights and info to a safetensors file, completely or not at all.

    The same content makes the same bytes.

    Args:
        path: of the file.
        model: its weights, or a model that has them.
        info: what it says of itself.
        trained_on: the training images, so that an evaluation can tell which test images the model
            has seen.
        general: the model that it differs from, of whose weights those that changed are written;
            None writes all.
    """
    weights = model if isinstance(model, Mapping) else model.state_dict()
    state = {  # copies, as weights that a model uses twice share their memory
        name: value.detach().to("cpu", copy=True).contiguous()
        for name, value in weights.items()
        if general is None or name in general.changed
    }
    header = {"format": "pt", HEADER: json.dumps({"format": FORMAT} | asdict(info))}
    for key, hashes in zip(TRAINED_KEYS, trained_on or (), strict=False):
        header[key] = base64.b64encode(hashes.astype("<i8").tobytes()).decode()
    if general is not None:
        header[GENERAL] = json.dumps(asdict(general))
    content = save(state, header)
    # By chance, safetensors writes the header's entries in one order or another.
    size = 8 + int.from_bytes(content[:8], "little")
    entries = json.loads(content[8:size])
    entries["__metadata__"] = dict(sorted(entries["__metadata__"].items()))
    start = json.dumps(entries).encode()
    start += b" " * (-len(start) % 8)
    with appearing_whole(path) as file:
        file.write(len(start).to_bytes(8, "little") + start)
        file.write(memoryview(content)[size:])


def read_info(path: str | Path) -> CheckpointInfo:
    """Read a checkpoint's info without keeping its weights.

    Raises:
        WeightsError: the file is absent, damaged, or a checkpoint neither of ours nor the authors'.
    """
    path = weights_file(path)
    header = _read_header(path)
    if header is not None:
        return parse(header, path)
    return describe_release(recognise(read_state(path), path))


def described_model(path: str | Path) -> ModelSpec | None:
    """The model that one of our checkpoints describes; None for weights of others.

    Raises:
        WeightsError: the file is absent or damaged, or does not hold that model's weights, which
            of a model from a user's file cannot be told.
    """
    theirs = is_name(path) or Path(path).suffix == ".pth"
    if theirs or (header := _read_header(path := weights_file(path))) is None:
        return None
    info = parse(header, path)
    if read_general(header, path):
        raise WeightsError(
            f"{path}: holds only what differs from another model, and no run starts from it; write "
            "it whole: eat adapt --whole true, or eat share"
        )
    if not is_path(info.model.name):
        _check_shapes(_build(info, path).state_dict(), path)
    return info.model


def read_trained_on(path: str | Path) -> ImageHashes | None:
    """Read the training images of a checkpoint; None if it has no list. Older ones have names only.

    Raises:
        WeightsError: the list is damaged.
    """
    path = weights_file(path)
    if _read_header(path) is None:
        return None
    try:
        with sound(path), safe_open(path, framework="np") as file:
            if TRAINED_ON in file.keys():
                names = file.get_tensor(TRAINED_ON).astype(np.int64, casting="safe").ravel()
                return ImageHashes(names, np.empty(0, np.int64))
            metadata = file.metadata() or {}
        if TRAINED_ON not in metadata:
            return None
        lists = [base64.b64decode(metadata.get(key, ""), validate=True) for key in TRAINED_KEYS]
        return ImageHashes(*(np.frombuffer(one, "<i8").astype(np.int64) for one in lists))
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path}: its list of training images is damaged ({error})") from error


def read_origin(path: str | Path) -> General | None:
    """The general model that a checkpoint names, as a small file of ``eat adapt`` does; else None.

    Raises:
        WeightsError: the file is absent or damaged.
    """
    path = weights_file(path)
    return read_general(_read_header(path) or {}, path)


def load_checkpoint(
    path: str | Path, model: str | None = None, general: str | None = None
) -> tuple[AestheticModel, CheckpointInfo]:
    """Build the model of a checkpoint and load its weights, in evaluation mode.

    One of ours must be complete. One of the authors' gives raw outputs, as in their code.

    Args:
        path: of the checkpoint, its run or folder, or a repository of the hub: see
            ``weights_file``.
        model: FILE.py:FUNCTION, for a checkpoint of a model that such a function makes. A name in
            the checkpoint is never imported.
        general: of a small file, its general model; None looks beside it, then where that was.

    Raises:
        WeightsError: the file is absent, damaged or incomplete, holds weights that are not finite,
            is a checkpoint neither of ours nor of the authors', or needs ``model`` or ``general``.
    """
    path = weights_file(path)
    header = _read_header(path)
    origin = read_general(header or {}, path)
    if header is not None and origin is not None:
        found = find_general(path, origin, general)
        return _load_small(path, parse(header, path), origin, found, model)
    if general is not None:
        raise WeightsError(f"{path}: needs no other model: leave out --general")
    if header is None:
        state = read_state(path)
        info = describe_release(recognise(state, path))
        built = _build(info, path, model)
        report = load_state(built, state, str(path))
        unused = info.release.unused if info.release else ()
        for name in {*report.left_out, *report.resized} - {*unused}:
            raise WeightsError(
                f"{path}: {name!r} is none of the weights that the authors published"
            )
        return built.eval(), info
    info = parse(header, path)
    built = _build(info, path, model)
    if model is not None and digest(model) != info.files.get("model.name", digest(model)):
        log.warning("%s has changed since %s was trained with it", model, path)
    own = built.state_dict()
    _check_shapes(own, path)
    with sound(path):
        state = load_file(path)
    state.pop(TRAINED_ON, None)
    check_dtypes(state, own, str(path))
    # Copies: tensors of a mapped file would change with it.
    copies = {n: as_weight(state[n], own[n], n, str(path), copy=True) for n in own}
    built.load_state_dict(copies, assign=not is_path(info.model.name))  # else they stay tied
    return built.eval(), info


def _load_small(
    path: Path, info: CheckpointInfo, origin: General, general: Path, model: str | None
) -> tuple[AestheticModel, CheckpointInfo]:
    """A general model with the weights of a small file in the place of its own."""
    if read_origin(general) is not None:
        raise WeightsError(f"{path}: its general model, {general}, is a personal one itself")
    built, of = load_checkpoint(general, model)
    if file_digest(general) != origin.sha256:
        raise WeightsError(f"{path}: its general model, {general}, changed while it was read")
    if of.model != info.model:
        raise WeightsError(f"{path}: its description is not that of its general model, {general}")
    own = built.state_dict()
    with sound(path):
        state = load_file(path)
    if state.keys() != {*origin.changed}:
        raise WeightsError(
            f"{path}: damaged: it has {len(state)} weights, and names {len(origin.changed)} that "
            "differ from the general model, or others"
        )
    for name, value in state.items():
        if name not in own or own[name].shape != value.shape:
            raise WeightsError(f"{path}: {name!r} is none of the weights of {general}")
    check_dtypes(state, own, str(path))
    fitted = {n: as_weight(v, own[n], n, str(path), copy=True) for n, v in state.items()}
    built.load_state_dict(fitted, strict=False)
    return built, info


def _build(info: CheckpointInfo, path: str | Path, model: str | None = None) -> AestheticModel:
    """The model that a checkpoint describes; without weights, if it is one of the package."""
    try:
        with nullcontext() if is_path(info.model.name) else EmptyWeights():
            return info.model.build(model)
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path}: its model cannot be built: {brief(error)}") from error


def _check_shapes(own: State, path: str | Path) -> None:
    """Refuse a file that does not hold all of a model's weights, or holds others; reads none."""
    with sound(path), safe_open(path, framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    shapes.pop(TRAINED_ON, None)
    for name, value in own.items():
        found, expected = shapes.pop(name, None), tuple(value.shape)
        if found is None:
            raise WeightsError(f"{path}: incomplete: the weight {name!r} is missing")
        if found != expected:
            raise WeightsError(f"{path}: {name!r} has shape {found}: expected {expected}")
    for name in shapes:
        raise WeightsError(f"{path}: the weight {name!r} is none of its model's")


def _read_header(path: Path) -> dict[str, str] | None:
    """The metadata of one of our checkpoints; None for a file of somebody else's."""
    try:
        with safe_open(path, framework="np") as file:
            header = file.metadata() or {}
    except SafetensorError as error:
        if path.suffix == ".safetensors":
            raise WeightsError(f"{path}: truncated, or not a checkpoint ({error})") from error
        return None
    return header if HEADER in header else None
