"""The tab that compares photographs, and crops of them."""

from collections.abc import Iterator

import gradio as gr
from PIL import Image

from eat.data.crops import Crop
from eat.demo.events import AT_ONCE, QUEUED, gallery, guarded
from eat.demo.fragments import framed, paragraph, table
from eat.demo.photographs import Photograph, Studio
from eat.scoring import Comparison, compare, note_lines

WHOLE = "whole"
SHAPES = {"1:1": 1.0, "5:4": 5 / 4, "3:2": 3 / 2, "16:9": 16 / 9, "4:5": 4 / 5, "2:3": 2 / 3}
MOST = 24  # photographs and crops at a time


def compare_tab(studio: Studio, photographs: gr.State) -> None:
    """Choose photographs and crops of them, and see which is the best."""
    with gr.Row():
        chosen = gr.Dropdown([], multiselect=True, label="Photographs")
        shapes = gr.CheckboxGroup([WHOLE, *SHAPES], value=[WHOLE], label="Crops of each")
        place = gr.Slider(0, 100, 50, step=5, label="Where crops lie, % from the left or top")
    button = gr.Button("Compare", variant="primary", elem_id="compare")
    best_first = gallery("The best first", columns=4, height=300)
    result = gr.HTML()

    def offer(found: list[Photograph]) -> list[object]:
        choices = [(one.name, one.key) for one in found]
        return [gr.Dropdown(choices, value=[key for _, key in choices[:2]]), [], ""]

    @guarded
    def show(
        found: list[Photograph], keys: list[str], shapes: list[str], place: float
    ) -> tuple[list[tuple[Image.Image, str]], str]:
        wanted = {
            str(crop or one.file): (one, crop)
            for one in found
            if one.key in keys
            for crop in crops(one, shapes, place / 100)
        }
        if not 2 <= len(wanted) <= MOST:
            raise ValueError(f"{len(wanted)} photographs and crops: expected 2 to {MOST}")
        compared = compare(list(wanted), checkpoint=studio.scorer)
        best = [wanted[str(one.photo)] for one in compared.photographs]
        names = [named(*one) for one in best]
        cut = [thumbnail(*one) for one in best]
        return list(zip(cut, names, strict=True)), described(compared, names)

    photographs.change(offer, photographs, [chosen, best_first, result], **AT_ONCE)
    button.click(show, [photographs, chosen, shapes, place], [best_first, result], **QUEUED)


def crops(photo: Photograph, shapes: list[str], place: float) -> Iterator[Crop | None]:
    """The largest crops of a photograph in some shapes; None is the whole photograph.

    Args:
        place: of the crop in the photograph, from 0 (left, or top) to 1.
    """
    width, height = photo.size
    for shape in shapes:
        if shape == WHOLE:
            yield None
            continue
        wide = max(1, min(width, round(height * SHAPES[shape])))
        high = max(1, min(height, round(width / SHAPES[shape])))
        left, top = round((width - wide) * place), round((height - high) * place)
        yield Crop(photo.file, wide, high, left, top)


def named(photo: Photograph, crop: Crop | None) -> str:
    """A name for a photograph or crop."""
    return f"{photo.name}, {crop.width} x {crop.height}" if crop else photo.name


def thumbnail(photo: Photograph, crop: Crop | None) -> Image.Image:
    """A small picture of a photograph or crop."""
    with Image.open(photo.thumbnail) as small:
        if crop is None:
            return small.copy()
        scale = small.width / photo.size[0]
        left, top = round(scale * crop.left), round(scale * crop.top)
        width, height = (max(1, round(scale * side)) for side in (crop.width, crop.height))
        return small.crop((left, top, left + width, top + height))


def described(compared: Comparison, names: list[str]) -> str:
    """A comparison in numbers, and what they mean."""
    columns = {
        "": names,
        "score": [f"{one.score.score:.3f}" for one in compared.photographs],
        "behind the best": [f"{one.difference:.3f}" for one in compared.photographs],
        "95% interval": [
            "{:.2f} to {:.2f}".format(*one.interval) if one.interval else ""
            for one in compared.photographs
        ],
        "voters who prefer the best": [
            "" if one.superiority is None else f"{one.superiority:.0%}"
            for one in compared.photographs
        ],
    }
    columns = {head: cells for head, cells in columns.items() if any(cells)}
    notes = []
    if compared.voters:
        notes.append(f"The intervals are of {compared.voters} voters a photograph, if people vote "
                     "as predicted; they say nothing about the model's own error.")  # fmt: skip
    if compared.rmse is not None:
        notes.append(f"The model's own error is {compared.rmse:.2f} (RMSE).")
    read = (one.score.note for one in compared.photographs)
    notes += [*note_lines(zip(names, read, strict=True)), *(one.error for one in compared.failed)]
    return framed(
        table(columns, zip(*columns.values(), strict=True)),
        *(paragraph(text, "note") for text in notes),
    )
