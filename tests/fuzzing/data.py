"""Pixel caches, images and label files."""

import io
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from data.labels.formats.label_files import FORMATS, lines_of
from hypothesis import strategies as st
from PIL import Image

from eat.data.cache import CachedPixels, make_cache
from eat.data.checks import read_checks
from eat.data.labels.reading import read_labels
from eat.data.photos import SUFFIXES
from eat.data.prepare import PrepareOptions, prepare
from eat.data.registry import DATASETS
from eat.data.transforms import Preprocessing
from fuzzing.damage import NUMBERS, Files, spoilt_bytes, spoilt_files, spoilt_json, spoilt_values
from fuzzing.samples import PIXELS, Kind, content_of, picture
from fuzzing.trial import write


@cache
def pixel_cache() -> Files:
    """A cache of three images, and they."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i in range(3):
            (folder / f"{i}.png").write_bytes(picture(side=20 + i))
        rows = [
            {"image": f"{i}.png", "bytes": len(picture(side=20 + i)), "digest": f"{i}"}
            for i in range(3)
        ]
        make_cache(folder, folder, pd.DataFrame(rows), {}, PIXELS, workers=1)
        return content_of(folder)


def spoilt_cache(files: Files) -> st.SearchStrategy[Files]:
    note = spoilt_json(json.loads(files["cache-64.json"]))
    pixels = spoilt_bytes(files["cache-64.npy"])
    return spoilt_files(files, {"cache-64.json": note, "cache-64.npy": pixels})


def read_cache(folder: Path) -> None:
    """Read every image for evaluation and for training."""
    names = [f"{i}.png" for i in range(3)]
    how = Preprocessing(64, decode="fast")
    pixels = CachedPixels(folder, how, folder, names, training=False)
    for seed, name in enumerate(names):
        pixels.evaluation(folder / name)
        pixels.training(folder / name, seed)


@cache
def pictures() -> Files:
    """Photographs in the formats and modes of cameras, phones and the web."""
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "a.jpg": picture("jpeg"),
        "turned.jpg": picture("jpeg", exif=turned),
        "progressive.jpg": picture("jpeg", progressive=True),
        "cmyk.jpg": picture("jpeg", mode="CMYK"),
        "grey.jpg": picture("jpeg", mode="L"),
        "a.png": picture(),
        "palette.png": picture(mode="P"),
        "alpha.png": picture(mode="RGBA"),
        "sixteen.png": picture(mode="I;16"),
        "a.tif": picture("tiff"),
        "deflate.tif": picture("tiff", compression="tiff_deflate"),
        "lzw.tif": picture("tiff", compression="tiff_lzw"),
        "grey.tif": picture("tiff", mode="I;16"),
        "a.gif": picture("gif"),
        "a.webp": picture("webp"),
        "a.bmp": picture("bmp"),
    }


@st.composite
def spoilt_picture(draw: st.DrawFn, files: Files) -> Files:
    """One file, spoilt, under any suffix."""
    content = files[draw(st.sampled_from(sorted(files)))]
    suffix = draw(st.sampled_from(sorted(SUFFIXES)))
    return {f"image{suffix}": draw(spoilt_bytes(content))}


@st.composite
def large_picture(draw: st.DrawFn, files: Files) -> Files:
    """A picture of one colour, of megapixels in little more than kilobytes."""
    options: dict[str, dict[str, Any]] = {
        "png P": {}, "png RGBA": {}, "png I;16": {}, "gif L": {}, "jpeg CMYK": {},
        "tiff CMYK": {"compression": "tiff_lzw"}, "jpeg RGB": {"progressive": True},
        "webp RGBA": {"lossless": True},
    }  # fmt: skip
    form, mode = draw(st.sampled_from(sorted(options))).split()
    sides = st.sampled_from([1, 9000, 13300, 13500]) | st.integers(1, 16000)
    size = draw(sides), draw(sides)
    file = io.BytesIO()
    Image.new(mode, size).save(file, form, **options[f"{form} {mode}"])
    return {"image": file.getvalue()}


def decode_large(folder: Path) -> None:
    """Read an image in the way that takes more memory."""
    Preprocessing(64, decode="fast", colours="as_shown").evaluation(folder / "image")


def decode(folder: Path) -> None:
    """Read every image in both ways."""
    for path in sorted(folder.iterdir()):
        for way, colours in (("exact", "as_shown"), ("fast", "as_shown"), ("exact", "as_stored")):
            how = Preprocessing(64, train_resize=72, decode=way, colours=colours)
            how.evaluation(path)
            how.training(path, 1)


@cache
def labels() -> Files:
    """A label file of every registered format: DATASET/NAME/FILE."""
    files: Files = {}
    readers = {spec.read.function: name for name, spec in DATASETS.items() if name != "sample"}
    for name, (reader, file, *_) in FORMATS.items():
        folder = f"{readers[reader.__name__]}/{name.replace(' ', '-')}"
        files[f"{folder}/{file}"] = ("\n".join(lines_of(name)[0]) + "\n").encode()
    table = pd.DataFrame({"image": ["a", "b", "c"], "score": [1.5, 2, 3], "split": ["train"] * 3})
    files["table/lines/a.jsonl"] = table.to_json(orient="records", lines=True).encode()
    files["table/tabs/a.tsv"] = table.to_csv(sep="\t", index=False).encode()
    files["table/parquet/a.parquet"] = table.to_parquet()
    return files


@st.composite
def spoilt_labels(draw: st.DrawFn, files: Files) -> Files:
    """One label file with other fields or bytes, or as UTF-16."""
    name = draw(st.sampled_from(sorted(files)))
    content = files[name]
    if draw(st.booleans()) and not name.endswith("parquet"):
        text = content.decode()
        separator = "," if "," in text.split("\n")[0] else "\t" if name.endswith("tsv") else " "
        rows = [line.split(separator) for line in text.rstrip("\n").split("\n")]
        odd = st.sampled_from([*map(str, NUMBERS), *sum(rows, [])]) | st.text(max_size=8)
        rows = draw(spoilt_values(rows, odd | odd.map(lambda field: [field])))
        lines = (separator.join(map(str, row)) if isinstance(row, list) else row for row in rows)
        text = "\n".join(lines)
        encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-16", "cp1252"]))
        content = text.encode(encoding, "replace")
    else:
        content = draw(spoilt_bytes(content))
    return {name: content}


def read_label_files(folder: Path) -> None:
    """Read them as their data set's."""
    for path in (path for path in sorted(folder.rglob("*")) if path.is_file()):
        read_labels(path.relative_to(folder).parts[0], path)


@cache
def prepared() -> Files:
    """Labels and images that ``eat prepare`` has checked."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [{"image": f"{i}.png", "score": 2 + i} for i in range(3)]
        pd.DataFrame(rows).to_csv(folder / "own.csv", index=False)
        write({f"images/{i}.png": picture(side=20 + i) for i in range(3)}, folder)
        places = (str(folder / name) for name in ("own.csv", "images", "out"))
        prepare("table", PrepareOptions(*places, workers=1))
        return content_of(folder)


def read_prepared(folder: Path) -> None:
    """Read prepared labels, and the journal of checks."""
    read_labels("table", folder / "out")
    read_checks(folder / "out" / "checks.csv")


def spoilt_prepared(files: Files) -> st.SearchStrategy[Files]:
    note = spoilt_json(json.loads(files["out/prepared.json"]))
    names = ("out/checks.csv", "out/labels.csv")
    ways = {name: spoilt_bytes(files[name]) for name in names} | {"out/prepared.json": note}
    return spoilt_files(files, ways)


KINDS = {
    "caches": Kind(pixel_cache, spoilt_cache, read_cache),
    "images": Kind(pictures, spoilt_picture, decode),
    "large": Kind(lambda: {"image": picture()}, large_picture, decode_large),
    "labels": Kind(labels, spoilt_labels, read_label_files),
    "prepared": Kind(prepared, spoilt_prepared, read_prepared),
}
