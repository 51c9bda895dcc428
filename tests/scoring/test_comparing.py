"""Comparing photographs and crops: order, differences, and how sure they are."""

import csv
import itertools
import json
import reprlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import eat
from eat.checkpoint import load_checkpoint, save_checkpoint
from eat.cli import main
from eat.data.scales import ScoreScale
from eat.scoring import Scorer, compare, comparison_lines
from eat.scoring.comparing import standard_error, superiority, vote_shares


@pytest.fixture
def files(sample: Path) -> list[str]:
    """Five photographs."""
    return [str(path) for path in sorted((sample / "images").iterdir())[:5]]


@pytest.fixture
def without_votes(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint whose model predicts scores of 0..100 alone."""
    model, info = load_checkpoint(checkpoint)
    info.model, info.scale = replace(info.model, num_outputs=1), ScoreScale(0, 100, 100, 50)
    model.reset_classifier(1)
    save_checkpoint(tmp_path / "score.safetensors", model, info)
    return tmp_path / "score.safetensors"


def test_uncertainty_is_that_of_the_single_votes() -> None:
    counts = np.array([[0, 3, 5, 2, 0], [1, 1, 4, 2, 2]])
    votes = [np.repeat(np.arange(1, 6), row) for row in counts]
    pairs = list(itertools.product(*votes))
    wins = sum((x > y) + (x == y) / 2 for x, y in pairs) / len(pairs)
    shares = [vote_shares(row / 7) for row in counts]
    assert superiority(*shares) == pytest.approx(wins)
    assert superiority(*shares) + superiority(*shares[::-1]) == pytest.approx(1)
    expected = np.sqrt(sum(np.var(one) / 40 for one in votes))
    assert standard_error(*shares, np.arange(1, 6), 40) == pytest.approx(expected)
    assert vote_shares([-1, 1, 3]).tolist() == [0, 0.25, 0.75]
    assert np.isnan(vote_shares([0.0, -1.0])).all()


def test_the_best_is_first_and_the_others_are_held_against_it(
    files: list[str], checkpoint: Path
) -> None:
    found = eat.compare(files, checkpoint=checkpoint)
    scores = sorted((one.score for one in Scorer(checkpoint)(files)), reverse=True)
    assert [one.score.score for one in found.photographs] == pytest.approx(scores, abs=1e-5)
    best, *others = found.photographs
    assert (best.difference, best.standard_error, best.superiority) == (0, None, None)
    values = np.arange(1, 11)
    for one in others:
        assert one.difference == best.score.score - one.score.score
        variances = [
            np.average((values - x.score.score) ** 2, weights=x.score.votes) for x in (best, one)
        ]
        assert one.standard_error == pytest.approx(np.sqrt(sum(variances) / 200), rel=1e-4)
        assert one.interval is not None and one.superiority is not None
        assert sum(one.interval) / 2 == pytest.approx(one.difference)
    own, mse = Scorer(checkpoint).info.scale, Scorer(checkpoint).info.metrics["mse"]
    assert found.rmse == pytest.approx(np.sqrt(mse) * own.target_scale)
    more = compare(files, checkpoint=Scorer(checkpoint), voters=800).photographs[1]
    assert more.standard_error == pytest.approx(others[0].standard_error / 2, rel=1e-4)


def test_a_crop_is_scored_as_the_picture_that_it_cuts_out(
    files: list[str], checkpoint: Path, tmp_path: Path
) -> None:
    scorer = Scorer(checkpoint)
    width, height = Image.open(files[0]).size
    pixels = scorer.info.preprocessing.read(Path(files[0])).pixels[:, 10:50, 30:62].clone()
    given = [f"{files[0]}[{width}x{height}+0+0]", f"{files[0]}[32x40+30+10]", files[0], pixels]
    whole, crop, photo, part = [one.score for one in scorer(given)]
    assert whole == photo and crop == part != photo
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    turned = tmp_path / "turned.png"
    Image.open(files[0]).save(turned, exif=exif)
    upright = np.asarray(Image.open(files[0]).convert("RGB").transpose(Image.Transpose.ROTATE_270))
    found = compare(
        [f"{turned}[20x30+{height - 20}+5]", upright[5:35, -20:].copy()], checkpoint=scorer
    )
    assert found.photographs[1].difference == 0
    assert found.photographs[1].superiority == pytest.approx(0.5)


@pytest.mark.parametrize("place", ["8x8+90+0", "8x8+0+90", "0x8+0+0", "97x1+0+0"])
def test_a_crop_that_is_not_within_the_photograph_is_refused_by_name(
    files: list[str], checkpoint: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["compare", *files[:2], f"{files[0]}[{place}]", "--checkpoint", str(checkpoint)]
    assert main([*argv, "--voters", "50"]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 5 and "95% interval: of the difference" in out
    size = "{} x {}".format(*Image.open(files[0]).size)
    expected = f"{files[0]}[{place}]: no rectangle within the photograph's {size} pixels"
    assert err == f"eat compare: not scored: {expected}\n"


def test_a_file_may_be_named_like_a_crop(
    files: list[str], checkpoint: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "a.jpg[5x5+0+0]"
    shutil.copy(files[0], odd)
    assert eat.score(odd, checkpoint=checkpoint).score == pytest.approx(
        eat.score(files[0], checkpoint=checkpoint).score, abs=1e-6
    )


def test_fewer_than_two_are_refused(
    files: list[str], checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for given in ([files[0]], [files[0], files[0]]):
        assert main(["compare", *given, "--checkpoint", str(checkpoint)]) == 2
        assert f"found {files[0]}: expected two or more" in capsys.readouterr().err
    assert main(["compare", files[0], "gone.jpg", "--checkpoint", str(checkpoint)]) == 2
    expected = "1 of 2 photographs can be scored, expected two or more: gone.jpg: no such file"
    assert expected in capsys.readouterr().err
    for voters in ("0", str(10**400)):
        assert main(["compare", *files, "--voters", voters, "--checkpoint", str(checkpoint)]) == 2
        told = f"voters is {reprlib.repr(int(voters))}: expected 1 to 1000000000\n"
        assert capsys.readouterr().err == f"eat compare: error: {told}"


def test_every_format_holds_the_same_numbers(
    files: list[str], checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = {}
    for form in ("csv", "jsonl", "json", "text"):
        argv = ["compare", *files[:3], "gone.jpg", "--format", form]
        assert main([*argv, "--checkpoint", str(checkpoint)]) == 1
        shown[form] = capsys.readouterr().out
    *lines, failed = map(json.loads, shown["jsonl"].splitlines())
    whole, rows = json.loads(shown["json"]), list(csv.DictReader(shown["csv"].splitlines()))
    assert whole["photographs"] == lines and whole["failed"] == [failed]
    assert "score" in lines[0] and len(rows) == len(lines) == 3
    assert (whole["target"], whole["voters"], failed["image"]) == ("score", 200, "gone.jpg")
    for line, row, text in zip(lines, rows, shown["text"].splitlines()[1:], strict=False):
        assert row["image"] == line["image"] and text.endswith(line["image"])
        assert float(row["difference"]) == line["difference"]
        assert row["superiority"] == ("" if row is rows[0] else f"{line['superiority']:.6f}")
        assert [float(row[f"v{k}"]) for k in range(1, 11)] == line["votes"]


def test_a_model_without_votes_says_so(
    files: list[str], without_votes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *files, "--checkpoint", str(without_votes), "--scale", "own"]) == 0
    head, *_, note, error = capsys.readouterr().out.splitlines()
    assert head.split() == ["score", "below", "the", "best"]
    assert note == "  the model predicts no votes, which would say how much people disagree"
    mse = load_checkpoint(without_votes)[1].metrics["mse"]
    assert f"{100 * np.sqrt(mse):.4f} (root mean square)" in error
    found = compare(files, checkpoint=without_votes, voters=10)
    assert found.voters is None and found.rmse == pytest.approx(9 * np.sqrt(mse))


@pytest.mark.parametrize("mse", [None, "0.1", float("nan"), -1.0, True, 10**400])
def test_an_error_that_no_run_writes_is_none(
    files: list[str], checkpoint: Path, tmp_path: Path, mse: object
) -> None:
    model, info = load_checkpoint(checkpoint)
    info.metrics["mse"], info.dataset = mse, "elsewhere"
    save_checkpoint(tmp_path / "x.safetensors", model, info)
    found = compare(files, checkpoint=tmp_path / "x.safetensors")
    assert found.rmse is None and found.voters is None
    assert [one.standard_error for one in found.photographs] == [None] * 5
    text = "\n".join(comparison_lines(found, "text"))
    assert "--voters N adds 95% intervals" in text and "own error" not in text


def test_of_several_targets_the_first_decides_whatever_the_others_are_called(
    files: list[str], checkpoint: Path, tmp_path: Path
) -> None:
    model, info = load_checkpoint(checkpoint)
    info.model = replace(info.model, num_outputs=2)
    info.targets = dict.fromkeys(("color", "difference"), info.scale)
    model.reset_classifier(2)
    save_checkpoint(tmp_path / "two.safetensors", model, info)
    found = compare(files, checkpoint=tmp_path / "two.safetensors")
    assert found.target == "color" and found.voters is None
    colours = [one.score.targets["color"] for one in found.photographs]
    assert [row["score"] for row in found.rows()] == colours == sorted(colours, reverse=True)
    assert [row["difference"] for row in found.rows()] == [colours[0] - x for x in colours]
