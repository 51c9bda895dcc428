"""Figures to files."""

from pathlib import Path

from matplotlib.figure import Figure
from PIL.Image import Image

from eat.system.files import appearing_whole

MOST_ASPECT = 3.0  # height to width of a panel, and its inverse; a strip is shown as one


def panel_height(width: float, image: Image) -> float:
    """Height of a panel that shows a photograph, in the unit of its width."""
    return width * min(max(image.height / image.width, 1 / MOST_ASPECT), MOST_ASPECT)


def save_figure(figure: Figure, picture: str | Path) -> None:
    """Write a figure to a PNG file, whole or not at all, in a folder that may be new."""
    Path(picture).parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    with appearing_whole(picture) as file:
        figure.savefig(file, format="png", dpi=110)
