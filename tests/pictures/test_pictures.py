"""Pictures say what the model did."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import eat
from eat.checkpoint import load_checkpoint
from eat.cli import main
from eat.pictures.curves import draw_curves
from eat.pictures.points import (
    attended_positions,
    draw_block,
    draw_points,
    on_photo,
)


def test_every_deformable_block_is_found_in_order() -> None:
    model = eat.create_model("eat_nano", stages=["L", "D", "LE", "E"])
    assert model.sampling_blocks() == [
        "stages.1.blocks.0",
        "stages.2.blocks.1",
        "stages.3.blocks.0",
    ]


def test_each_head_attends_to_the_positions_of_its_group() -> None:
    attention = torch.zeros(1, 4, 2, 2)  # heads 0, 1 are group 0; heads 2, 3 group 1
    attention[0, :2, :, 0], attention[0, 2, 0, 1] = 1.0, 0.5
    positions = torch.arange(8.0).view(1, 2, 1, 2, 2)
    where, weights = attended_positions({"positions": positions, "attention": attention})
    assert where.tolist() == [[[0, 1], [2, 3]]] * 2 + [[[4, 5], [6, 7]]] * 2
    np.testing.assert_allclose(weights, [[1, 0], [1, 0], [0, 0.25], [0, 0]])


def test_positions_fall_on_token_centres() -> None:
    rows, cols = on_photo(np.array([[-1.0, -1.0], [1.0, 0.0]]), tokens=4, height=80, width=40)
    np.testing.assert_allclose(rows, [10, 70])
    np.testing.assert_allclose(cols, [5, 20])


def test_even_attention_gives_circles_of_one_size_whatever_the_number_of_points() -> None:
    def sizes(n: int) -> set[float]:
        axis = Figure().subplots()
        places = torch.rand(1, 1, n, n, 2)
        attention = torch.full((1, 1, 3, n * n), 1 / n**2)
        record = {"points": places, "positions": places, "attention": attention}
        draw_block(axis, Image.new("RGB", (9, 9)), record, tokens=4)
        circles: Any = axis.collections[-1]
        return set(np.round(circles.get_sizes(), 3).tolist())

    assert sizes(2) == sizes(7) and len(sizes(2)) == 1


def test_curves_have_whole_epochs(run: Path, tmp_path: Path) -> None:
    drawn: list[Figure] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eat.pictures.curves.save_figure", lambda figure, _: drawn.append(figure))
        draw_curves(run, tmp_path / "curves.png")
    for axis in drawn[0].axes:
        assert all(tick == int(tick) for tick in axis.get_xticks())


def test_the_command_draws_a_picture(checkpoint: Path, sample: Path, tmp_path: Path) -> None:
    photo = next((sample / "images").iterdir())
    out = tmp_path / "points.png"
    for _ in range(2):  # an earlier picture is replaced
        assert main(["points", str(photo), "--checkpoint", str(checkpoint), "--out", str(out)]) == 0
    assert np.asarray(Image.open(out)).std() > 10


def test_a_model_without_points_says_so(checkpoint: Path, sample: Path, tmp_path: Path) -> None:
    model = eat.create_model("eat_nano", stages=["L", "S", "L", "L"]).eval()
    photo = next((sample / "images").iterdir())
    with pytest.raises(ValueError, match="no block that samples positions"):
        draw_points(model, load_checkpoint(checkpoint)[1], photo, tmp_path / "x.png")


def test_points_are_drawn_over_no_photo_and_read_from_no_folder(
    checkpoint: Path, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "photo.png"
    Image.open(next((sample / "images").iterdir())).save(photo)
    before = photo.read_bytes()
    argv = ["--checkpoint", str(checkpoint), "--out"]
    for out in (photo, tmp_path):
        assert main(["points", str(photo), *argv, str(out)]) == 2
        assert f"{out} is there and not of this command's making" in capsys.readouterr().err
    assert photo.read_bytes() == before
    assert main(["points", str(tmp_path), *argv, str(tmp_path / "new.png")]) == 2
    assert f"{tmp_path}: a folder: expected a file" in capsys.readouterr().err
