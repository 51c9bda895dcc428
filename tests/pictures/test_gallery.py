"""``eat gallery`` as a user calls it: what lies in the page's folder."""

import os
import re
import shutil
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
from conftest import full_disk
from pictures.pages import cells, data
from PIL import Image

from eat import Scorer, create_model
from eat.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from eat.cli import main
from eat.pictures.gallery import make, photographs

HOSTILE = (
    '"><img src=x onerror=alert(1)><script>.jpg',
    "<!--<svg onload=alert(1)>.jpg",
    "line\nbreak\u2028.jpg",
    "\u202eright to left.jpg",
    "' + alert(1) + `${1}`.jpg",
    "100%25 #a?b&amp;.jpg",
    os.fsdecode(b"latin-\xe9.jpg"),
    "\\.jpg",
)


@pytest.fixture
def folder(sample: Path, tmp_path: Path) -> Path:
    """Six photographs in two folders, one of them twice, and two that are broken."""
    images = sorted((sample / "images").iterdir())[:6]
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for i, image in enumerate(images):
        shutil.copy(image, tmp_path / "photos" / ("more" if i % 2 else ""))
    shutil.copy(images[0], tmp_path / "photos" / "more" / "again.jpg")
    (tmp_path / "photos" / "broken.jpg").write_bytes(images[0].read_bytes()[:500])
    (tmp_path / "photos" / "empty <b>.png").touch()
    return tmp_path / "photos"


def gallery(photos: Path, checkpoint: Path, out: Path, *more: str) -> int:
    return main(["gallery", str(photos), "--checkpoint", str(checkpoint), "--out", str(out), *more])


def test_a_page_shows_each_photograph_by_its_score_and_lists_the_broken(
    folder: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page"
    assert gallery(folder, checkpoint, page) == 1  # as some were not scored
    said = capsys.readouterr()
    assert said.out == f"{page}/index.html: 7 photographs in 6 groups of near-duplicates\n"
    assert said.err.count("eat gallery: not scored: ") == 2
    shown, about = cells(page), data(page)["page"]
    scores = {s.image: s for s in Scorer(checkpoint, percentile=True)(folder) if not s.error}
    assert {f"{cell['folder']}/{cell['name']}" for cell in shown} == set(scores)
    for cell in shown:
        score = scores[f"{cell['folder']}/{cell['name']}"]
        assert cell["score"] == pytest.approx(score.score, abs=1e-5)
        assert cell["percentile"] == pytest.approx(score.percentile, abs=0.01)
        np.testing.assert_allclose(cell["votes"], score.votes, atol=1e-4)
        assert (page / cell["link"]).samefile(score.image)
        thumb = Image.open(page / "thumbs" / cell["thumb"])
        assert thumb.size == (cell["width"], cell["height"]) == Image.open(score.image).size
    assert [cell["score"] for cell in shown] == sorted((c["score"] for c in shown), reverse=True)
    assert len({cell["thumb"] for cell in shown}) == 7
    assert len(about["errors"]) == 2 and "empty <b>.png: an empty file" in str(about["errors"])
    twins = [cell["group"] for cell in shown if cell["score"] == shown[0]["score"]]
    assert sum(cell["group"] == other["group"] for cell in shown for other in shown) == 9
    assert len(set(twins)) == 1


def test_points_lie_where_the_model_looks(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    gallery(folder, checkpoint, tmp_path / "page", "--batch_size", "4")
    assert data(tmp_path / "page")["page"]["block"] == "stage 4, block 1"
    for cell in cells(tmp_path / "page"):
        points = np.array(cell["points"]).reshape(-1, 3)
        assert 0 < len(points) <= photographs.MOST_POINTS
        assert (np.diff(points[:, 2]) <= 0).all()
        assert points[:, 2].sum() == pytest.approx(1000, abs=len(points))


def test_a_model_without_points_has_a_page_too(
    folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    info: CheckpointInfo = load_checkpoint(checkpoint)[1]
    info.model.settings["stages"] = ["L", "S", "L", "L"]
    plain = tmp_path / "plain.safetensors"
    model = create_model(
        info.model.name, info.model.num_outputs, info.model.img_size, **info.model.settings
    )
    save_checkpoint(plain, model, info)
    gallery(folder, plain, tmp_path / "page")
    assert data(tmp_path / "page")["page"]["block"] is None
    assert {len(cell["points"]) for cell in cells(tmp_path / "page")} == {0}


def test_hostile_file_names_stay_text(sample: Path, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    source = next((sample / "images").iterdir())
    for name in HOSTILE:
        shutil.copy(source, tmp_path / "photos" / name)
    page = tmp_path / "page"
    assert gallery(tmp_path / "photos", checkpoint, page) == 0
    shown = {os.path.basename(unquote_to_bytes(c["link"])): c for c in cells(page)}
    assert set(shown) == {os.fsencode(name) for name in HOSTILE}
    for name in HOSTILE:
        cell = shown[os.fsencode(name)]
        assert re.fullmatch(r"\.\./photos/[\w.~%-]+", cell["link"])
        assert re.fullmatch(r"[0-9a-f]{16}\.jpg", cell["thumb"])
        assert cell["name"] == name.encode(errors="backslashreplace").decode()


def test_photographs_come_in_chunks_in_their_order(
    folder: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery(folder, checkpoint, tmp_path / "whole")
    monkeypatch.setattr(make, "CHUNK", 3)
    monkeypatch.setattr(make, "DETAILS", 2)
    gallery(folder, checkpoint, tmp_path / "page")
    assert cells(tmp_path / "page") == cells(tmp_path / "whole")
    assert {"photographs-2", "details-3"} <= set(data(tmp_path / "page"))


def test_a_page_among_the_photographs_is_renewed_and_not_shown(
    folder: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        gallery(folder, checkpoint, folder / "page")
        assert "7 photographs in 6 groups" in capsys.readouterr().out
    assert not list(folder.glob("*.partial"))


def test_nothing_but_our_own_page_is_replaced(
    folder: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page"
    gallery(folder, checkpoint, page)
    before = sorted(tmp_path.rglob("*"))
    shutil.copy(folder / "more" / "again.jpg", page)
    (tmp_path / "link").symlink_to(page)
    for out, found in (
        (page, page / "again.jpg"),
        (folder, folder),
        (tmp_path / "link", tmp_path / "link"),
        (folder / "broken.jpg", folder / "broken.jpg"),
    ):
        capsys.readouterr()
        assert gallery(folder, checkpoint, out) == 2
        assert f"{found} is there and not of this command's making" in capsys.readouterr().err
    (page / "again.jpg").unlink()
    (tmp_path / "link").unlink()
    assert sorted(tmp_path.rglob("*")) == before


def test_what_ends_early_leaves_nothing(
    folder: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    page, before = tmp_path / "page", sorted(tmp_path.rglob("*"))
    with full_disk(500):
        assert gallery(folder, checkpoint, page) == 2
    assert "page.partial" in capsys.readouterr().err

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(photographs.Collector, "attended", stop)
        assert gallery(folder, checkpoint, page) == 130
    for broken in ("broken.jpg", "empty <b>.png", "absent.jpg"):
        assert gallery(folder / broken, checkpoint, page) == 2
        assert "no photograph could be scored: " in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
    Path(f"{page}.partial").mkdir()
    assert gallery(folder, checkpoint, page) == 2
    assert "page.partial is left of a call that was killed" in capsys.readouterr().err
    assert Path(f"{page}.partial").is_dir()


@pytest.mark.parametrize(("option", "value"), [("near", "17"), ("near", "-1"), ("thumbnail", "8")])
def test_an_option_out_of_range_is_named(
    option: str, value: str, folder: Path, checkpoint: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert gallery(folder, checkpoint, tmp_path / "page", f"--{option}={value}") == 2
    assert f"{option} is {value}: expected" in capsys.readouterr().err


def test_the_pages_ask_no_network_and_take_no_text_for_html() -> None:
    for file in (Path(make.__file__).parents[1] / "assets").iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.|\\bwss?:|@import", text), file
        for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert sink not in text, file
        if file.suffix == ".html":
            assert "default-src 'none'" in text and "unsafe" not in text
            assert not re.search(r"<script(?! defer src=)|\son\w+=|style=", text)
