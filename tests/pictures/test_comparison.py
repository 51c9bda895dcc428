"""The picture of a comparison."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from eat.cli import main
from eat.data.transforms import InMemory
from eat.pictures import comparison
from eat.scoring import Score
from eat.scoring.comparing import Compared


def test_the_best_twelve_stand_side_by_side_with_points_and_votes(
    sample: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(comparison, "save_figure", lambda figure, *_, **__: drawn.append(figure))
    photos = [str(path) for path in sorted((sample / "images").iterdir())[:13]]
    crop = f"{photos[0]}[40x30+5+5]"
    out = ["--checkpoint", str(checkpoint), "--out", str(tmp_path / "x.png")]
    assert main(["compare", *photos, *out]) == 0
    assert len(drawn[0].axes) == 24
    assert main(["compare", photos[0], crop, *out]) == 0
    panels = drawn[1].axes[::2]
    titles = [axis.get_title() for axis in panels]
    assert [len(axis.collections) for axis in panels] == [3, 3]  # offsets, points and positions
    assert any(title.partition("\n")[0].endswith("[40x30+5+5]") for title in titles)
    assert "below (" not in titles[0] and "below (" in titles[1]
    assert "stage 4" in drawn[1].texts[0].get_text()


def test_the_command_writes_it_and_replaces_no_photograph(
    sample: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = [str(path) for path in sorted((sample / "images").iterdir())[:2]]
    argv = ["compare", *photos, "--checkpoint", str(checkpoint), "--out"]
    assert main([*argv, str(tmp_path / "new" / "x.png")]) == 0
    with Image.open(tmp_path / "new" / "x.png") as picture:
        assert picture.width > picture.height
    Image.new("RGB", (8, 8)).save(tmp_path / "mine.png")
    for name, reason in (("mine.png", "not of this command's making"), ("x.gif", "suffix '.gif'")):
        capsys.readouterr()
        assert main([*argv, str(tmp_path / name)]) == 2
        out, err = capsys.readouterr()
        assert not out and reason in err


def test_a_long_name_is_cut_at_its_front() -> None:
    one = Compared(InMemory("", None), Score(f"{'folder/' * 9}$a_b$.jpg", 5.0), 0.5, 0.1)
    name, line = comparison.title(one, "score").split("\n")
    assert len(name) == comparison.NAME and name.startswith("...") and name.endswith("$a_b$.jpg")
    assert line == "score 5.00, 0.50 below (0.30 to 0.70)"
