"""What processes do with a shard: read and decode it, and score its images."""

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch

from eat.bulk.gathering import rows_schema
from eat.bulk.reading import Item, ShardError, read_shard
from eat.bulk.shards import Shard
from eat.data.decoding import InMemory
from eat.data.photos import read_ahead
from eat.data.transforms import Preprocessing
from eat.scoring import Pixels, Scorer, read_pixels
from eat.system.words import brief

T = TypeVar("T")
Chunk = dict[str, Any]  # columns of images: lists, and pixels as uint8 (N, 3, size, size)


@dataclass(frozen=True)
class Decoder:
    """Reads and decodes shards for a model, which it does without.

    Attributes:
        preprocessing: of the model.
        chunk: images that are handed on at a time.
        threads: that decode.
        sha256: hash the images' bytes.
        column: as of ``read_shard``.
        key: as of ``read_shard``.
    """

    preprocessing: Preprocessing
    chunk: int = 64
    threads: int = 1
    sha256: bool = False
    column: str | None = None
    key: str | None = None

    def __call__(self, number: int, shard: Shard) -> Iterator[Chunk]:
        """Chunks of a shard's images, in order, and of a last row, which says how many there are.

        In place of an image that cannot be read stand an error and black pixels.
        """
        items = read_shard(shard, self.column, self.key)
        decoded = read_ahead(self._decode, items, threads=self.threads, ahead=2 * self.threads)
        rows: list[tuple[Item, str | None, Pixels]] = []
        count, error = 0, ""
        try:
            for item, (digest, pixels) in decoded:
                # Without the bytes, which would be kept beside the pixels.
                rows.append((Item(item.key, item.url), digest, pixels))
                if len(rows) == self.chunk:
                    yield self._columns(number, count, rows)
                    count += len(rows)
                    rows = []
        except ShardError as problem:
            rows, error = [], str(problem)
        last = Item("", None), None, Pixels(None, error)
        yield self._columns(number, count, [*rows, last], end=True)

    def _decode(self, item: Item) -> tuple[str | None, Pixels]:
        digest = hashlib.sha256(item.content).hexdigest() if self.sha256 and item.content else None
        if item.error:
            return digest, Pixels(None, item.error)
        return digest, read_pixels(InMemory(item.key, item.content), self.preprocessing)

    def _columns(
        self,
        number: int,
        first: int,
        rows: list[tuple[Item, str | None, Pixels]],
        end: bool = False,
    ) -> Chunk:
        size, count = self.preprocessing.size, len(rows)
        pixels = np.zeros((count, 3, size, size), np.uint8)
        for i, (_, _, read) in enumerate(rows):
            if read.pixels is not None:
                pixels[i] = read.pixels.numpy()
        return {
            "number": np.full(count, number),
            "place": np.arange(first, first + count),
            "end": np.arange(count) == (count - 1 if end else count),
            "key": [_as_utf8(item.key) for item, _, _ in rows],
            "url": [_as_utf8(item.url or "") for item, _, _ in rows],
            "sha256": [digest or "" for _, digest, _ in rows],
            "error": [_as_utf8(read.error) for _, _, read in rows],
            "note": [read.note for _, _, read in rows],
            "pixels": pixels,
        }


def _as_utf8(text: str) -> str:
    """A text with bytes of a file name that are no UTF-8 escaped by backslashes."""
    return text.encode(errors="backslashreplace").decode()


class ChunkScorer:
    """Scores chunks, and measures how long the model worked and waited.

    Args:
        scorer: the model.
        name: of this one among others.
    """

    def __init__(self, scorer: Scorer, name: str) -> None:
        self.scorer, self.name = scorer, name
        self._schema = rows_schema([*scorer.scales])
        self._idle_since = time.monotonic()

    def __call__(self, chunk: Chunk) -> pa.Table:
        """Rows of a chunk, as ``Gathering`` takes them; its shards end if the model fails."""
        try:
            return self._rows(chunk)
        except Exception as error:  # of which Ray would tell nobody
            told = {"place": 0, "end": True, "error": f"the model has failed: {brief(error)}"}
            rows = [{"number": n, "model": self.name} | told for n in np.unique(chunk["number"])]
            return pa.Table.from_pylist(rows, schema=self._schema)

    def _rows(self, chunk: Chunk) -> pa.Table:
        start = time.monotonic()
        marks = list(zip(chunk["key"], chunk["error"], chunk["end"], strict=True))
        read = (
            (InMemory(key, None), Pixels(None if error or end else torch.from_numpy(image), error))
            for (key, error, end), image in zip(marks, chunk["pixels"], strict=True)
        )
        scores = list(self.scorer.score_pixels(read))
        worked, waited = time.monotonic() - start, start - self._idle_since
        rows = [
            {
                "key": key,
                "score": None if score.error else score.score,
                "votes": None if score.error else score.votes,
                "percentile": score.percentile,
                "error": (error if end else score.error) or None,
                "model": self.name,
                "worked": worked / len(scores),
                "waited": waited / len(scores),
            } | score.targets
            for (key, error, end), score in zip(marks, scores, strict=True)
        ]  # fmt: skip
        for name in ("number", "place", "end"):
            for row, value in zip(rows, chunk[name], strict=True):
                row[name] = value
        for name in ("url", "sha256", "note"):
            for row, value in zip(rows, chunk[name], strict=True):
                row[name] = value or None
        self._idle_since = time.monotonic()
        return pa.Table.from_pylist(rows, schema=self._schema)


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The items, each made by a thread while the one before it is in use."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item
