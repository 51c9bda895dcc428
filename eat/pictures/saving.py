"""Figures to files."""

from pathlib import Path

from matplotlib.figure import Figure

from eat.system.files import appearing_whole


def save_figure(figure: Figure, picture: str | Path) -> None:
    """Write a figure to a PNG file, whole or not at all, in a folder that may be new."""
    Path(picture).parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    with appearing_whole(picture) as file:
        figure.savefig(file, format="png", dpi=110)
