"""Sheets of photographs for a paper: formats, marks, titles, scores."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from eat import Scorer
from eat.checkpoint import load_checkpoint
from eat.cli import main
from eat.data.transforms import InMemory
from eat.pictures.points import attention_map, block_title, draw_block, points_figure
from eat.pictures.saliency import saliency_figure
from eat.pictures.sheet import show

THEIRS = b"%PDF-1.5\n%\xd0\xd4\xc5\xd8\n(Matplotlib pdf backend)"  # a paper with a figure of ours


@pytest.fixture
def photos(sample: Path) -> list[Path]:
    return sorted((sample / "images").iterdir())[:2]


def texts(figure: Figure) -> list[str]:
    return [axis.get_title() for axis in figure.axes]


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("stages.2.blocks.4", "stage 3, block 5"),
        ("stages.3.blocks.0.norm1", "stage 4, block 1, norm1"),
        ("net.layers.2.blocks.1", "stage 3, block 2"),
        ("net.blocks.7", "block 8"),
        ("ps_layers.0", "layer 1"),
    ],
)
def test_blocks_have_the_names_that_a_reader_says(name: str, title: str) -> None:
    assert block_title(name) == title


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_the_suffix_says_the_format_and_equal_calls_give_equal_files(
    suffix: str, photos: list[Path], checkpoint: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "new" / f"points.{suffix}"
    argv = ["points", *map(str, photos), "--checkpoint", str(checkpoint), "--out", str(out)]
    written = set()
    for _ in range(2):  # an earlier picture is replaced
        assert main([*argv, "--width", "3.3"]) == 0
        written.add(out.read_bytes())
    assert "stage 4, block 1 (stages.3.blocks.0)" in capsys.readouterr().out
    (content,) = written
    assert content.startswith({"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[suffix])
    if suffix == "pdf":  # publishers take no Type 3 fonts
        assert b"/FontFile2" in content and b"/Type3" not in content
        assert b"/MediaBox [ 0 0 237.6 " in content  # 3.3 inches
    assert not list(out.parent.glob(".*"))


def test_other_formats_and_the_files_of_others_are_refused_before_the_model_runs(
    photos: list[Path], checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("eat.models.EAT.forward_features", None)
    paper = tmp_path / "paper.pdf"
    paper.write_bytes(THEIRS)
    for command in ("points", "saliency"):
        argv = [command, str(photos[0]), "--checkpoint", str(checkpoint)]
        for more, message in (
            (
                ["--out", "a.eps"],
                "found the suffix '.eps': expected one of .png, .pdf, .svg",
            ),
            (["--out", "a"], "a: found no suffix: expected one of"),
            (["--out", str(paper)], f"{paper} is there and not of this command's making"),
            (["--width", "0.5"], "width is 0.5: expected"),
            ([str(photos[0])] * 24, "found 25 photographs: expected at most 24, a row each"),
        ):
            given = argv[:2] + more + argv[2:] if more[0] == argv[1] else argv + more
            assert main(given) == 2
            assert message in capsys.readouterr().err
    assert paper.read_bytes() == THEIRS


def test_a_row_has_the_score_of_eat_score_and_its_votes(
    photos: list[Path], checkpoint: Path
) -> None:
    model, info = load_checkpoint(checkpoint)
    scores = list(Scorer(checkpoint)(photos))
    as_bytes = InMemory("image 1", photos[0].read_bytes())
    figures = [
        points_figure(model.eval(), info, [as_bytes, photos[1]], heat=True),
        saliency_figure(model, info, photos, method="gradient")[0],
    ]
    for figure in figures:
        for score in scores:
            (place,) = [i for i, t in enumerate(texts(figure)) if t == f"score {score.score:.2f}"]
            heights = [bar.get_height() for bar in figure.axes[place + 1].patches]
            np.testing.assert_allclose(heights, score.votes, atol=1e-5)
    assert "attention, times the average" in texts(figures[0])
    legend = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert legend == ["interest point", "its offset", "sampled, average attention", "4 times"]


@pytest.mark.parametrize("ground", ["white", "black", "noise"])
def test_marks_are_seen_on_any_photograph(ground: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    image = Image.fromarray(pixels) if ground == "noise" else Image.new("RGB", (60, 60), ground)
    points = torch.tensor([[-0.5, -0.5], [0.5, 0.5]]).view(1, 1, 1, 2, 2)
    record = {"points": points, "positions": points * 0.4, "attention": torch.ones(1, 1, 1, 2) / 2}

    def drawn(marked: bool) -> np.ndarray:
        figure = Figure(figsize=(1.4, 1.4))
        axis = figure.add_axes((0, 0, 1, 1))
        show(axis, image)
        if marked:
            draw_block(axis, image, record, tokens=4)
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=200)
        return np.asarray(Image.open(content).convert("L")).astype(int)

    plain, marks = drawn(False), drawn(True)
    changed = np.abs(marks - plain) > 100  # of 255
    for place in (87, 192, 119, 161):  # crosses and circles
        around = slice(place - 8, place + 9)
        assert changed[around, around].sum() > 20


def test_the_map_of_attention_lies_where_the_positions_do() -> None:
    positions = torch.tensor([[-1.0, -1.0], [1.0, 0.0]]).view(1, 1, 1, 2, 2)
    attention = torch.tensor([0.75, 0.25]).expand(1, 2, 9, 2)
    found = attention_map({"positions": positions, "attention": attention}, tokens=3)
    expected = torch.zeros(3, 3)
    expected[0, 0], expected[2, 1] = 6.75, 2.25  # times the average
    torch.testing.assert_close(found, expected)
