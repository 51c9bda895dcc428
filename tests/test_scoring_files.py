"""``eat score`` and the file system: odd files, files of scores, and interrupted calls."""

import io
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

import eat.scoring.partial
from eat.cli import main
from eat.data.photos import IMAGES, find_images


@pytest.fixture
def folder(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder has one with four photographs and a broken one, the third by name."""
    monkeypatch.chdir(tmp_path)
    images = sorted((sample / "images").iterdir())
    Path("photos").mkdir()
    for name, image in zip("abde", images, strict=False):
        shutil.copy(image, f"photos/{name}.jpg")
    Path("photos/c.jpg").write_bytes(images[0].read_bytes()[:500])
    return Path("photos")


def score(folder: Path, checkpoint: Path, *options: str) -> int:
    """Exit code of ``eat score``."""
    return main(["score", str(folder), "--checkpoint", str(checkpoint), *options])


def split_numbers(text: str) -> tuple[str, list[float]]:
    """A text without its decimals, and these."""
    number = r"\d+\.\d+"
    return re.sub(number, "x", text), [*map(float, re.findall(number, text))]


def stop_after(count: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a signal come once so many lines, that of the settings included, are on disk."""
    append, lines = eat.scoring.partial.append_line, []

    def watched(path: Path, line: str) -> None:
        append(path, line)
        lines.append(line)
        if len(lines) == count:
            signal.raise_signal(number)

    monkeypatch.setattr(eat.scoring.partial, "append_line", watched)


@pytest.mark.parametrize(
    ("form", "number", "code"), [("csv", signal.SIGTERM, 143), ("jsonl", signal.SIGINT, 130)]
)
def test_an_interrupted_file_goes_on_and_is_as_without(
    folder: Path, checkpoint: Path, form: str, number: int, code: int,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert score(folder, checkpoint, "--out", "whole", "--format", form) == 1
    notes = capsys.readouterr().err
    stop_after(4, number, monkeypatch)  # the settings, a, b and the broken one
    argv = ("--out", "new/scores", "--format", form)
    assert score(folder, checkpoint, *argv) == code
    assert capsys.readouterr().err == (
        f"eat score: stopped by {signal.Signals(number).name} after 3 images; their scores are kept"
        " in new/scores.partial: continue with --resume true\n"
    )
    assert [path.name for path in Path("new").iterdir()] == ["scores.partial"]
    with Path("new/scores.partial").open("a") as file:
        file.write('{"image": "photos/d.jp')  # as a kill would leave it
    decoded = []
    decode = eat.scoring.Scorer._decode
    monkeypatch.setattr(
        eat.scoring.Scorer, "_decode", lambda self, f: decoded.append(f.name) or decode(self, f)
    )
    assert score(folder, checkpoint, *argv, "--resume", "true") == 1
    assert sorted(decoded) == ["d.jpg", "e.jpg"]
    found, whole = (split_numbers(Path(name).read_text()) for name in ("new/scores", "whole"))
    assert found[0] == whole[0] and found[1] == pytest.approx(whole[1], abs=1e-5)
    assert [path.name for path in Path("new").iterdir()] == ["scores"]
    assert capsys.readouterr().err == notes  # the broken one is not forgotten


def test_partial_scores_are_continued_only_if_they_are_of_the_same_call(
    folder: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    stop_after(3, signal.SIGTERM, monkeypatch)
    score(folder, checkpoint, "--out", "s")
    partial = Path("s.partial")
    content = partial.read_text()
    header, first, second = content.splitlines(keepends=True)

    def refused(*options: str, images: Path = folder) -> str:
        capsys.readouterr()
        assert score(images, checkpoint, "--out", "s", *options) == 2
        assert not Path("s").exists()
        return capsys.readouterr().err

    go_on = "--resume", "true"
    assert "go on from them with --resume true, or delete it" in refused()
    assert "scale (was 'ten', now 'own')" in refused(*go_on, "--scale", "own")
    assert "2 images that are not among those given, such as photos/a.jpg" in refused(
        *go_on, images=folder / "e.jpg"
    )
    for damaged in (first + first, "[]\n", first.replace(" [", ' ["'), "\xff\n", "9" * 5000 + "\n"):
        partial.write_text(header + damaged)
        assert "s.partial, line " in refused(*go_on)
    partial.write_text("null\n" + first)
    assert "checkpoint (was None, now '" in refused(*go_on)
    assert "--resume goes on with a file" in (
        score(folder, checkpoint, *go_on) == 2 and capsys.readouterr().err
    )
    partial.write_text(header[:20])  # killed at once
    assert score(folder, checkpoint, "--out", "s", *go_on) == 1
    assert len(Path("s").read_text().splitlines()) == 5 and not partial.exists()


def test_nothing_but_scores_is_overwritten(
    folder: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = folder / "a.jpg"
    shutil.copy(photo, "no_suffix")
    os.mkfifo("pipe")
    Path("dead").symlink_to("gone")
    before = photo.read_bytes()
    for out in (photo, "no_suffix", checkpoint, "photos", "pipe", "dead", ""):
        assert score(photo, checkpoint, "--out", str(out)) == 2
        assert f"error: {Path(out)} is there and not of this" in capsys.readouterr().err
    assert photo.read_bytes() == Path("no_suffix").read_bytes() == before
    Path("empty").touch()
    for form in ("csv", "jsonl", "csv"):
        assert score(photo, checkpoint, "--out", "empty", "--format", form) == 0
    assert Path("empty").read_text().startswith("image,score")


@pytest.mark.parametrize("named", [True, False])
def test_what_is_no_file_is_one_reported_error(
    folder: Path, checkpoint: Path, named: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(folder / "pipe.jpg")
    for name, target in {"zero": "/dev/zero", "dead": "gone", "loop": "loop.jpg"}.items():
        (folder / f"{name}.jpg").symlink_to(target)
    odd = [str(folder / f"{name}.jpg") for name in ("dead", "loop", "pipe", "zero")]
    images = [*odd, str(folder / "a.jpg")] if named else [str(folder)]
    assert main(["score", *images, "--checkpoint", str(checkpoint)]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == (2 if named else 5)
    lines = [line for line in err.splitlines() if "c.jpg" not in line]
    assert all(
        "not scored: " in line and path in line for line, path in zip(lines, odd, strict=True)
    )


def test_a_folder_without_images_is_reported_and_the_rest_is_scored(
    folder: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    argv = ["score", "empty", str(folder / "a.jpg"), "", "--checkpoint", str(checkpoint)]
    assert main(argv) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert f"not scored: empty/{IMAGES}: no such file" in err and "not scored: .: " in err


def test_a_folder_that_cannot_be_listed_is_kept_to_be_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "closed").mkdir()
    scandir = os.scandir

    def guarded(path: str):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    closed = folder / "closed" / IMAGES
    assert find_images([folder]) == sorted([*folder.glob("*.jpg"), closed])


def test_a_name_that_the_terminal_cannot_show_is_escaped(
    folder: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "c.jpg").unlink()
    shutil.copy(folder / "a.jpg", os.path.join(os.fsencode(folder), b"\xff.jpg"))
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, "ascii"))
    shutil.copy(folder / "a.jpg", folder / "\N{BLACK STAR}.jpg")
    assert score(folder, checkpoint) == 0
    names = [line.split(b",")[0] for line in shown.getvalue().splitlines()]
    assert len(names) == 7 and names[-2:] == [rb"photos/\u2605.jpg", rb"photos/\udcff.jpg"]
