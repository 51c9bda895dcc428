"""What the page shows of scores, as HTML. File names may hold anything: all text is escaped."""

from collections.abc import Iterable, Sequence
from html import escape

from eat.checkpoint import CheckpointInfo
from eat.data.registry import DATASETS
from eat.data.scales import ScoreScale
from eat.demo.photographs import Photograph, Studio
from eat.scoring import Scorer

STYLE = """
.eat h1 { font-size: 1.4rem; margin: 0; }
.eat h2 { font-size: 1.1rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
.eat p { margin: .2rem 0; }
.eat .score { font-size: 2rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.eat .note { opacity: .75; font-size: .9rem; }
.eat .faults { color: var(--error-text-color); overflow-wrap: anywhere; }
.eat svg { width: 100%; max-width: 30rem; display: block; }
.eat svg rect { fill: var(--color-accent); }
.eat svg text { fill: var(--body-text-color); font-size: 8px; text-anchor: middle; }
.eat table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.eat th, .eat td { text-align: right; padding: .15rem .8rem; border: 0 solid
  var(--border-color-primary); border-bottom-width: 1px; }
.eat th:first-child, .eat td:first-child { text-align: left; overflow-wrap: anywhere; }
:focus-visible { outline: 3px solid var(--color-accent); outline-offset: 1px; }
"""


def framed(*parts: str) -> str:
    """Parts of HTML under our style."""
    return f'<div class="eat">{"".join(parts)}</div>'


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>'


def sentence(text: str) -> str:
    """Words as a sentence of their own."""
    return f"{text[:1].upper()}{text[1:]}."


def about(studio: Studio) -> str:
    """What the page says of the model and of itself."""
    info, limits = studio.scorer.info, studio.options
    told = f"Model {info.model.name}, trained on {info.title}. {origin(info)}".strip()
    if limits.own_rule:
        told += " Each image is compared with copies of itself, by a rule of ours."
    bounds = (
        f"Photographs stay on the machine that runs this page, until it ends. At most "
        f"{limits.files} of {limits.megabytes:g} MB and {limits.megapixels:g} megapixels each."
    )
    notes = paragraph(told, "note"), paragraph(bounds, "note")
    return framed("<h1>EAT: scores of photographs</h1>", *notes)


def origin(info: CheckpointInfo) -> str:
    """What is to be known of a model's scores."""
    if info.title.startswith(DATASETS["sample"].title):  # also if adapted
        return "It learnt from drawn images and simulated votes: it says nothing about photographs."
    if info.released:
        return "The authors' model, with its own preprocessing."
    return ""


def faults(errors: Sequence[str], most: int = 10) -> str:
    """Why photographs have no score."""
    if not errors:
        return ""
    more = [f"and {len(errors) - most} more"] if len(errors) > most else []
    lines = (paragraph(text, "faults") for text in [*errors[:most], *more])
    return framed(paragraph("Not scored:", "faults"), *lines)


def described(photo: Photograph, scorer: Scorer) -> str:
    """A photograph's score in numbers and votes."""
    score = photo.score
    (name, scale), *_ = scorer.scales.items()
    parts = [f"<h2>{escape(photo.name)}</h2>"]
    value = f'<data class="score" value="{score.score:.6f}">{score.score:.2f}</data>'
    parts.append(f"<p>{value} of {scale.high:g}</p>")
    if score.note:
        parts.append(paragraph(sentence(score.note), "note"))
    if score.percentile is not None:
        among = scorer.info.ranked_among
        parts.append(paragraph(f"Better than {score.percentile:.0f}% of {among}."))
    if score.targets:
        rows = ((name, f"{value:.3f}") for name, value in score.targets.items())
        parts.append(table(["", "score"], rows))
    if score.votes:
        parts += [paragraph("Predicted votes", "note"), votes(score.votes, scorer.info.scale)]
    else:
        parts.append(paragraph("This model predicts no votes.", "note"))
    return framed(*parts)


def votes(shares: Sequence[float], scale: ScoreScale) -> str:
    """Vote shares as a chart, from the lowest score to the highest."""
    step = (scale.high - scale.low) / (len(shares) - 1)
    levels = [f"{scale.low + k * step:g}" for k in range(len(shares))]
    most, width = max(*shares, 1e-9), 200 / len(shares)
    bars = []
    for k, (level, share) in enumerate(zip(levels, shares, strict=True)):
        height, middle = 60 * max(share, 0) / most, (k + 0.5) * width
        bars.append(
            f'<rect x="{k * width + 0.5:.2f}" y="{72 - height:.2f}" width="{width - 1:.2f}" '
            f'height="{height:.2f}"></rect><text x="{middle:.2f}" y="82">{level}</text>'
            f'<text x="{middle:.2f}" y="{69 - height:.2f}">{share:.0%}</text>'
        )
    told = ", ".join(f"{n}: {share:.0%}" for n, share in zip(levels, shares, strict=True))
    return f'<svg viewBox="0 0 200 84" role="img" aria-label="votes {told}">{"".join(bars)}</svg>'


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of plain text."""

    def line(cells: Iterable[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"
