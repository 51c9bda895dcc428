"""The folder of scores: a Parquet file a shard, whole or not there, and what is finished."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import filelock
import pyarrow as pa
import pyarrow.parquet as pq

from eat.bulk.places import is_remote, join, names_in, open_place, remove_partials, writing_whole
from eat.bulk.shards import Shard
from eat.system.files import json_object
from eat.system.words import changes
from eat.version import __version__

# Readers of a folder of Parquet files pass over names that begin with an underscore.
SETTINGS, SUMMARY, LOCK = "_settings.json", "_summary.json", ".lock"
DONE = re.compile(r"(?P<shard>.+)\.n(?P<images>\d+)\.e(?P<errors>\d+)\.parquet")
FIRST = [
    ("key", pa.string()),
    ("url", pa.string()),
    ("shard", pa.string()),
    ("score", pa.float32()),
    ("votes", pa.list_(pa.float32())),
    ("percentile", pa.float32()),
    ("error", pa.string()),
    ("note", pa.string()),
    ("sha256", pa.string()),
]


def output_schema(targets: Sequence[str] = ()) -> pa.Schema:
    """Columns of an output: FIRST, and one for each target but "score" of a model with several.

    Raises:
        ValueError: a target has the name of another column.
    """
    others = [name for name in targets if name != "score"]
    if taken := {name for name, _ in FIRST} & {*others}:
        raise ValueError(f"the model's target {min(taken)!r} has the name of a column of ours")
    return pa.schema([*FIRST, *((name, pa.float32()) for name in others)])


@dataclass(frozen=True)
class Counts:
    """Images of a shard, and how many of them have an error in the place of a score."""

    images: int
    errors: int


class OutFolder:
    """A folder of scores, local or in a store, new or of calls before this one.

    Args:
        place: path or URL.
        settings: all that the scores depend on.

    Attributes:
        finished: the counts of each finished shard, by its name.

    Raises:
        ValueError: the folder holds something else, or scores with other settings, or a shard
            twice; or it is damaged.
        OSError: naming it; it cannot be read or written.
    """

    def __init__(self, place: str, settings: Mapping[str, Any]) -> None:
        self.place = place
        names = names_in(place)
        self._new = settings if SETTINGS not in names else None
        if self._new is None:
            self._check(settings)
        elif names:
            raise ValueError(
                f"{place}: there, and not of this command's making, with {min(names)!r:.80}: give "
                "another --out"
            )
        self._lock: filelock.FileLock | None = None
        self._keep_others_out()
        remove_partials(place)
        self.finished: dict[str, Counts] = {}
        for match in filter(None, map(DONE.fullmatch, sorted(names))):
            if match["shard"] in self.finished:
                raise ValueError(
                    f"{place}: two outputs of one shard, the second {match[0]}: delete one"
                )
            self.finished[match["shard"]] = Counts(int(match["images"]), int(match["errors"]))
        self._groups = {name.rpartition("-")[0]: name for name in self.finished}

    def _begin(self) -> None:
        """Write what the scores depend on, before the first of them."""
        if self._new is not None:
            self._write_json(SETTINGS, self._new)
            self._new = None
            self._keep_others_out()

    def _keep_others_out(self) -> None:
        """Lock a local folder, as soon as it is there, until this process ends."""
        if self._lock or is_remote(self.place) or not os.path.isdir(self.place):
            return
        self._lock = filelock.FileLock(join(self.place, LOCK))
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ValueError(
                f"{self.place}: another call writes into it: wait for it, or give another --out"
            ) from None

    def has(self, shard: Shard) -> bool:
        """True for a shard that is finished.

        Raises:
            ValueError: there are scores of other images in its place.
        """
        if shard.name in self.finished:
            return True
        other = self._groups.get(shard.group) if shard.images is not None else None
        if other:
            raise ValueError(
                f"{self.place}: {other} has scores of other images of {shard.url} than those found "
                "now: images came or went since; give another --out"
            )
        return False

    def write(self, shard: Shard, table: pa.Table) -> Counts:
        """Write the rows of a shard, in the order of its images."""
        self._begin()
        errors = len(table) - table["error"].null_count
        counts = Counts(len(table), errors)
        place = table.schema.get_field_index("shard")
        table = table.set_column(place, "shard", pa.repeat(shard.url, len(table)))
        about = {"shard": shard.url, "eat": __version__} | dict(zip(("images", "errors"),
                 map(str, (counts.images, counts.errors)), strict=True))  # fmt: skip
        table = table.replace_schema_metadata(about)
        name = f"{shard.name}.n{counts.images}.e{counts.errors}.parquet"
        with writing_whole(join(self.place, name)) as file:
            pq.write_table(table, file, compression="zstd")
        return counts

    def read_summary(self) -> dict[str, Any]:
        """What the calls before this one wrote; empty if there is none."""
        try:
            return self._read_json(SUMMARY)
        except (FileNotFoundError, ValueError):
            return {}

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Replace the summary."""
        self._begin()
        self._write_json(SUMMARY, summary)

    def _check(self, settings: Mapping[str, Any]) -> None:
        try:
            before = self._read_json(SETTINGS)
        except ValueError:
            raise ValueError(f"{join(self.place, SETTINGS)}: damaged: give another --out") from None
        if changed := changes(before, settings):
            raise ValueError(
                f"{self.place} holds scores with other settings: {changed}; take the same to go "
                "on, or another --out"
            )

    def _read_json(self, name: str) -> dict[str, Any]:
        with open_place(join(self.place, name)) as file:
            return json_object(file.read().decode(errors="replace"))

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        with writing_whole(join(self.place, name)) as file:
            file.write(f"{json.dumps(content, indent=2)}\n".encode())
