"""Scoring photographs: the same score everywhere, and what is said about the others."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from eat.checkpoint import load_checkpoint, save_checkpoint
from eat.cli import main
from eat.score import Scorer, find_images


@pytest.fixture
def folder(sample: Path, tmp_path: Path) -> Path:
    """Five photographs, a broken one and a text file."""
    images = sorted((sample / "images").iterdir())[:5]
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for image in images[:4]:
        shutil.copy(image, tmp_path / "photos")
    shutil.copy(images[4], tmp_path / "photos" / "more")
    (tmp_path / "photos" / "broken.jpg").write_bytes(images[0].read_bytes()[:500])
    (tmp_path / "photos" / "notes.txt").write_text("no photo")
    return tmp_path / "photos"


def test_a_photo_has_one_score_alone_in_a_folder_and_in_python(
    folder: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = sorted(folder.glob("1*.jpg"))[2]
    main(["score", str(photo), "--checkpoint", str(checkpoint)])
    alone = {r["image"]: r for r in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    main(["score", str(folder), "--checkpoint", str(checkpoint)])
    among = {r["image"]: r for r in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    in_python = next(iter(Scorer(checkpoint)(photo)))
    assert len(among) == 5
    assert alone[str(photo)] == among[str(photo)]
    assert float(alone[str(photo)]["score"]) == pytest.approx(in_python.score, abs=1e-6)


@pytest.mark.parametrize("average", [False, True])
def test_neighbours_in_a_batch_change_nothing_bit_for_bit(
    folder: Path, checkpoint: Path, tmp_path: Path, average: bool
) -> None:
    model, info = load_checkpoint(checkpoint)
    info.model["settings"] = info.model["settings"] | {"average_points": average}
    save_checkpoint(tmp_path / "model.safetensors", model, info)
    scorer = Scorer(tmp_path / "model.safetensors", batch_size=3)
    files = sorted(folder.glob("1*.jpg"))
    together = [score.score for score in scorer(files)]
    alone = [next(iter(scorer(file))).score for file in files]
    assert together == alone


def test_scores_lie_on_the_scale_and_votes_make_them(folder: Path, checkpoint: Path) -> None:
    for score in Scorer(checkpoint)(folder):
        if not score.error:
            assert 1 <= score.score <= 10
            assert score.score == pytest.approx(np.dot(score.votes, np.arange(1, 11)), abs=1e-4)


def test_unreadable_files_are_reported_at_the_end_and_by_the_exit_code(
    folder: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["score", str(folder), "absent.jpg", "--checkpoint", str(checkpoint)]
    assert main([*argv, "--format", "jsonl"]) == 1
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == 7 and sum("score" in line for line in lines) == 5
    assert "broken.jpg: damaged or truncated" in err and "absent.jpg: no such file" in err
    assert main(["score", str(sorted(folder.glob("1*.jpg"))[0]), *argv[3:]]) == 0


def test_the_output_file_appears_whole(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    main(["score", str(folder / "1*.jpg"), "--checkpoint", str(checkpoint), "--out", str(out)])
    assert len(out.read_text().splitlines()) == 5
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_files_folders_and_patterns_are_found_once_and_in_order(folder: Path) -> None:
    names = [p.name for p in sorted(folder.glob("1*.jpg"))]
    assert [p.name for p in find_images([folder / "1*.jpg", folder / names[0]])] == names
    found = find_images([folder])
    assert len(found) == 6 and "notes.txt" not in {p.name for p in found}
    assert find_images([folder / "notes.txt", "gone/*.jpg"])[1] == Path("gone/*.jpg")


def test_a_model_of_another_scale_is_stretched_to_one_to_ten(
    folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    model, info = load_checkpoint(checkpoint)
    model.reset_classifier(1)
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.constant_(model.head.bias, 0.5)
    info.model["num_outputs"], info.dataset = 1, "aadb"  # scores 0..1, so 0.5 is the middle
    save_checkpoint(tmp_path / "aadb.safetensors", model, info)
    score = next(iter(Scorer(tmp_path / "aadb.safetensors")(sorted(folder.glob("1*.jpg"))[0])))
    assert score.score == pytest.approx(5.5) and score.votes == ()
