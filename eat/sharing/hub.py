"""A checkpoint as a folder that timm and the Hugging Face hub take, with a model card."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from eat.checkpoint import (
    CheckpointInfo,
    described_model,
    load_checkpoint,
    read_trained_on,
    save_checkpoint,
)
from eat.config.pixels import Inputs
from eat.models import VARIANTS, AestheticModel, WeightsError
from eat.models.timm_backbone import PREFIX
from eat.models.weights import HUB, SHARED, refusal
from eat.sharing.card import card, evaluation
from eat.system.files import partial_folder

# Options of a run that say where things lay on its machine.
PLACES = {"labels", "images", "test", "val", "cache", "folder"}
FILES = (SHARED, "config.json", "README.md")


def from_pretrained(
    name: str | Path, model: str | None = None, general: str | None = None
) -> AestheticModel:
    """The model of a checkpoint, of a folder of ``eat share`` or a run, or of a hub repository.

    Args:
        name: a path, or ORGANISATION/NAME on the hub.
        model: FILE.py:FUNCTION, if it is a model of one's own.
        general: of a small file, its general model, as in ``load_checkpoint``.

    Raises:
        WeightsError: there is none, weights are missing or unexpected, or they do not fit.
    """
    known = os.path.exists(name) or str(name).startswith(HUB)
    return load_checkpoint(name if known else f"{HUB}{name}", model, general)[0]


def share(
    checkpoint: str | Path, target: str, model: str | None = None, general: str | None = None
) -> str:
    """Write a checkpoint as a folder, or into a repository of the hub, and return where it is.

    Args:
        checkpoint: of a run, or one of the authors'.
        target: a folder, or hf-hub:ORGANISATION/NAME.
        model: FILE.py:FUNCTION, if it is a model of one's own.
        general: of a small file, its general model; what is written is whole.

    Raises:
        WeightsError: the checkpoint cannot be read.
        ValueError: the folder holds other files, or the hub refuses.
        OSError: naming the file; the disk may be full.
    """
    net, info = load_checkpoint(checkpoint, model, general)
    info = replace(
        info,
        model=replace(info.model, name=without_places(info.model.name)),
        config=without_places(info.config),
    )
    trained_on = read_trained_on(checkpoint) if info.config else None
    texts = {
        "config.json": json.dumps(timm_config(net, info), indent=2),
        "README.md": card(info, evaluation(checkpoint)),
    }

    def write(folder: Path) -> None:
        save_checkpoint(folder / SHARED, net, info, trained_on)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")

    if target.startswith(HUB):
        with TemporaryDirectory() as folder:
            write(Path(folder))
            return upload(Path(folder), target, f"{info.model.name} on {info.title}")
    out = Path(target)
    check_replaceable(out)
    with partial_folder(out) as partial:
        write(partial)
        out.mkdir(exist_ok=True)
        for name in FILES:
            (partial / name).replace(out / name)
    return target


def upload(folder: Path, target: str, message: str) -> str:
    """Write a folder's files into a repository of the hub, as one commit.

    Raises:
        ValueError: the hub refuses, or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    name, _, revision = target.removeprefix(HUB).partition("@")
    if revision:
        raise ValueError(f"{target}: a revision is for reading: leave out @{revision}")
    try:
        repository = HfApi().create_repo(name, exist_ok=True).repo_id
        files = [CommitOperationAdd(file, str(folder / file)) for file in FILES]
        HfApi().create_commit(repository, files, commit_message=message)
    except Exception as error:  # of the hub, of sockets
        raise ValueError(f"{target} cannot be written: {refusal(error)}") from error
    return f"{HUB}{repository}"


def check_replaceable(out: Path) -> None:
    """Refuse to write into anything but a new folder, and one that ``eat share`` has written.

    Raises:
        ValueError: something else is there.
    """
    if not os.path.lexists(out):
        return
    if not out.is_dir():
        raise ValueError(f"{out} is there, and no folder: give another --out")
    found = {path.name for path in out.iterdir()} - {".git", ".gitattributes"}
    if found - {*FILES} or (found and not is_shared(out / SHARED)):
        raise ValueError(
            f"{out} holds other files, such as {min(found - {*FILES} or found)}: give a new folder"
        )


def is_shared(file: Path) -> bool:
    """Whether a file is a checkpoint of ours."""
    try:
        return described_model(file) is not None
    except WeightsError:
        return False


def without_places(value: Any, name: str = "") -> Any:
    """Options of a run without the folders of its machine: of other paths the last parts alone."""
    if isinstance(value, dict):
        return {key: without_places(part, key) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(part) for part in value]
    if name in PLACES:
        return None
    if isinstance(value, str) and not value.startswith((PREFIX, HUB)):
        return re.split(r"[/\\]", value)[-1]
    return value


def timm_config(net: AestheticModel, info: CheckpointInfo) -> dict[str, Any]:
    """What timm builds the model by; of a model that is not in its registry the name alone."""
    spec, pixels = info.model, info.preprocessing
    found: dict[str, Any] = {"architecture": spec.name, "num_classes": spec.num_outputs}
    if spec.name not in VARIANTS:
        return found
    from eat.models.timm_entries import as_built, configuration

    inputs = Inputs(pixels.mean, pixels.std, pixels.interpolation)
    enhance = {} if spec.enhance is None else {"enhance": vars(spec.enhance)}
    return found | {
        "num_features": getattr(net, "num_features", None),
        "model_args": spec.settings | enhance | {"img_size": spec.img_size},
        "pretrained_cfg": configuration(spec.name, inputs, spec.img_size, spec.num_outputs)
        | as_built(net),
    }
