"""What a gallery shows of each photograph, taken on its way through a scorer."""

import hashlib
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Resampling

from eat.data.colours import in_srgb
from eat.data.decoding import Decoded
from eat.models.base import Record
from eat.pictures.gallery.duplicates import difference_hash, group
from eat.pictures.page import is_page
from eat.pictures.points import attended_positions, on_photo
from eat.scoring import Score

MOST_POINTS = 64  # positions of a photograph, those with the most attention
THUMB = re.compile(r"[0-9a-f]{16}\.jpg")


@dataclass
class Photograph:
    """A photograph that has a score.

    Attributes:
        place: its own among the files given.
        score: on the scale of the page.
        votes: predicted shares, empty if the model predicts none.
        size: width and height of its thumbnail.
        group: number of its group of near-duplicates.
        points: (N, 3) positions x, y and their attention, in thousandths of the photograph's sides
            and of all attention; a position may lie outside.
        percentile: as ``Score.percentile``.
        note: as ``Score.note``.
        rated: what people say, on the scale of the page.
        rated_votes: shares of their votes.
        slices: numbers of the slices that it is in.
    """

    place: int
    file: Path
    score: float
    votes: tuple[float, ...]
    size: tuple[int, int]
    group: int
    points: NDArray[np.int16]
    percentile: float | None = None
    note: str = ""
    rated: float | None = None
    rated_votes: tuple[float, ...] = ()
    slices: list[int] = field(default_factory=list)

    @property
    def error(self) -> float:
        """By how much the model rates it higher than people do."""
        return self.score - (self.rated or 0)


@dataclass
class Collector:
    """Takes thumbnails, hashes and points of photographs from a scorer.

    Attributes:
        folder: of the thumbnails.
        side: longer side of a thumbnail in pixels.
        blocks: the block whose positions are kept; none of a model without.
        tokens: a side of that block's map.
    """

    folder: Path
    side: int
    blocks: Sequence[str] = ()
    tokens: int = 1
    sizes: dict[Path, tuple[int, int]] = field(default_factory=dict)
    hashes: dict[Path, int] = field(default_factory=dict)
    points: dict[Path, NDArray[np.int16]] = field(default_factory=dict)

    def decoded(self, file: Path, photo: Decoded) -> None:
        """Write a photograph's thumbnail, and keep the hash of it."""
        image = photo.image()
        shrink = min(1.0, self.side / max(image.size))
        width, height = (max(1, round(side * shrink)) for side in image.size)
        thumb = image.resize((width, height), Resampling.LANCZOS, reducing_gap=2)
        thumb = in_srgb(thumb, photo.transform)
        content = io.BytesIO()
        thumb.save(content, "JPEG", quality=80)
        (self.folder / thumb_name(file)).write_bytes(content.getvalue())
        self.sizes[file], self.hashes[file] = thumb.size, difference_hash(thumb)

    def attended(self, files: Sequence[Path], record: Record) -> None:
        """Keep the positions of each photograph with the most attention, of all heads."""
        for image, file in enumerate(files):
            positions, weights = attended_positions(record[self.blocks[0]], image)
            chosen = np.argsort(-weights, axis=None, kind="stable")[:MOST_POINTS]
            y, x = on_photo(positions.reshape(-1, 2)[chosen], self.tokens, 1000, 1000)
            share = 1000 * weights.ravel()[chosen] / weights.sum()
            found = np.stack((x, y, share), axis=1)
            self.points[file] = found.round().clip(-9999, 9999).astype(np.int16)

    def photographs(self, scores: Sequence[Score], near: int | None) -> list[Photograph]:
        """The photographs that have a score, in the order of the scores.

        Args:
            scores: of files that were seen here.
            near: bits in which hashes of near-duplicates differ at most; None groups none.
        """
        found = [(place, Path(score.image), score) for place, score in enumerate(scores)
                 if not score.error]  # fmt: skip
        hashes = np.array([self.hashes[file] for _, file, _ in found], np.uint64)
        groups = np.arange(len(found)) if near is None else group(hashes, near)
        none = np.empty((0, 3), np.int16)
        return [
            Photograph(place, file, score.score, score.votes, self.sizes[file], number,
                       self.points.get(file, none), score.percentile, score.note)
            for (place, file, score), number in zip(found, groups.tolist(), strict=True)
        ]  # fmt: skip


def thumb_name(file: Path) -> str:
    """A name of its own for each path, whatever the photograph is called."""
    return f"{hashlib.sha256(os.fsencode(file)).hexdigest()[:16]}.jpg"


def is_thumb(file: Path) -> bool:
    """Whether a photograph is a thumbnail of a page, which may lie among the photographs."""
    folder = file.parent
    named = folder.name == "thumbs" and THUMB.fullmatch(file.name)
    return bool(named) and is_page(folder.parent)
