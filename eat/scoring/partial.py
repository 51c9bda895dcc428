"""Scores that outlive the process that made them."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eat.data.transforms import Photo
from eat.scoring.lines import csv_line
from eat.scoring.scorer import Score
from eat.system.files import append_line, cut_torn_line, finite, json_object, refuse_foreign
from eat.system.stops import Interrupted, interruptible, number_of
from eat.system.words import changes


class PartialScores:
    """The scores so far for a file that is under way. They outlive the process in FILE.partial.

    Its first line holds the settings, and each further one a score, as JSON, in every digit.

    Args:
        out: FILE.
        settings: of the scorer.
        resume: go on from what is there.
        targets: as in ``score_lines``.

    Attributes:
        done: images that are not to be scored again.

    Raises:
        ValueError: FILE is there and holds no scores; or FILE.partial is there and ``resume`` is
            not set, or it is damaged or has other settings.
        OSError: FILE.partial cannot be written.
    """

    def __init__(
        self,
        out: str | Path,
        settings: dict[str, Any],
        *,
        resume: bool = False,
        targets: Sequence[str] = ("score",),
    ) -> None:
        refuse_foreign(out, csv_line(["image", *targets]).encode(), b'{"image": "')
        self.path = Path(f"{out}.partial")
        if self.path.exists():
            if not resume:
                raise ValueError(
                    f"{self.path} holds the scores of a call that was interrupted, or still runs: "
                    "go on from them with --resume true, or delete it"
                )
            cut_torn_line(self.path)
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.open("xb").close()
        if self.path.stat().st_size == 0:
            append_line(self.path, json.dumps(settings))
        if changed := changes(self._settings(), settings):
            raise ValueError(
                f"{self.path} holds scores with other settings: {changed}; take the same to go on, "
                "or delete it"
            )
        self.done = {score.image for score in self}

    def _settings(self) -> dict[str, Any]:
        with self.path.open(encoding="ascii", errors="replace") as file:
            try:
                return json_object(file.readline())
            except ValueError:
                return {}

    def __iter__(self) -> Iterator[Score]:
        """The scores in the order in which they were added."""
        seen: set[str] = set()
        with self.path.open(encoding="ascii", errors="replace") as file:
            next(file)
            for number, line in enumerate(file, start=2):
                score = _read_partial(line)
                if score is None or score.image in seen:
                    raise ValueError(
                        f"{self.path}, line {number}: damaged; delete the file and score all again"
                    )
                seen.add(score.image)
                yield score

    def missing(self, files: Iterable[Photo]) -> list[Photo]:
        """The files without a score here.

        Raises:
            ValueError: there are scores of other files.
        """
        names = {str(file): file for file in files}
        others = self.done - names.keys()
        if others:
            raise ValueError(
                f"{self.path} holds scores of {len(others)} images that are not among those given, "
                f"such as {min(others)}: give the same images to go on, or delete it"
            )
        return [file for name, file in names.items() if name not in self.done]

    def extend(self, scores: Iterable[Score]) -> None:
        """Add scores as they come.

        Raises:
            Interrupted: by a signal, between two of them.
        """
        try:
            for score in interruptible(scores):
                append_line(self.path, json.dumps(finite(asdict(score))))
                self.done.add(score.image)
        except KeyboardInterrupt as stop:
            raise Interrupted(
                number_of(stop),
                f"{len(self.done)} images; their scores are kept in {self.path}: continue "
                "with --resume true",
            ) from None


def _read_partial(line: str) -> Score | None:
    """The score that a line was made of; None for a line that was made of none."""
    try:
        row = {"targets": {}, "percentile": None, "note": ""} | json_object(line)
        value = float("nan") if row["score"] is None else float(row["score"])
        votes = tuple(map(float, row["votes"]))
        targets = {name: float(one) for name, one in row["targets"].items()}
        rank = None if row["percentile"] is None else float(row["percentile"])
        words = {name: str(row[name]) for name in ("image", "error", "note")}
        score = Score(score=value, votes=votes, targets=targets, percentile=rank, **words)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return None
    return score if finite(asdict(score)) == row else None
