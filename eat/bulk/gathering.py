"""Rows of shards under way, gathered until each shard is complete."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eat.bulk.output import output_schema
from eat.bulk.shards import Shard

# Beside the columns of the output: the shard, the place of the image in it, whether this row stands
# after the shard's last image, and a share of the seconds that a model worked and waited for it.
FOLLOWED = [("number", pa.int64()), ("place", pa.int64()), ("end", pa.bool_())]
FOLLOWED += [("model", pa.string()), ("worked", pa.float64()), ("waited", pa.float64())]


def rows_schema(targets: Sequence[str]) -> pa.Schema:
    """Columns of rows under way: FOLLOWED, and those of the output."""
    return pa.unify_schemas([pa.schema(FOLLOWED), output_schema(targets)])


@dataclass(frozen=True)
class Gathered:
    """A shard whose last row has come.

    Attributes:
        rows: the output's columns, in the order of the images; None if it cannot be read.
        error: why it cannot.
    """

    shard: Shard
    rows: pa.Table | None
    error: str = ""


@dataclass
class _Part:
    """The rows of a shard that came so far."""

    tables: list[pa.Table] = field(default_factory=list)
    places: set[int] = field(default_factory=set)
    images: int | None = None  # that its reader gave


class Gathering:
    """Gathers the rows of shards, which come in blocks of any size and order, or come again.

    A row with ``end`` says by its ``place`` how many images the reader gave, and by its ``error``
    why the reader could not go on. Of rows that come again, after a machine was lost, the first
    counts.

    Args:
        shards: by their numbers.
    """

    def __init__(self, shards: Mapping[int, Shard]) -> None:
        self._shards = dict(shards)
        self._parts: dict[int, _Part] = {}

    def left(self) -> list[Shard]:
        """The shards whose rows have not all come."""
        return [*self._shards.values()]

    def add(self, block: pa.Table) -> Iterator[Gathered]:
        """Take rows, and give the shards that they complete."""
        for number in pc.unique(block["number"]).to_pylist():
            if number in self._shards:
                rows = block.filter(pc.equal(block["number"], number))
                yield from self._add(number, rows)

    def _add(self, number: int, rows: pa.Table) -> Iterator[Gathered]:
        part = self._parts.setdefault(number, _Part())
        ends = rows.filter(rows["end"])
        if len(ends):
            error = ends["error"][0].as_py()
            if error:
                yield self._done(number, None, error)
                return
            part.images = ends["place"][0].as_py()
        new = []
        for row, (place, end) in enumerate(
            zip(rows["place"].to_pylist(), rows["end"].to_pylist(), strict=True)
        ):
            if not end and place not in part.places:
                part.places.add(place)
                new.append(row)
        part.tables.append(rows.take(pa.array(new, pa.int64())))
        if part.images is not None and len(part.places) >= part.images:
            table = pa.concat_tables(part.tables).sort_by("place")
            if not np.array_equal(table["place"].to_numpy(), np.arange(part.images)):
                error = f"{len(table)} rows came of {part.images} images, or of others"
                yield self._done(number, None, error)
            else:
                yield self._done(number, table.drop_columns([name for name, _ in FOLLOWED]), "")

    def _done(self, number: int, rows: pa.Table | None, error: str) -> Gathered:
        self._parts.pop(number, None)
        return Gathered(self._shards.pop(number), rows, error)
