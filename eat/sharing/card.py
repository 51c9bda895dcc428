"""The model card of a checkpoint: Markdown, with the hub's head of YAML."""

import json
from pathlib import Path
from typing import Any

from eat.checkpoint import CheckpointInfo
from eat.checkpoint.adapted import OF_GENERAL
from eat.models import VARIANTS
from eat.models.timm_backbone import PREFIX, timm_config
from eat.models.variants import LICENCES
from eat.models.weights import weights_file
from eat.system.files import file_digest

CITATION = """@inproceedings{he2023eat,
  title     = {EAT: An Enhancer for Aesthetics-Oriented Transformers},
  author    = {He, Shuai and Ming, Anlong and Zheng, Shuntian and Zhong, Haobin and Ma, Huadong},
  booktitle = {Proceedings of the 31st ACM International Conference on Multimedia},
  year      = {2023}
}"""


def card(info: CheckpointInfo, measured: dict[str, Any] | None = None) -> str:
    """The model card.

    Args:
        info: of a checkpoint.
        measured: its evaluation, as :func:`evaluation` reads it.
    """
    name, pixels = info.model.name, info.preprocessing
    licence, whose = licence_of(info)
    began = (
        "" if starting_weights(info) is None else ", and of the weights that training began from,"
    )
    return f"""---
license: {licence.lower()}
library_name: {"timm" if name in VARIANTS else "eat"}
tags:
- image-aesthetics
- image-quality-assessment
---

# {name} on {info.title}

{about(info)}

```python
import eat
print(*eat.Scorer("THIS FOLDER, OR hf-hub:NAME")("photo.jpg"))
```
{timm_call(name)}
## Data

{training(info)}

{split_table(info)}
## Metrics

{epoch_metrics(info)}
{evaluated_metrics(measured) if measured else ""}
## Preprocessing

RGB, {"turned by EXIF, " if pixels.upright else ""}{
        "converted to sRGB, on white, " if pixels.colours == "as_shown" else ""
    }resized to {pixels.size} x {pixels.size} pixels,
whatever the aspect ratio ({pixels.interpolation}); of values from 0 to 1, mean {
        list(pixels.mean)
    } and deviation {list(pixels.std)}.

## Licence and citation

{licence}: {whose}. The terms of {info.title}{began}
apply to these weights too.

```bibtex
{CITATION}
```
"""


def about(info: CheckpointInfo) -> str:
    """What the model is and gives, in sentences."""
    spec, row = info.model, VARIANTS.get(info.model.name)
    given = f"{info.num_votes} vote shares" if info.num_votes else " and ".join(info.scales)
    scales = ", ".join(f"{s.low:g}..{s.high:g} ({name})" for name, s in info.scales.items())
    kind = "a model of timm" if spec.name.startswith(PREFIX) else "a model of one's own"
    text = f"{row.about if row else kind}; from a photograph to {given}. Scores: {scales}."
    text = text[0].upper() + text[1:]
    if spec.settings:
        text += f" Settings other than the named model's: `{json.dumps(spec.settings)}`."
    if spec.enhance is not None:
        text += f" Its attention is enhanced: `{json.dumps(vars(spec.enhance))}`."
    return text


def timm_call(name: str) -> str:
    """How timm loads it, if it can."""
    if name not in VARIANTS:
        return ""
    call = 'timm.create_model("hf-hub:NAME", pretrained=True)'
    return f"\n`{call}` gives the network, after `import eat`.\n"


def training(info: CheckpointInfo) -> str:
    """What it was trained on and from, in sentences."""
    if info.released:
        return f"The weights that the authors published, trained on {info.title}."
    if info.is_personal:
        return f"A general model ({start(info)}), trained on {info.title}, by `eat adapt`."
    epochs = info.config.get("optim", {}).get("epochs")
    of = f" of {epochs}" if epochs else ""
    return (
        f"Trained on {info.title}, {start(info)}. These are the weights of epoch {info.epoch}{of}. "
        "A fingerprint identifies the images of a split."
    )


def starting_weights(info: CheckpointInfo) -> str | None:
    """The weights that training began from, as the run's options name them."""
    model = info.config.get("model", {})
    return model.get("weights") or (info.model.name if model.get("pretrained") else None)


def start(info: CheckpointInfo) -> str:
    """The same in words, with the licence of timm's."""
    weights = starting_weights(info)
    if weights is None:
        return "from scratch" if info.config else "from weights that are not recorded"
    if not weights.startswith(PREFIX):
        return f"from the weights in `{weights}`"
    config = timm_config(weights.removeprefix(PREFIX))
    arch = config.architecture + (f".{config.tag}" if config.tag else "")
    return f"from timm's weights `{arch}` (licence: {config.license or 'not stated'})"


def split_table(info: CheckpointInfo) -> str:
    """The splits of the run, with their fingerprints."""
    rows = [
        f"| {name} | {split.get('images', '')} | `{str(split.get('fingerprint', ''))[:16]}` |\n"
        for name, split in info.splits.items()
        if isinstance(split, dict)
    ]
    return "| split | images | fingerprint |\n| --- | --- | --- |\n" + "".join(rows) if rows else ""


def epoch_metrics(info: CheckpointInfo) -> str:
    """The metrics that chose the epoch, or of a personal model its evidence."""
    if not info.metrics:
        return "None are recorded in the checkpoint."
    of = f"Of the {info.chosen_on} split, which chose the epoch"
    if info.is_personal:
        of = (
            f"Cross-validated, beside those of the general model (`{OF_GENERAL}`), with the bounds "
            "of the difference (95%)"
        )
    rows = "".join(f"| {name} | {shown(value)} |\n" for name, value in info.metrics.items())
    return f"{of}:\n\n| metric | value |\n| --- | --- |\n{rows}"


def evaluated_metrics(found: dict[str, Any]) -> str:
    """The metrics of an evaluation, with their 95% bootstrap intervals."""
    bounds, split = found["intervals"], found["split"] and f", {found['split']} split"
    rows = "".join(
        f"| {name} | {shown(value)} | {' to '.join(map(shown, bounds.get(name, ())))} |\n"
        for name, value in found["metrics"].items()
    )
    notes = "".join(f"\n{note}\n" for note in found["notes"])
    return (
        f"Of {found['dataset']}{split}, {found['images']} images (fingerprint "
        f"`{found['fingerprint'][:16]}`), by `eat evaluate`:\n\n"
        f"| metric | value | 95% interval |\n| --- | --- | --- |\n{rows}{notes}"
    )


def evaluation(checkpoint: str | Path) -> dict[str, Any] | None:
    """What ``eat evaluate`` measured of these weights, and put beside the run."""
    file = weights_file(checkpoint)
    try:
        found = json.loads((file.resolve().parent.parent / "eval" / "metrics.json").read_text())
        return found if found["digest"] == file_digest(file) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def licence_of(info: CheckpointInfo) -> tuple[str, str]:
    """The licence, as SPDX has it ("other" if it is not known), and what has it."""
    name, weights = info.model.name, starting_weights(info)
    if name in VARIANTS:
        paper = VARIANTS[name].paper
        return LICENCES[paper], f"the release of {paper}"
    if not name.startswith(PREFIX):
        return "other", "a model of one's own"
    if weights is None or not weights.startswith(PREFIX):
        return "Apache-2.0", "timm"
    return timm_config(weights.removeprefix(PREFIX)).license or "other", "the weights at the start"


def shown(value: Any) -> str:
    """A metric in four digits."""
    if value is None:  # NaN, as JSON has it
        return "none"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
