"""Scores as lines of text."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from eat.scoring.comparing import Comparison
from eat.scoring.scorer import Score
from eat.system.files import finite
from eat.system.words import printable


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
            have an error; "jsonl": one object a photograph: image and score, note and
            votes where there are; or image and error.
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
                if score.note:
                    entry["note"] = score.note
                if score.votes:
                    entry["votes"] = [round(share, 6) for share in score.votes]
            yield json.dumps(entry)


def csv_line(values: Iterable[str]) -> str:
    """Values as CSV, bytes of a file name that are no UTF-8 escaped by backslashes."""
    text = io.StringIO()
    csv.writer(text).writerow(values)  # of the usual line end, for whose sake it quotes CR and LF
    line = text.getvalue().removesuffix("\r\n")
    return line.encode(errors="backslashreplace").decode()


def note_lines(notes: Iterable[tuple[str, str]]) -> Iterator[str]:
    """What to know of how photographs were read, a line for each kind.

    Args:
        notes: a photograph and its ``Score.note``, which may be empty.
    """
    by_note: dict[str, list[str]] = {}
    for image, note in notes:
        if note:
            by_note.setdefault(note, []).append(image)
    for note, images in by_note.items():
        several = f"{len(images)} photographs, such as " if len(images) > 1 else ""
        yield f"{several}{printable(images[0])}: {note}"


def comparison_lines(
    found: Comparison, form: Literal["text", "csv", "jsonl", "json"]
) -> Iterator[str]:
    """A comparison as lines of text, each without its end.

    Args:
        found: the comparison.
        form: "text": a table for a terminal, and what its numbers mean; "csv": image, score,
            difference, standard_error, superiority, and v1..vK for vote shares; "jsonl": the same,
            one object a photograph, and image and error of those that failed; "json": one object.
    """
    rows = found.rows()
    failed = [{"image": score.image, "error": score.error} for score in found.failed]
    if form == "text":
        yield from (*_table(found), *_notes(found))
    elif form == "csv":
        votes = len(found.photographs[0].score.votes)
        names = [name for name in rows[0] if name != "votes"]
        yield csv_line([*names, *(f"v{k + 1}" for k in range(votes))])
        for row in rows:
            image, *numbers = (row[name] for name in names)
            cells = ("" if x is None else f"{x:.6f}" for x in (*numbers, *row.get("votes", ())))
            yield csv_line([image, *cells])
    elif form == "jsonl":
        yield from (json.dumps(finite(_rounded(row))) for row in [*rows, *failed])
    else:
        about = {"target": found.target, "voters": found.voters, "rmse": found.rmse}
        whole = _rounded(about | {"photographs": rows, "failed": failed})
        yield json.dumps(finite(whole), indent=2)


def _table(found: Comparison) -> Iterator[str]:
    best, *others = found.photographs
    head, blank = f"  {found.target[:10]:>10}{'below the best':>16}", ""
    if found.voters is not None:
        head += f"{'(95% interval)':>20}"
    if others[0].superiority is not None:
        head += f"{'prefer the best':>17}"
    yield head
    yield f"  {best.score.score:10.4f}{blank:{len(head) - 12}}  {printable(best.score.image)}"
    for one in others:
        line = f"  {one.score.score:10.4f}{one.difference:16.4f}"
        if one.interval is not None:
            line += "{:>20}".format("({:.4f} to {:.4f})".format(*one.interval))
        if one.superiority is not None:
            line += f"{one.superiority:17.1%}"
        yield f"{line}  {printable(one.score.image)}"


def _notes(found: Comparison) -> Iterator[str]:
    """What the numbers of the table mean."""
    if found.photographs[1].superiority is None:
        yield "  the model predicts no votes, which would say how much people disagree"
    elif found.voters is None:
        yield "  --voters N adds 95% intervals, of differences between the means of N votes"
    else:
        yield f"  95% interval: of the difference between the means of {found.voters} votes each"
    if found.rmse is not None:
        yield (f"  the model's own error comes on top: {found.rmse:.4f} (root mean square) on the "
               "split that chose its epoch")  # fmt: skip


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_rounded(entry) for entry in value]
    return round(value, 6) if isinstance(value, float) else value
