"""Scores as lines of text."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from eat.scoring.scorer import Score


def score_lines(
    scores: Iterable[Score],
    num_votes: int,
    form: Literal["csv", "jsonl"],
    targets: Sequence[str] = ("score",),
    percentile: bool = False,
) -> Iterator[str]:
    """Scores as lines of text, each without its end.

    Args:
        num_votes: vote shares of each score.
        form: "csv": image, score, and v1..vK for the vote shares, without the photographs that
            have an error; "jsonl": one object a photograph: image, score, votes where there are, or
            image and error.
        targets: of the model, whose names then stand in the place of score.
        percentile: give it after the scores.
    """
    targets = [*targets, *(["percentile"] if percentile else [])]
    if form == "csv":
        yield csv_line(["image", *targets, *(f"v{k + 1}" for k in range(num_votes))])
    for score in scores:
        values = score.targets or {"score": score.score}
        if percentile and score.percentile is not None:
            values = values | {"percentile": score.percentile}
        if form == "csv" and not score.error:
            yield csv_line([score.image, *(f"{x:.6f}" for x in (*values.values(), *score.votes))])
        elif form == "jsonl":
            entry: dict[str, object] = {"image": score.image}
            if score.error:
                entry["error"] = score.error
            else:
                entry |= {name: round(value, 6) for name, value in values.items()}
                if score.votes:
                    entry["votes"] = [round(share, 6) for share in score.votes]
            yield json.dumps(entry)


def csv_line(values: Iterable[str]) -> str:
    """Values as CSV, bytes of a file name that are no UTF-8 escaped by backslashes."""
    text = io.StringIO()
    csv.writer(text).writerow(values)  # of the usual line end, for whose sake it quotes CR and LF
    line = text.getvalue().removesuffix("\r\n")
    return line.encode(errors="backslashreplace").decode()
