"""Figures to files."""

from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL.Image import Image

from eat.system.files import appearing_whole, refuse_foreign

MOST_ASPECT = 2.0  # height to width of a panel, and its inverse; a strip is shown as one
PRINT_DPI = 200  # of PNGs for print, where a figure's inches are those of the page
# The formats by suffix, each with what says when a file was made: equal figures give equal files.
FORMATS: dict[str, dict[str, None]] = {
    ".png": {},
    ".pdf": {"CreationDate": None},
    ".svg": {"Date": None},
}
# How matplotlib begins its files: with its name, but a PDF with these bytes. Its name stands in a
# paper's PDF too, which shows such a figure.
SIGNED, PDF_SIGNED = b"Matplotlib", b"%PDF-1.4\n%\xac\xdc \xab\xba\n"
# Fonts go into a PDF whole, as publishers ask, and into an SVG as outlines.
FONTS: dict[Any, Any] = {"pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "eat"}


def panel_height(width: float, image: Image) -> float:
    """Height of a panel that shows a photograph, in the unit of its width."""
    return width * min(max(image.height / image.width, 1 / MOST_ASPECT), MOST_ASPECT)


def check_picture(picture: str | Path) -> None:
    """Refuse a picture that could not be written, before any work is done for it.

    Raises:
        ValueError: its suffix is none of ``FORMATS``, or a file of another making is there.
    """
    suffix = Path(picture).suffix
    refuse_foreign(picture, PDF_SIGNED if suffix.lower() == ".pdf" else SIGNED, within=1024)
    if suffix.lower() not in FORMATS:
        found = f"the suffix {suffix[:20]!r}" if suffix else "no suffix"
        raise ValueError(f"{picture}: found {found}: expected one of {', '.join(FORMATS)}")


def save_figure(figure: Figure, *pictures: str | Path, dpi: float = 110) -> None:
    """Write a figure whole or not at all, in formats by suffix, into folders that may be new."""
    if figure.get_layout_engine() is None:
        figure.set_layout_engine("tight")
    for picture in map(Path, pictures):
        suffix = picture.suffix.lower()
        picture.parent.mkdir(parents=True, exist_ok=True)
        with appearing_whole(picture) as file, rc_context(FONTS):
            figure.savefig(file, format=suffix[1:], dpi=dpi, metadata=FORMATS[suffix])


def save_for_paper(figure: Figure, picture: str | Path) -> None:
    """Write a figure as a PNG, and as a PDF beside it."""
    save_figure(figure, picture, Path(picture).with_suffix(".pdf"))
