"""The health of interest points is measured, and told where they have collapsed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, full_disk
from PIL import Image

import eat
from eat.config import TrainConfig
from eat.evaluation.points import PointWatch, collapsed
from eat.models.deformable import uniform_grid
from eat.pictures.points import animate, draw_points
from eat.training.trainer import train

BLOCK = "stages.2.blocks.1"


def watch(points: torch.Tensor, moves: torch.Tensor | None = None) -> dict[str, float]:
    watched = PointWatch([BLOCK])
    moves = points if moves is None else moves
    watched.add({BLOCK: {"points": points, "positions": points / 2, "moves": moves}})
    return watched.health()[BLOCK]


def test_a_uniform_grid_has_a_spread_of_057_and_equal_images_do_not_differ() -> None:
    grid = uniform_grid(7, 7, torch.empty(0)).expand(3, 1, 7, 7, 2)
    health = watch(grid)
    assert health["points"] == pytest.approx(np.sqrt((1 - 1 / 49) / 3))  # of a discrete uniform
    assert health["positions"] == pytest.approx(health["points"] / 2)
    assert health["between"] == 0 and health["saturated"] == 0


def test_points_on_one_spot_that_moves_from_image_to_image() -> None:
    spots = torch.tensor([-0.5, 0.5]).view(2, 1, 1, 1, 1).expand(2, 1, 4, 4, 2)
    moves = torch.ones(2, 1, 4, 4, 2)
    moves[0] = 0.9
    health = watch(spots, moves)
    assert health == pytest.approx({"points": 0, "positions": 0, "between": 0.5, "saturated": 0.5})
    assert collapsed({"a": health, "b": {"points": 0.3}}) == ["a"]


def test_only_as_many_images_are_watched_as_told() -> None:
    watched = PointWatch([BLOCK], images=3)
    block = {name: torch.zeros(2, 1, 4, 4, 2) for name in ("points", "positions", "moves")}
    seen = 0
    while watched.wants_more():
        watched.add({BLOCK: block})
        seen += 2
    assert seen == 4 and not PointWatch([]).wants_more()


def test_enhanced_blocks_are_those_with_interest_points() -> None:
    model = eat.create_model("eat_nano", stages=["L", "D", "LE", "EE"])
    assert model.enhanced_blocks() == [BLOCK, "stages.3.blocks.0", "stages.3.blocks.1"]
    assert eat.create_model("eat_nano", interest=False).enhanced_blocks() == []


def test_every_epoch_tells_of_its_points(run: Path) -> None:
    for line in (run / "metrics.jsonl").read_text().splitlines():
        points = json.loads(line)["points"]
        assert set(points) == {BLOCK, "stages.3.blocks.0"}
        for block in points.values():
            assert 0 < block["points"] < 1 and 0 <= block["saturated"] <= 1


def test_collapsed_blocks_are_named_in_the_log(
    config: TrainConfig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eat.evaluation.points.COLLAPSED", 10.0)
    config.optim.epochs = 1
    train(config)
    assert f"the interest points of {BLOCK}, stages.3.blocks.0 have fallen onto" in caplog.text


def test_anchored_points_stay_within_half_of_their_place_in_the_grid() -> None:
    torch.manual_seed(0)
    model = eat.create_model("eat_nano", img_size=64, anchor_points=True, **SMALL).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".interest." in name:
                parameter.mul_(100)  # beyond all measure
        record: dict[str, dict[str, torch.Tensor]] = {}
        model(torch.randn(2, 3, 64, 64), record)
    for name in model.enhanced_blocks():
        points, moves = record[name]["points"], record[name]["moves"]
        away = points - uniform_grid(*points.shape[2:4], points)
        torch.testing.assert_close(away, moves / 2)
        assert 0.4 < away.abs().max() <= 0.5


def test_points_are_drawn_over_the_epochs(config: TrainConfig, tmp_path: Path) -> None:
    config.run.draw_every = 1
    folder, _ = train(config, draw=draw_points)
    files = sorted((folder / "points").iterdir())
    assert [file.name for file in files] == ["epoch-0001.png", "epoch-0002.png"]
    animate(folder / "points", tmp_path / "points.gif")
    with Image.open(tmp_path / "points.gif") as film:
        assert film.n_frames == 2
        corner = np.asarray(film.convert("L"))[:16, :80]
    assert corner.min() < 100  # the epoch's name
    with full_disk(), pytest.raises(OSError, match="not written, and is as it was before"):
        animate(folder / "points", tmp_path / "points.gif")
    with Image.open(tmp_path / "points.gif") as film:
        assert film.n_frames == 2
