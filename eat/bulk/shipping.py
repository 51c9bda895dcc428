"""A model on every machine: from its files, or from their contents, sent through Ray."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eat.checkpoint.adapted import find_general
from eat.checkpoint.files import read_origin
from eat.models.weights import weights_file
from eat.scoring import Scorer
from eat.system.plugins import file_of


@dataclass(frozen=True)
class Shipped:
    """A scorer that any machine can make.

    Attributes:
        options: of ``Scorer``.
        contents: name and content, as a reference of Ray, of the file that an option names.
    """

    options: Mapping[str, Any]
    contents: Mapping[str, tuple[str, Any]]

    def scorer(self, **options: Any) -> Scorer:
        """Make the scorer, with further options."""
        if not self.contents:
            return Scorer(**self.options, **options)
        import ray

        with tempfile.TemporaryDirectory(prefix="eat-model-") as folder:
            files = {}
            for option, (name, content) in self.contents.items():
                path = Path(folder, option, Path(name).name.partition(":")[0])
                path.parent.mkdir()
                path.write_bytes(ray.get(content))
                files[option] = f"{path}{':' * (':' in name)}{name.partition(':')[2]}"
            return Scorer(**{**self.options, **files}, **options)


def ship(options: Mapping[str, Any], *, own: bool) -> Shipped:
    """What processes need to make a scorer.

    Args:
        options: of ``Scorer``, with names and paths as on this machine.
        own: whether all processes are on it; else the files' contents go along.

    Raises:
        WeightsError: a file is not there.
    """
    checkpoint = weights_file(options["checkpoint"])
    names = {"checkpoint": str(checkpoint)}
    origin = read_origin(checkpoint) if checkpoint.suffix == ".safetensors" else None
    if origin is not None:
        names["general"] = str(find_general(checkpoint, origin, options["general"]))
    if options["model"]:
        names["model"] = options["model"]
    if own:
        return Shipped({**options, **names}, {})
    import ray

    files = names | ({"model": str(file_of(names["model"]))} if "model" in names else {})
    contents = {n: (names[n], ray.put(Path(file).read_bytes())) for n, file in files.items()}
    return Shipped(dict(options), contents)
