"""The page: where photographs are dropped, and tabs of what can be done with them."""

from pathlib import Path
from typing import Any

import gradio as gr

from eat.demo.compare import compare_tab
from eat.demo.events import AT_ONCE, QUEUED, gallery, guarded, picture
from eat.demo.fragments import about, described, faults
from eat.demo.photographs import Photograph, Studio
from eat.demo.taste import taste_tab

DAY = 24 * 3600


def make_page(studio: Studio) -> gr.Blocks:
    """The page of a studio."""
    with gr.Blocks(title="EAT", analytics_enabled=False, delete_cache=(3600, DAY)) as page:
        photographs = gr.State([])
        gr.HTML(about(studio))
        files = gr.File(file_count="multiple", label="Photographs", height=150)
        notes = gr.HTML()
        with gr.Tab("Score"):
            score_tab(studio, photographs)
        with gr.Tab("Compare"):
            compare_tab(studio, photographs)
        with gr.Tab("My taste"):
            taste_tab(studio, photographs)

        @guarded
        def take(
            given: list[str] | None,
            known: list[Photograph],
            progress: gr.Progress = gr.Progress(),  # noqa: B008  as Gradio hands it in
        ) -> tuple[list[Photograph], str]:
            paths = map(Path, given or [])
            found, errors = studio.score(paths, known, lambda k, n: progress((k, n), unit="photo"))
            return found, faults(errors)

        files.change(take, [files, photographs], [photographs, notes], **QUEUED)
    page.queue(max_size=64, api_open=False)
    return page


def score_tab(studio: Studio, photographs: gr.State) -> None:
    """Photographs by their scores, and all that is known of the chosen one."""
    model = studio.scorer.model
    with gr.Row():
        with gr.Column(scale=3):
            best_first = gallery("The best first; choose one", columns=3, height=620)
        with gr.Column(scale=2, min_width=320):
            photo = gr.Image(show_label=False, interactive=False, height=280, buttons=[])
            score = gr.HTML()
    drawn = []
    if model.sampling_blocks():
        drawn.append((studio.points, "Where the model looks"))
    if model.map_blocks():
        drawn.append((studio.saliency, "What the score comes from"))
    shown = [picture(title) for _, title in drawn]
    chosen = gr.State()

    def show_all(found: list[Photograph]) -> list[Any]:
        captions = [f"{one.score.score:.2f}  {one.name}" for one in found]
        thumbnails = (str(one.thumbnail) for one in found)
        pictures = gr.Gallery(list(zip(thumbnails, captions, strict=True)), selected_index=None)
        return [pictures, None, "", *(None for _ in shown)]

    @guarded
    def choose(found: list[Photograph], event: gr.SelectData) -> list[Any]:
        if event.index >= len(found):
            raise ValueError("this photograph is no longer there")
        one = found[event.index]
        return [one, str(one.thumbnail), described(one, studio.scorer), *(None for _ in shown)]

    @guarded
    def draw(one: Photograph | None) -> list[str | None]:
        return [str(make(one)) if one else None for make, _ in drawn]

    everything = [best_first, photo, score, *shown]
    photographs.change(show_all, photographs, everything, **AT_ONCE)
    select = best_first.select(choose, photographs, [chosen, photo, score, *shown], **AT_ONCE)
    if drawn:
        select.then(draw, chosen, shown, **QUEUED)
