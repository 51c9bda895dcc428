"""What a score says of how its photograph was read, and photographs that a folder leaves out."""

import json
from pathlib import Path

import numpy as np
import pytest
from data.drawn import scene
from data.profiles import profile_of
from pictures.pages import cells
from PIL import Image

from eat.checkpoint import load_checkpoint, save_checkpoint
from eat.cli import main
from eat.data.photos import find_images
from eat.models import WeightsError
from eat.scoring import Scorer, compare, comparison_lines

PAGES = "it has several pages: the first one was taken"
PROFILE = "its colour profile is not applied, nor was it in the model's training"


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder of a photograph with two pages, two of a wide gamut and a plain one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    scene().save(folder / "pages.tif", save_all=True, append_images=[scene()])
    for name in ("wide.jpg", "wider.jpg"):
        scene().save(folder / name, icc_profile=profile_of("Display P3"))
    scene().save(folder / "plain.jpg")
    return folder


@pytest.fixture
def older(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint that does not say what becomes of colour profiles."""
    model, info = load_checkpoint(checkpoint)
    object.__setattr__(info.preprocessing, "colours", "as_stored")
    save_checkpoint(tmp_path / "older.safetensors", model, info)
    return tmp_path / "older.safetensors"


def test_scores_carry_notes(odd: Path, checkpoint: Path, older: Path) -> None:
    new, old = (
        {Path(score.image).name: score for score in Scorer(file)(odd)}
        for file in (checkpoint, older)
    )
    assert {name: score.note for name, score in new.items() if score.note} == {"pages.tif": PAGES}
    assert [old[name].note for name in ("wide.jpg", "wider.jpg")] == [PROFILE] * 2
    assert new["plain.jpg"].score == pytest.approx(old["plain.jpg"].score, abs=1e-6)
    assert abs(new["wide.jpg"].score - old["wide.jpg"].score) > 1e-5
    with Image.open(odd / "wide.jpg") as stored:  # as the file stores it
        (plain,) = Scorer(older)(np.asarray(stored))
    assert old["wide.jpg"].score == pytest.approx(plain.score, abs=1e-5)


def test_the_command_line_says_each_note_once(
    odd: Path, older: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.jsonl"
    argv = ["score", str(odd), "--checkpoint", str(older), "--format", "jsonl", "--out", str(out)]
    assert main(argv) == 0
    told = capsys.readouterr().err.splitlines()
    assert f"eat score: {odd / 'pages.tif'}: {PAGES}" in told
    assert f"eat score: 2 photographs, such as {odd / 'wide.jpg'}: {PROFILE}" in told
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row.get("note") for row in rows] == [PAGES, None, PROFILE, PROFILE]


@pytest.mark.parametrize("command", ["compare", "gallery", "points", "saliency"])
def test_other_commands_say_them_too(
    command: str,
    odd: Path,
    older: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = {"compare": [], "gallery": ["--out", str(tmp_path / "page")]}
    picture = ["--out", str(tmp_path / "x.png")]
    photos = sorted(map(str, odd.iterdir()))
    argv = [command, *photos, "--checkpoint", str(older), *out.get(command, picture)]
    assert main(argv) == 0
    told = capsys.readouterr().err + caplog.text
    assert f"{odd / 'pages.tif'}: {PAGES}\n" in told
    assert f"2 photographs, such as {odd / 'wide'}" in told and told.count(PROFILE) == 1
    if command == "gallery":
        noted = {cell["name"]: cell["note"] for cell in cells(tmp_path / "page")}
        assert noted["pages.tif"] == PAGES and not noted["plain.jpg"]


def test_a_name_with_a_line_end_stays_in_its_line(odd: Path, checkpoint: Path) -> None:
    (odd / "plain.jpg").rename(odd / "a\nb.jpg")
    text = [*comparison_lines(compare(odd, checkpoint=checkpoint), "text")]
    assert not any("\n" in line for line in text)
    assert sum(line.endswith("/a\\nb.jpg") for line in text) == 1


def test_a_raw_file_beside_its_picture_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.CR2", "a.JPG", "b.nef", "b.xmp", "c/b.jpg", "d.heic", "d.dng", "e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(path.relative_to(tmp_path)) for path in find_images([tmp_path])]
    assert found == ["a.JPG", "b.nef", "c/b.jpg", "d.heic"]
    assert f"{tmp_path}: 2 raw files left out" in caplog.text
    assert find_images([tmp_path / "a.CR2"]) == [tmp_path / "a.CR2"]


@pytest.mark.parametrize(
    "forged", [(3.0, 1.0), (1.0,), (1.0, float("nan"), 2.0), (0.0, float("inf")), (1e30, 1e31)]
)
def test_forged_quantiles_are_refused(
    forged: tuple[float, ...], checkpoint: Path, tmp_path: Path
) -> None:
    model, info = load_checkpoint(checkpoint)
    info.score_quantiles = forged
    save_checkpoint(tmp_path / "x.safetensors", model, info)
    with pytest.raises(WeightsError, match="its description cannot be read: score_quantiles is"):
        Scorer(tmp_path / "x.safetensors")
