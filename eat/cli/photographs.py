"""The commands that take photographs: what each calls, and what it prints."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from typing import TYPE_CHECKING

from eat.cli.errors import FAILED
from eat.config.commands import CompareOptions, ScoreOptions, Sidecars
from eat.config.demo import DemoOptions
from eat.config.pictures import GalleryOptions, PointsOptions, SaliencyOptions
from eat.system.schema import check_range
from eat.system.stops import interruptible

if TYPE_CHECKING:
    from eat.checkpoint import CheckpointInfo
    from eat.scoring import Score


OF_RAY = ("engine", "address", "actors", "shard_size", "image_column", "key_column", "sha256")
OF_LOCAL = ("format", "sort", "top", "xmp", "resume")  # options of eat score


def run_score(images: list[str], options: ScoreOptions) -> int:
    """Score photographs. Exit code 1 if some could not be scored."""
    check_engine(images, options)
    if options.engine == "ray":
        return run_bulk(images, options)
    from eat.data.photos import find_photos
    from eat.scoring import PartialScores, Scorer, score_lines

    given = {name: value for name, value in asdict(options).items() if name not in OF_RAY}
    form, out, resume = (given.pop(name) for name in ("format", "out", "resume"))
    sort, top, xmp = (given.pop(name) for name in ("sort", "top", "xmp"))
    if xmp and not options.percentile:
        given["percentile"] = None  # stars are by percentiles where the checkpoint knows them
    check_range("top", top, 1)
    if resume and out is None:
        raise ValueError("--resume goes on with a file: give the same --out as before")
    scorer = Scorer(**given)
    announce(scorer.info, own_rule=options.own_rule)
    if options.percentile:
        sys.stderr.write(f"percentile: among {scorer.info.ranked_among}\n")
    failed: list[Score] = []
    kept: list[Score] = []  # for the sidecars
    notes: list[tuple[str, str]] = []

    def watched(scores: Iterable["Score"]) -> Iterator["Score"]:
        for score in scores:
            if score.error:
                failed.append(score)
            elif score.note:
                notes.append((score.image, score.note))
            if xmp:
                kept.append(score)
            yield score

    def write(scores: Iterable["Score"]) -> None:
        chosen = watched(scores)
        if sort or top is not None:
            chosen = iter(sorted(chosen, key=best_first)[:top])
        targets = [*scorer.scales]
        lines = score_lines(chosen, scorer.num_votes, form, targets, options.percentile)
        write_lines(lines, out)

    files = find_photos(images)
    if out is None:
        write(interruptible(scorer.score_files(files)))
    else:
        partial = PartialScores(out, scorer.settings(), resume=resume, targets=[*scorer.scales])
        partial.extend(scorer.score_files(partial.missing(files)))
        write(partial)
        partial.path.unlink()
    tell_notes("score", notes)
    for score in failed:
        sys.stderr.write(f"eat score: not scored: {score.error}\n")
    rated = not xmp or write_sidecars(kept, xmp, scorer.info)
    return 0 if rated and not failed else FAILED


def check_engine(things: list[str], options: ScoreOptions) -> None:
    """Refuse options and things that the engine does not take."""
    other, engine = (OF_LOCAL, "local") if options.engine == "ray" else (OF_RAY, "ray")
    for item in fields(options):
        if item.name in other and getattr(options, item.name) != item.default:
            more = ": the same call goes on by itself" if item.name == "resume" else ""
            raise ValueError(f"--{item.name} is for --engine {engine} alone{more}")
    if options.engine == "ray":
        return
    from eat.bulk.places import KINDS
    from eat.bulk.shards import LIST, PARQUET, TARS

    stores = tuple(f"{kind}://" for kind in KINDS)
    for thing in things:
        if thing.lower().endswith((*TARS, PARQUET, LIST)) or thing.startswith(stores):
            raise ValueError(f"{thing}: no photograph: --engine ray takes tars, Parquet files, "
                             "lists and what lies in a store")  # fmt: skip


def run_bulk(things: list[str], options: ScoreOptions) -> int:
    """Score shards by Ray. Exit code 1 if some could not be read."""
    try:
        from eat.bulk.engine import score_in_bulk
    except ModuleNotFoundError as absent:
        raise ValueError(
            f"--engine ray needs the package {absent.name}: pip install 'eat-iaa[ray]'"
        ) from absent
    from eat.checkpoint import read_info

    announce(read_info(options.checkpoint), own_rule=options.own_rule)

    tally = score_in_bulk(things, options)
    for reason in tally.failed.values():
        sys.stderr.write(f"eat score: not read: {reason}\n")
    print(tally.words(str(options.out)))
    return FAILED if tally.failed else 0


def write_sidecars(scores: list["Score"], xmp: Sidecars, info: "CheckpointInfo") -> bool:
    """Write stars beside photographs, and say how they were found; False if some were not."""
    from eat.scoring.xmp import rate

    rated = rate(scores, xmp)
    among = info.ranked_among if info.score_quantiles else "these photographs"
    sys.stderr.write(f"xmp: a star for each fifth of {among}: {rated.written} sidecars written, "
                     f"{rated.replaced} with another rating before\n")  # fmt: skip
    for error in rated.errors:
        sys.stderr.write(f"eat score: no stars: {error}\n")
    return not rated.errors


def run_compare(photographs: list[str], options: CompareOptions) -> int:
    """Compare photographs by their scores. Exit code 1 if some could not be scored."""
    from eat.scoring import Scorer, compare, comparison_lines

    given = asdict(options)
    voters, form, out = (given.pop(name) for name in ("voters", "format", "out"))
    if out is not None:
        from eat.pictures.saving import check_picture

        check_picture(out)
    scorer = Scorer(**given)
    announce(scorer.info, own_rule=options.own_rule)
    found = compare(photographs, checkpoint=scorer, voters=voters)
    if out is not None:
        from eat.pictures.comparison import draw_comparison

        draw_comparison(found, scorer, out)
    write_lines(comparison_lines(found, form), None)
    tell_notes("compare", ((one.score.image, one.score.note) for one in found.photographs))
    for score in found.failed:
        sys.stderr.write(f"eat compare: not scored: {score.error}\n")
    return FAILED if found.failed else 0


def tell_notes(command: str, notes: Iterable[tuple[str, str]]) -> None:
    """Say of photographs what was read in part."""
    from eat.scoring import note_lines

    for line in note_lines(notes):
        sys.stderr.write(f"eat {command}: {line}\n")


def best_first(score: "Score") -> tuple[bool, float]:
    """What scores are sorted by: those with an error are the last."""
    return bool(score.error), -score.score


def announce(info: "CheckpointInfo", *, own_rule: bool = False) -> None:
    """Say of one of the authors' models how it is run."""
    if info.released:
        how = "each image's own interest points"
        if own_rule:
            how = "each image by itself, by a rule of ours"
        sys.stderr.write(f"the authors' {info.title} model: its own preprocessing, {how}\n")


def write_lines(lines: Iterator[str], path: str | None) -> None:
    """Print lines as they come, or write them to a file that appears when it is complete."""
    if path is None:
        for line in lines:
            print(line, flush=True)
        return
    from eat.system.files import appearing_whole

    with appearing_whole(path) as file:
        for line in lines:
            file.write(f"{line}\n".encode())


def run_points(photos: list[str], options: PointsOptions) -> int:
    """Draw where a model looks in photographs."""
    from eat.checkpoint import load_checkpoint
    from eat.pictures.points import block_title, draw_points

    model, info = load_checkpoint(options.checkpoint, options.model, options.general)
    announce(info)
    blocks = draw_points(
        model, info, photos, options.out,
        every_block=options.every_block, heat=options.heat, width=options.width,
    )  # fmt: skip
    print(f"{options.out}: {'; '.join(f'{block_title(name)} ({name})' for name in blocks)}")
    return 0


def run_saliency(photos: list[str], options: SaliencyOptions) -> int:
    """Draw what a model's scores of photographs come from."""
    from eat.checkpoint import load_checkpoint
    from eat.pictures.saliency import describe_share, draw_saliency, read_mask

    file, style = options.mask, ("method", "block", "layer", "width")
    if file and len(photos) > 1:
        raise ValueError(f"--mask is of one photograph: found {len(photos)} photographs")
    model, info = load_checkpoint(options.checkpoint, options.model, options.general)
    announce(info)
    mask = read_mask(file, photos[0], upright=info.preprocessing.upright) if file else None
    given = {name: getattr(options, name) for name in style}
    maps = draw_saliency(model, info, photos, options.out, **given)
    print(options.out)
    for photo, weights in zip(photos, maps, strict=True):
        if not weights.any():
            sys.stderr.write(f"eat saliency: {photo}: nothing in this layer raises the score; "
                             "try another\n")  # fmt: skip
        elif mask is not None:
            print(describe_share(weights, mask))
    return 0


def run_gallery(paths: list[str], options: GalleryOptions) -> int:
    """Make a page of photographs. Exit code 1 if some could not be scored."""
    from eat.pictures.gallery.make import make_gallery
    from eat.pictures.gallery.ratings import read_ratings
    from eat.scoring import Scorer

    given = asdict(options)
    page = {name: given.pop(name) for name in ("out", "near", "thumbnail")}
    rated = ("labels", "name", "low", "high", "test", "split", "slice_by")
    labels = {name: given.pop(name) for name in rated}
    scorer = Scorer(**given, scale="own" if options.labels else "ten", percentile=None)
    announce(scorer.info)
    labels["name"] = options.name or scorer.info.dataset
    labels["targets"] = [*scorer.info.targets]
    ratings = read_ratings(paths, **labels) if options.labels else None
    gallery = make_gallery(scorer, paths, ratings, **page)
    print(f"{gallery.page}: {gallery.photographs} photographs in {gallery.groups} groups of "
          "near-duplicates")  # fmt: skip
    tell_notes("gallery", gallery.notes)
    for error in gallery.errors:
        sys.stderr.write(f"eat gallery: not scored: {error}\n")
    return FAILED if gallery.errors else 0


def run_demo(_: None, options: DemoOptions) -> int:
    """Serve a page of a model until a signal ends it."""
    from eat.demo.server import serve

    serve(options)
    return 0
