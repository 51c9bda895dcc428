"""``eat saliency`` as a user calls it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eat.cli import main


@pytest.fixture
def photo(sample: Path) -> Path:
    return sorted((sample / "images").iterdir())[0]


@pytest.fixture
def argv(photo: Path, checkpoint: Path, tmp_path: Path) -> list[str]:
    out = str(tmp_path / "saliency.png")
    return ["saliency", str(photo), "--checkpoint", str(checkpoint), "--out", out]


@pytest.mark.parametrize("method", ["rollout", "gradient", "gradcam"])
def test_a_picture_is_drawn_and_shares_on_the_mask_are_told(
    method: str, argv: list[str], photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if method == "gradcam":
        pytest.importorskip("pytorch_grad_cam", reason="GradCAM is in the extra 'saliency'")
    size, mask = Image.open(photo).size, tmp_path / "mask.png"
    left = np.zeros(size[::-1], np.uint8)
    left[:, : size[0] // 4] = 255
    Image.fromarray(left).save(mask)
    more = ["--method", method, "--block", "stages.0.blocks.0", "--mask", str(mask)]
    for _ in range(2):  # an earlier picture is replaced
        assert main([*argv, *more]) == 0
    assert np.asarray(Image.open(argv[-1])).std() > 10
    said = capsys.readouterr()
    told = said.out.splitlines()[-1] if not said.err else "foreground 0"  # GradCAM may be empty
    assert told.startswith("foreground 0")


def test_what_cannot_be_drawn_is_one_message(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (7, 5)).save(tmp_path / "small.png")
    for more, message in (
        (["--mask", str(tmp_path / "small.png")], "7 x 5 pixels: expected those of the photograph"),
        (
            ["--block", "stages.2.block.1"],
            "no block 'stages.2.block.1'; nearest: stages.2.blocks.1",
        ),
        (["--out", argv[1]], "is there and not of this command's making"),
    ):
        assert main([*argv, *more]) == 2
        assert message in capsys.readouterr().err
    assert not Path(argv[-1]).exists()


def test_a_mask_is_white_and_black(
    argv: list[str], photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size, mask = Image.open(photo).size, tmp_path / "mask.png"
    cut_out = Image.new("RGBA", size, "white")
    cut_out.paste((255, 255, 255, 0), (0, 0, 9, 9))
    for wrong, message in (
        (cut_out, "partly transparent"),
        (Image.open(photo), "in colours"),
        (Image.new("L", size, 1), "at most 1 of 255 bright"),  # class numbers, or nothing
    ):
        wrong.save(mask)
        assert main([*argv, "--mask", str(mask)]) == 2
        assert f"{mask}: {message}: expected grey, white where" in capsys.readouterr().err
    assert not Path(argv[-1]).exists()
    Image.new("RGBA", size, "white").save(mask)
    assert main([*argv, "--mask", str(mask)]) == 0
    assert "foreground 1.000" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["saliency", "points"])
@pytest.mark.parametrize("size", [(10, 20_000), (20_000, 10), (1, 1)])
def test_a_photograph_of_any_shape_gives_a_picture_of_bounded_size(
    command: str, size: tuple[int, int], argv: list[str], tmp_path: Path
) -> None:
    strip = tmp_path / "strip.png"
    Image.new("RGB", size, "green").save(strip)
    assert main([command, str(strip), *argv[2:]]) == 0
    assert max(Image.open(argv[-1]).size) < 2000
