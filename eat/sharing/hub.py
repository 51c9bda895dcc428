"""A checkpoint as a folder that timm and the Hugging Face hub take, with a model card."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from eat.checkpoint import CheckpointInfo, load_checkpoint, read_trained_on, save_checkpoint
from eat.config.pixels import Inputs
from eat.models import VARIANTS, AestheticModel
from eat.models.variants import LICENCES
from eat.models.weights import HUB, SHARED, weights_file
from eat.system.files import write_atomically
from eat.system.words import brief

# Options of a run that say where things lay on its machine.
PLACES = {"data": ("labels", "images", "test", "val", "cache"), "run": ("folder",)}
FILES = (SHARED, "config.json", "README.md")
CITATION = """@inproceedings{he2023eat,
  title     = {EAT: An Enhancer for Aesthetics-Oriented Transformers},
  author    = {He, Shuai and Ming, Anlong and Zheng, Shuntian and Zhong, Haobin and Ma, Huadong},
  booktitle = {Proceedings of the 31st ACM International Conference on Multimedia},
  year      = {2023}
}"""


def from_pretrained(name: str | Path, model: str | None = None) -> AestheticModel:
    """The model of a checkpoint, of a folder of ``eat share`` or a run, or of a hub repository.

    Args:
        name: a path, or ORGANISATION/NAME on the hub.
        model: FILE.py:FUNCTION, if it is a model of one's own.

    Raises:
        WeightsError: there is none, weights are missing or unexpected, or they do not fit.
    """
    known = os.path.exists(name) or str(name).startswith(HUB)
    return load_checkpoint(name if known else f"{HUB}{name}", model)[0]


def share(checkpoint: str | Path, target: str, model: str | None = None) -> str:
    """Write a checkpoint as a folder, or into a repository of the hub, and return where it is.

    Args:
        checkpoint: of a run, or one of the authors'.
        target: a folder, or hf-hub:ORGANISATION/NAME.
        model: FILE.py:FUNCTION, if it is a model of one's own.

    Raises:
        WeightsError: the checkpoint cannot be read.
        ValueError: the folder holds other files, or the hub refuses.
    """
    net, info = load_checkpoint(checkpoint, model)
    info = replace(info, config=without_places(info.config))
    if not target.startswith(HUB):
        write_folder(Path(target), net, info, checkpoint)
        return target
    from tempfile import TemporaryDirectory

    from huggingface_hub import HfApi

    repository = target.removeprefix(HUB)
    with TemporaryDirectory() as folder:
        write_folder(Path(folder), net, info, checkpoint)
        try:
            HfApi().create_repo(repository, exist_ok=True)
            HfApi().upload_folder(repo_id=repository, folder_path=folder)
        except Exception as error:  # of the hub, of sockets
            raise ValueError(
                f"{target} cannot be written: {brief(error)}; see hf auth login"
            ) from error
    return target


def write_folder(
    folder: Path, net: AestheticModel, info: CheckpointInfo, checkpoint: str | Path
) -> None:
    """Write weights, timm's configuration and the card, each completely or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    others = {path.name for path in folder.iterdir()} - {*FILES, ".git", ".gitattributes"}
    if others:
        raise ValueError(f"{folder} holds other files, such as {min(others)}: give a new folder")
    trained_on = read_trained_on(checkpoint) if info.config else None
    save_checkpoint(folder / SHARED, net, info, trained_on)
    write_atomically(folder / "config.json", json.dumps(timm_config(net, info), indent=2).encode())
    write_atomically(folder / "README.md", card(info, evaluated(checkpoint)).encode())


def without_places(config: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A run's options, less the folders of its machine."""
    return {
        group: {n: None if n in PLACES.get(group, ()) else value for n, value in options.items()}
        for group, options in config.items()
    }


def timm_config(net: AestheticModel, info: CheckpointInfo) -> dict[str, Any]:
    """What timm builds the model by; of a model that is not in its registry the name alone."""
    spec, pixels = info.model, info.preprocessing
    found: dict[str, Any] = {"architecture": spec.name, "num_classes": spec.num_outputs}
    if spec.name not in VARIANTS:
        return found
    from eat.models.timm_entries import configuration

    inputs = Inputs(pixels.mean, pixels.std, pixels.interpolation)
    enhance = {} if spec.enhance is None else {"enhance": vars(spec.enhance)}
    return found | {
        "num_features": getattr(net, "num_features", None),
        "model_args": spec.settings | enhance | {"img_size": spec.img_size},
        "pretrained_cfg": configuration(spec.name, inputs, spec.img_size, spec.num_outputs),
    }


def evaluated(checkpoint: str | Path) -> str:
    """The report with intervals that ``eat evaluate`` put beside a checkpoint's run, if it did."""
    file = weights_file(checkpoint).resolve()
    folder = file.parent.parent / "eval"
    try:
        of = json.loads((folder / "metrics.json").read_text())["checkpoint"]
        return (folder / "metrics.md").read_text() if Path(of).resolve() == file else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def card(info: CheckpointInfo, report: str) -> str:
    """The model card, in Markdown with the hub's head of YAML, and the ``report`` of metrics."""
    row, pixels = VARIANTS.get(info.model.name), info.preprocessing
    licence = LICENCES[row.paper] if row else "other"
    metrics = "".join(f"| {name} | {shown(value)} |\n" for name, value in info.metrics.items())
    splits = "".join(
        f"| {name} | {split.get('images', '')} | `{str(split.get('fingerprint', ''))[:16]}` |\n"
        for name, split in info.splits.items()
        if isinstance(split, dict)
    )
    return f"""---
license: {licence.lower()}
library_name: timm
tags:
- image-aesthetics
- image-quality-assessment
- timm
---

# {info.model.name} on {info.title}

{row.about if row else info.model.name}, from a photograph to {
        f"{info.num_votes} vote shares" if info.num_votes else " and ".join(info.scales)
    }. Scores lie in {
        ", ".join(f"{s.low:g}..{s.high:g} ({name})" for name, s in info.scales.items())
    }.

```python
import eat
print(*eat.Scorer("THIS FOLDER, OR hf-hub:NAME")("photo.jpg"))
```

`timm.create_model("hf-hub:NAME", pretrained=True)` gives the network, after `import eat`.

## Data

Trained on {info.title}, {info.epoch} epochs. A fingerprint identifies the images of a split.

| split | images | fingerprint |
| --- | --- | --- |
{splits}
## Metrics

Of the split that chose the epoch{"" if metrics else ": none are recorded"}.

| metric | value |
| --- | --- |
{metrics}
{report}
## Preprocessing

RGB, {"turned by EXIF, " if pixels.upright else ""}{
        "converted to sRGB, on white, " if pixels.colours == "as_shown" else ""
    }resized to {pixels.size} x {pixels.size} pixels whatever the aspect ratio ({
        pixels.interpolation
    }); mean {list(pixels.mean)}, deviation {list(pixels.std)} of 0..1.

## Licence and citation

{licence}, as the release of {row.paper if row else "its authors"}; terms of {
        info.title
    } apply to what was trained on it.

```bibtex
{CITATION}
```
"""


def shown(value: Any) -> str:
    """A metric in four digits."""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
