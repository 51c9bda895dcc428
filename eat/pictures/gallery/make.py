"""From photographs to a gallery's folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from eat.data.photos import find_images
from eat.pictures.gallery.photographs import Collector, Photograph, is_thumb, thumb_name
from eat.pictures.gallery.ratings import Ratings
from eat.pictures.page import link, new_page, shown, write_data
from eat.pictures.points import block_title
from eat.scoring import Scorer
from eat.system.schema import check_range
from eat.system.stops import interruptible
from eat.version import __version__

ASSETS = ("gallery.body", "page.css", "gallery.css", "page.js", "charts.js", "grid.js",
          "detail.js", "gallery.js")  # fmt: skip
CHUNK = 1000  # photographs a file of what the grid shows; the first file is shown at once
DETAILS = 250  # photographs a file of what one shows when it is opened
MOST_NEAR = 16


@dataclass
class Gallery:
    """A gallery that was made.

    Attributes:
        page: its index.html.
        photographs: number of those shown.
        groups: number of groups of near-duplicates, single photographs included.
        errors: photographs that are not shown, and why.
        notes: photographs that are shown, and what was read of them in part, if anything.
    """

    page: Path
    photographs: int
    groups: int
    errors: list[str]
    notes: list[tuple[str, str]]


def make_gallery(
    scorer: Scorer,
    paths: Sequence[str],
    ratings: Ratings | None = None,
    *,
    out: str | Path,
    near: int | None = 4,
    thumbnail: int = 320,
) -> Gallery:
    """Score photographs and make a page of them.

    Args:
        scorer: with ratings, on the scale that its model was trained on.
        paths: files, folders and patterns; with ratings, the folder of their images.
        ratings: of the photographs to show.

    The others are documented at ``eat.config.pictures.GalleryOptions``.

    Raises:
        ValueError: an option is out of range, no photograph can be scored, or ``out`` is there and
            no page of ours.
    """
    check_range("thumbnail", thumbnail, 32, 2048)
    check_range("near", near, 0, MOST_NEAR)
    if ratings is None:
        files = [file for file in find_images(paths) if not is_thumb(file)]
    else:
        files = [Path(paths[0], name) for name in ratings.table["image"]]
    with new_page(out, ASSETS) as folder:
        (folder / "thumbs").mkdir()
        collector = Collector(folder / "thumbs", thumbnail)
        collector.blocks = scorer.model.sampling_blocks()[-1:]
        for block in collector.blocks:
            collector.tokens = scorer.model.map_side(block, scorer.info.preprocessing.size)
        found = interruptible(scorer.score_files(files, collector))
        scores = list(tqdm(found, "score", len(files), unit="photo", disable=None))
        photographs = collector.photographs(scores, near)
        errors = [score.error for score in scores if score.error]
        if not photographs:
            raise ValueError(f"no photograph could be scored: {errors[0] if errors else 'none'}")
        about = describe(scorer, paths) | {"errors": list(map(shown, errors)), "rated": None}
        about["block"] = next(map(block_title, collector.blocks), None)
        if ratings is None:
            photographs.sort(key=lambda one: -one.score)
        else:
            about["rated"] = ratings.add_to(photographs, scorer.info.scales[ratings.target])
            about |= {"low": ratings.scale.low, "high": ratings.scale.high}
        write_photographs(folder, Path(out), photographs, about)
    groups = len({one.group for one in photographs})
    notes = [(score.image, score.note) for score in scores if score.note]
    return Gallery(Path(out, "index.html"), len(photographs), groups, errors, notes)


def describe(scorer: Scorer, paths: Sequence[str]) -> dict[str, Any]:
    """What a page says of the photographs' folders and of the model; of targets the first."""
    scale = next(iter(scorer.scales.values()))
    return {
        "title": ", ".join(map(shown, paths)),
        "version": __version__,
        "model": scorer.info.model.name,
        "checkpoint": shown(scorer.checkpoint.name),
        "trained_on": scorer.info.title,
        "low": scale.low,
        "high": scale.high,
        "upright": scorer.info.preprocessing.upright,
        "ranked_among": scorer.info.ranked_among if scorer.info.score_quantiles else None,
    }


def write_photographs(
    folder: Path, page: Path, photographs: Sequence[Photograph], about: dict[str, Any]
) -> None:
    """Write what a page shows.

    Args:
        folder: of the page, while it is made.
        page: its folder in the end.
        photographs: in the order in which they are shown at first.
        about: what is said of all of them.
    """
    parents = sorted({one.file.parent for one in photographs})
    folders = {parent: number for number, parent in enumerate(parents)}
    about |= {"count": len(photographs), "chunk": CHUNK, "details": DETAILS}
    about["folders"] = [shown(parent.as_posix()) for parent in parents]
    write_data(folder, "page", about)
    cells = [cell(one, folders) for one in photographs]
    details = [detail(one, page) for one in photographs]
    for name, rows, size in (("photographs", cells, CHUNK), ("details", details, DETAILS)):
        for first in range(0, len(rows), size):
            write_data(folder, f"{name}-{first // size}", rows[first : first + size])


def cell(one: Photograph, folders: dict[Path, int]) -> list[Any]:
    """What the grid shows of a photograph, in the order in which gallery.js reads it."""
    shown_file = [shown(one.file.name), folders[one.file.parent], thumb_name(one.file), *one.size]
    rank = None if one.percentile is None else round(one.percentile, 2)
    scores = [round(one.score, 6), one.group, rank]
    return shown_file + scores + ([] if one.rated is None else [round(one.rated, 6), one.slices])


def detail(one: Photograph, page: Path) -> list[Any]:
    """What a photograph shows when it is opened, in the order in which detail.js reads it."""
    votes = ([round(share, 4) for share in shares] for shares in (one.votes, one.rated_votes))
    return [link(one.file, page), one.points.ravel().tolist(), *votes, one.note]
