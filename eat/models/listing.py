"""The named models as a list: names for Python, records for ``eat models``."""

from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import Any

import torch

from eat.models.variants import LICENCES, VARIANTS, create_model
from eat.system.words import nearest

BESIDE = (
    "timm/NAME is any image model of timm; FILE.py:FUNCTION a model of your own (docs/extending.md)"
)


def list_models(pattern: str = "") -> list[str]:
    """Names of the models that hold ``pattern``; with *, ? or [ in it, those that match it."""
    glob = pattern if {*pattern} & {*"*?["} else f"*{pattern}*"
    return [name for name in VARIANTS if fnmatchcase(name.lower(), glob.lower())]


def describe_models(pattern: str = "") -> list[dict[str, Any]]:
    """A record of plain values for each model of ``list_models``; nothing is allocated for it.

    Raises:
        ValueError: there is no such model.
    """
    names = list_models(pattern)
    if not names:
        near = nearest(pattern, VARIANTS)
        hint = f"did you mean {near!r}? " if near else ""
        raise ValueError(f"no model matches {pattern!r}; {hint}eat models lists all; {BESIDE}")
    records = []
    for name in names:
        row = VARIANTS[name]
        with torch.device("meta"):
            model = create_model(name)
        records.append(
            {
                "name": name,
                "about": row.about,
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
                "outputs": model.num_outputs,
                "height": model.img_size[0],
                "width": model.img_size[1],
                **asdict(row.inputs),
                "paper": row.paper,
                "licence": LICENCES[row.paper],
                "published": [str(result) for result in row.published],
                "settings": row.settings,
            }
        )
    return records


def in_words(record: dict[str, Any]) -> str:
    """A record in a few lines."""
    outputs = "1 output" if record["outputs"] == 1 else f"{record['outputs']} outputs"
    lines = [
        f"{record['name']:22} {record['about']}",
        f"{record['parameters'] / 1e6:.2f} M parameters with {outputs}, "
        f"{record['height']} x {record['width']} pixels, {record['interpolation']}",
        f"{record['paper']}; {record['licence']}",
        *record["published"],
    ]
    return f"\n{'':23}".join(lines)
