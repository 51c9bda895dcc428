"""The tab where a visitor rates photographs or chooses of two, and gets a personal model."""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import gradio as gr
import pandas as pd
from gradio.events import Dependency

from eat.demo.events import AT_ONCE, QUEUED, guarded
from eat.demo.fragments import framed, paragraph, sentence
from eat.demo.photographs import Photograph, Studio
from eat.personal.own import adapt

LOW, HIGH = 1, 5
Ratings = dict[str, int]  # of photographs, by their keys
Choices = list[tuple[str, str]]  # keys of the winner and the loser
Naming = Callable[[Photograph], str]
# The keys 1 to 5 press the buttons that bear them, unless a field of text has the focus.
KEYS = """<script>
addEventListener("keydown", (event) => {
  const held = event.ctrlKey || event.altKey || event.metaKey;
  if (held || event.target.closest("input, textarea")) return;
  const button = document.getElementById(`rate-${event.key}`);
  if (button?.checkVisibility()) button.click();
});
</script>"""


def taste_tab(studio: Studio, photographs: gr.State) -> None:
    """Two ways to tell one's taste, and the model that each makes."""
    gr.HTML(framed(paragraph(
        "Your model is the one of this page, fitted to what you say here. Whether it is better is "
        "measured on photographs that it was not fitted to. eat adapt takes the CSV too.", "note"
    )))  # fmt: skip
    with gr.Tab("Rate"):
        ratings = gr.State({})
        said = rate_part(photographs, ratings)
        model_part(studio, photographs, ratings, said, ratings_table, "ratings.csv")
    with gr.Tab("Choose of two"):
        choices = gr.State([])
        said = choose_part(photographs, choices)
        model_part(studio, photographs, choices, said, choices_table, "choices.csv")


def rate_part(photographs: gr.State, ratings: gr.State) -> list[Dependency]:
    """One photograph after the other, to be rated by a button or a key; the events of a rating."""
    current = gr.State()
    photo = gr.Image(show_label=False, interactive=False, height=340, buttons=[])
    status = gr.HTML()
    with gr.Row():
        words = {LOW: " (dislike)", HIGH: " (love)"}
        values = range(LOW, HIGH + 1)
        buttons = [
            gr.Button(f"{k}{words.get(k, '')}", elem_id=f"rate-{k}", min_width=60) for k in values
        ]
        skip = gr.Button("Skip", min_width=60)
    turn = [current, photo, status]

    def show(found: list[Photograph], rated: Ratings, after: Photograph | None) -> list[Any]:
        one = next_to_rate(found, rated, after)
        count = sum(photo.key in rated for photo in found)
        told = f"{count} of {len(found)} rated"
        return [one, one and str(one.thumbnail), framed(paragraph(told))]

    def rate(value: int) -> Callable[..., list[Any]]:
        def rated(found: list[Photograph], before: Ratings, one: Photograph | None) -> list[Any]:
            now = before | ({one.key: value} if one else {})
            return [now, *show(found, now, one)]

        return rated

    given = [photographs, ratings, current]
    photographs.change(show, given, turn, **AT_ONCE)
    skip.click(show, given, turn, **AT_ONCE)
    return [
        button.click(rate(value), given, [ratings, *turn], **AT_ONCE)
        for value, button in zip(values, buttons, strict=True)
    ]


def next_to_rate(
    found: list[Photograph], rated: Ratings, after: Photograph | None
) -> Photograph | None:
    """The next photograph without a rating; in an order that says nothing about the scores."""
    last = after.key if after else ""
    missing = [one for one in found if one.key not in rated]
    return min(missing, key=lambda one: (one.key <= last, one.key), default=None)


def choose_part(photographs: gr.State, choices: gr.State) -> list[Dependency]:
    """Two photographs after the other two, one of which is preferred; the events of a choice."""
    pair = gr.State([])
    with gr.Row():
        photos, buttons = [], []
        for word in ("Left", "Right"):
            with gr.Column():
                photos.append(gr.Image(show_label=False, interactive=False, height=340, buttons=[]))
                buttons.append(gr.Button(word))
    skip = gr.Button("Skip")
    status = gr.HTML()
    turn = [pair, *photos, status]

    def show(found: list[Photograph], chosen: Choices) -> list[Any]:
        two = next_pair(found, chosen)
        pictures: list[str | None] = [str(one.thumbnail) for one in two]
        return [two, *(pictures or [None, None]), framed(paragraph(f"{len(chosen)} choices"))]

    def choose(side: int) -> Callable[..., list[Any]]:
        def chosen(found: list[Photograph], before: Choices, two: list[Photograph]) -> list[Any]:
            now = [*before, (two[side].key, two[1 - side].key)] if two else before
            return [now, *show(found, now)]

        return chosen

    photographs.change(show, [photographs, choices], turn, **AT_ONCE)
    skip.click(show, [photographs, choices], turn, **AT_ONCE)
    return [
        button.click(choose(side), [photographs, choices, pair], [choices, *turn], **AT_ONCE)
        for side, button in enumerate(buttons)
    ]


def next_pair(found: list[Photograph], chosen: Choices) -> list[Photograph]:
    """Two photographs that were not yet beside each other, drawn from those seen least."""
    times = Counter(key for pair in chosen for key in pair)
    seen = {frozenset(pair) for pair in chosen}
    order = sorted(found, key=lambda one: (times[one.key], random.random()))
    pairs = ([a, b] for i, a in enumerate(order) for b in order[i + 1 :]
             if frozenset((a.key, b.key)) not in seen)  # fmt: skip
    return next(pairs, [])


def ratings_table(found: list[Photograph], ratings: Ratings, name: Naming) -> pd.DataFrame:
    """Ratings of the photographs that are still there."""
    rows = [(name(one), ratings[one.key]) for one in found if one.key in ratings]
    return pd.DataFrame(rows, columns=["image", "score"])


def choices_table(found: list[Photograph], choices: Choices, name: Naming) -> pd.DataFrame:
    """Choices between photographs that are still there."""
    names = {one.key: name(one) for one in found}
    rows = [[names[key] for key in pair] for pair in choices if names.keys() >= {*pair}]
    return pd.DataFrame(rows, columns=["winner", "loser"])


def model_part(
    studio: Studio,
    photographs: gr.State,
    opinions: gr.State,
    said: list[Dependency],
    as_table: Callable[[list[Photograph], Any, Naming], pd.DataFrame],
    file: str,
) -> None:
    """Opinions as a CSV to download, and the model that they make.

    Args:
        opinions: so far.
        said: the events of a further opinion.
    """
    with gr.Row():
        download = gr.DownloadButton(f"Download {file}", interactive=False)
        make = gr.Button("Make my model", variant="primary", elem_id=f"make-{Path(file).stem}")
    evidence = gr.HTML()
    model = gr.DownloadButton("Download me.safetensors", visible=False)

    def write(found: list[Photograph], opinions: Any) -> gr.DownloadButton:
        table = as_table(found, opinions, lambda one: one.name)
        path = Path(mkdtemp(dir=studio.folder), file)
        table.to_csv(path, index=False)
        return gr.DownloadButton(value=str(path), interactive=len(table) > 0)

    @guarded
    def fit(found: list[Photograph], opinions: Any) -> tuple[str, gr.DownloadButton]:
        options = studio.options
        made = adapt(
            as_table(found, opinions, lambda one: str(one.file)),
            checkpoint=options.checkpoint,
            out=Path(mkdtemp(dir=studio.folder), "me.safetensors"),
            low=LOW,
            high=HIGH,
            **{name: getattr(options, name) for name in ("model", "general", "device")},
        )
        lines = [paragraph(sentence(text)) for text in (made.words(), *made.notes)]
        needs = f"It is used like any checkpoint, and needs {studio.scorer.checkpoint.name}."
        lines.append(paragraph(needs, "note"))
        return framed(*lines), gr.DownloadButton(value=str(made.out), visible=True)

    for event in said:
        event.then(write, [photographs, opinions], download, **AT_ONCE)
    make.click(fit, [photographs, opinions], [evidence, model], **QUEUED)
