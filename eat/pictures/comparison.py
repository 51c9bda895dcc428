"""Photographs side by side, the best first, with their votes and where the model looks."""

import math
from pathlib import Path

import torch

from eat.models.base import Record
from eat.pictures.page import shown
from eat.pictures.points import block_title, draw_block
from eat.pictures.saving import PRINT_DPI, check_picture, panel_height, save_figure
from eat.pictures.sheet import SMALL, Page, Verdict, draw_votes, read_photo, show
from eat.scoring import Comparison, Scorer
from eat.scoring.comparing import Compared
from eat.system.device import autocast

MOST = 12  # photographs in a picture
COLUMNS = 4
SIDE = 2.0  # width of a photograph in inches, as all below
GAP, TITLE, VOTES, FOOTER = 0.08, 0.3, 0.5, 0.2
NAME = 36  # characters of a name


def draw_comparison(found: Comparison, scorer: Scorer, picture: str | Path) -> None:
    """Draw compared photographs side by side, the best first, at most 12.

    Over each lie the points of the last block that samples positions, as ``draw_block`` draws them,
    if the model has such a block.

    Args:
        found: the comparison.
        scorer: that scored them.
        picture: whose suffix says the format.

    Raises:
        ImageError: a photograph cannot be read any more.
        ValueError: as ``check_picture``.
    """
    check_picture(picture)
    chosen, model = found.photographs[:MOST], scorer.model
    blocks = model.sampling_blocks()[-1:]
    scale = next(iter(scorer.scales.values()))
    columns = min(len(chosen), COLUMNS)
    rows, votes = math.ceil(len(chosen) / columns), VOTES * bool(scorer.num_votes)
    seen = [read_photo(model, scorer.info, one.photo, SIDE) for one in chosen]
    high = min(SIDE, max(panel_height(SIDE, one.image) for one in seen))  # upright ones shrink
    page = Page(columns * (SIDE + GAP) + GAP, rows * (TITLE + high + votes) + FOOTER)
    for place, (one, photo) in enumerate(zip(chosen, seen, strict=True)):
        row, column = divmod(place, columns)
        left = GAP + column * (SIDE + GAP)
        top = TITLE + row * (TITLE + high + votes)
        axis = page.axes(left, top, SIDE, high)
        axis.set_anchor("N")
        show(axis, photo.image)
        record: Record = {name: {} for name in blocks}
        if record:
            with torch.inference_mode(), autocast(scorer.device, scorer.precision):
                model.forward(photo.pixels, record)
        for name in blocks:
            tokens = model.map_side(name, scorer.info.preprocessing.size)
            draw_block(axis, photo.image, record[name], tokens)
        axis.set_title(title(one, found.target), fontsize=SMALL, pad=2, parse_math=False)
        if votes:
            verdict = Verdict("", one.score.score, one.score.votes)
            under = page.axes(left + 0.1 * SIDE, top + high + 0.05, 0.8 * SIDE, votes - 0.25)
            draw_votes(under, verdict, scale)
    if blocks:
        text = f"{block_title(blocks[0])}: its points (+), and circles where it looks, the larger "
        text += "the more attention"
        page.figure.text(0.5, 0.05 / page.height, text, ha="center", fontsize=SMALL)
    save_figure(page.figure, picture, dpi=PRINT_DPI)


def title(one: Compared, target: str) -> str:
    """A photograph's name, its score and the difference to the best, in two lines."""
    name = shown(one.score.image)
    name = name if len(name) <= NAME else f"...{name[3 - NAME :]}"
    line = f"{target} {one.score.score:.2f}"
    if one.difference:
        line += f", {one.difference:.2f} below"
    if one.interval is not None:
        line += " ({:.2f} to {:.2f})".format(*one.interval)
    return f"{name}\n{line}"
