"""What a call of bulk scoring did, and what lies in the folder of scores after it."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from eat.bulk.output import Counts

MOST_FAILED, MOST_CALLS = 1000, 100  # that a summary names


@dataclass
class Total:
    """Shards, their images, and how many of these have an error in the place of a score."""

    shards: int = 0
    images: int = 0
    errors: int = 0

    def add(self, counts: Counts) -> None:
        """Add a shard."""
        self.shards += 1
        self.images += counts.images
        self.errors += counts.errors


@dataclass
class Tally:
    """Counts of a call.

    Attributes:
        todo: shards that were not finished when it began.
        skipped: of shards that were.
        done: of those that it finished.
        failed: why shards could not be read, by their places.
        models: names of the processes that ran the model.
        worked: their seconds of work.
        waited: their seconds of waiting for images.
    """

    todo: int = 0
    skipped: Total = field(default_factory=Total)
    done: Total = field(default_factory=Total)
    failed: dict[str, str] = field(default_factory=dict)
    models: set[str] = field(default_factory=set)
    worked: float = 0.0
    waited: float = 0.0
    start: float = field(default_factory=time.time)

    def add_times(self, block: pa.Table) -> None:
        """Take the times that rows of ``Gathering`` carry."""
        self.models |= {*pc.unique(block["model"]).to_pylist()}
        self.worked += pc.sum(block["worked"]).as_py() or 0.0
        self.waited += pc.sum(block["waited"]).as_py() or 0.0

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.done.images / (time.time() - self.start)

    @property
    def left(self) -> int:
        """Shards that were not come to."""
        return self.todo - self.done.shards - len(self.failed)

    def words(self, place: str) -> str:
        """What the call did, in a line."""
        skipped = f", {self.skipped.shards} were there" if self.skipped.shards else ""
        errors = self.skipped.errors + self.done.errors
        images = self.skipped.images + self.done.images
        return (f"{place}: {self.done.shards} shards done{skipped}, {len(self.failed)} not read; "
                f"{images} images: {images - errors} scored, {errors} with an error; "
                f"{self.rate:.1f} images/s")  # fmt: skip

    def summary(self, before: Mapping[str, Any]) -> dict[str, Any]:
        """The content of the summary.

        Args:
            before: that of the calls before.
        """
        seconds = time.time() - self.start
        models = max(len(self.models), 1)
        call = {
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.start)),
            "seconds": round(seconds, 1),
            **asdict(self.done),
            "shards_skipped": self.skipped.shards,
            "shards_failed": len(self.failed),
            "shards_left": self.left,
            "images_per_second": round(self.done.images / seconds, 2),
            "models": models,
            "images_per_second_per_model": round(self.done.images / seconds / models, 2),
            "waiting": round(self.waited / ((self.waited + self.worked) or 1), 4),
        }
        images = self.skipped.images + self.done.images
        errors = self.skipped.errors + self.done.errors
        calls = before.get("calls")
        return {
            "images": images,
            "scored": images - errors,
            "errors": errors,
            "shards": self.skipped.shards + self.done.shards,
            "failed": dict(list(self.failed.items())[:MOST_FAILED]),
            "calls": [*(calls if isinstance(calls, list) else []), call][-MOST_CALLS:],
        }
