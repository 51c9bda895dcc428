"""The general model of a small file, which holds only the weights that differ from it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from eat.models import WeightsError
from eat.models.weights import HUB, weights_file
from eat.system.files import file_digest
from eat.system.schema import typed
from eat.system.words import printable

OF_GENERAL = "_of_general"  # ends the name of the general model's metric in a personal one's
GENERAL = "general"  # key of a General, as JSON, in the safetensors header
MOST_PLACE = 4096  # characters


@dataclass(frozen=True)
class General:
    """A general model, as a small file names it.

    Attributes:
        place: where it was: an absolute path, or a repository of the hub.
        sha256: of its file of weights, in hexadecimal digits.
        changed: names of the weights that the small file has in the place of its own.
    """

    place: str
    sha256: str
    changed: tuple[str, ...] = ()


def describe_general(checkpoint: str | Path) -> General:
    """A checkpoint as a general model.

    Raises:
        WeightsError: there is no such file.
    """
    file = weights_file(checkpoint)
    on_hub = str(checkpoint).startswith(HUB)
    place = str(checkpoint if on_hub else file.resolve())
    return General(place, file_digest(file))


def read_general(header: Mapping[str, str], path: str | Path) -> General | None:
    """The general model that a checkpoint's metadata name; None if the file needs none.

    Raises:
        WeightsError: what names it is damaged.
    """
    if GENERAL not in header:
        return None
    try:
        general: General = typed(General, json.loads(header[GENERAL]), "")
        # An address of Windows's network would be told who asks.
        is_place = not re.match(r"[\\/]{2}", general.place) and "\0" not in general.place
        if not is_place or len(general.place) > MOST_PLACE:
            raise ValueError("its place is none")
        if not re.fullmatch("[0-9a-f]{64}", general.sha256):
            raise ValueError("its SHA-256 is none")
        return general
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: the name of its general model is damaged") from error


def find_general(path: Path, wanted: General, given: str | None = None) -> Path:
    """The file of weights of a small file's general model.

    Args:
        path: of the small file. The general model is looked for beside it, then at its place.
        wanted: the general model.
        given: where it is, by the user's word; then it is looked for nowhere else.

    Raises:
        WeightsError: no file with its fingerprint is there.
    """
    beside = path.with_name(Path(wanted.place).name or path.name)
    tried = []
    for place in [given] if given else [str(beside), wanted.place]:
        try:
            file = weights_file(place)
            found = file_digest(file)
        except (WeightsError, OSError) as error:
            tried.append(printable(str(error)))
            continue
        if found == wanted.sha256:
            return file
        tried.append(f"{printable(place)}: another model, {found[:16]}...")
    raise WeightsError(
        f"{path}: holds what differs from the general model {wanted.sha256[:16]}... (start of its "
        f"file's SHA-256), which was {printable(wanted.place)}. Found "
        f"{'; '.join(dict.fromkeys(tried))}. Give it as --general FILE"
    )
