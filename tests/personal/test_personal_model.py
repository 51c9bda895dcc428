"""Personal models: what they learn, what is said of them, and how their small files are used."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import eat.checkpoint.adapted
from eat.checkpoint import load_checkpoint, read_info, read_origin, read_trained_on, save_checkpoint
from eat.cli import main
from eat.data.labels.table import LabelError
from eat.models import WeightsError
from eat.personal.own import Adaptation, Evidence, adapt
from eat.scoring import Scorer
from eat.system.files import file_digest


@pytest.fixture(scope="module")
def bright(sample: Path) -> pd.DataFrame:
    """Stars 1 to 5 of somebody who likes photographs the darker they are."""
    paths = sorted((sample / "images").glob("*.jpg"))
    light = np.array([np.asarray(Image.open(path).convert("L")).mean() for path in paths])
    stars = 5 - np.argsort(np.argsort(light)) * 5 // len(light)
    return pd.DataFrame({"image": [path.name for path in paths], "score": stars})


@pytest.fixture(scope="module")
def made(
    bright: pd.DataFrame, checkpoint: Path, sample: Path, tmp_path_factory: pytest.TempPathFactory
) -> Adaptation:
    """The personal model of that person."""
    out = tmp_path_factory.mktemp("own") / "me.safetensors"
    return adapt(bright, checkpoint=checkpoint, images=str(sample / "images"), out=out)


def scores(checkpoint: Path, sample: Path, general: str | None = None) -> np.ndarray:
    """Of all photographs of a sample, on the model's own scale."""
    scorer = Scorer(checkpoint, scale="own", general=general)
    return np.array([score.score for score in scorer(sample / "images")])


def forged(small: Path, out: Path, **change: str) -> Path:
    """A copy of a small file that names its general model in another way."""
    with safe_open(small, "np") as file:
        header = file.metadata()
    header["general"] = json.dumps(json.loads(header["general"]) | change)
    save_file(load_file(small), out, header)
    return out


def test_a_personal_model_rates_as_its_person_does(
    made: Adaptation, bright: pd.DataFrame, checkpoint: Path, sample: Path
) -> None:
    found = np.corrcoef(scores(made.out, sample), bright["score"])[0, 1]
    assert found > 0.9 > np.corrcoef(scores(checkpoint, sample), bright["score"])[0, 1]
    assert made.evidence.better and made.evidence.difference > 0.2
    assert made.words().startswith("better than the general model by +")
    assert made.info.scale.low, made.info.scale.high == (1, 5)
    assert np.abs(scores(made.out, sample) - bright["score"]).mean() < 1


def test_opinions_without_a_taste_make_no_better_model(
    bright: pd.DataFrame, checkpoint: Path, sample: Path, tmp_path: Path
) -> None:
    noise = bright.assign(score=np.random.default_rng(0).integers(1, 6, len(bright)))
    made = adapt(
        noise, checkpoint=checkpoint, images=str(sample / "images"), out=tmp_path / "me.safetensors"
    )
    assert made.words().startswith("no better than the general model: SRCC ")
    assert made.out.exists()


def test_a_small_file_and_a_whole_one_score_alike(
    made: Adaptation, bright: pd.DataFrame, checkpoint: Path, sample: Path, tmp_path: Path
) -> None:
    out = tmp_path / "whole.safetensors"
    whole = adapt(bright, checkpoint=checkpoint, images=str(sample / "images"), out=out, whole=True)
    assert np.array_equal(scores(made.out, sample), scores(out, sample))
    assert read_origin(out) is None and whole.evidence == made.evidence
    with safe_open(made.out, "np") as file:
        assert {*file.keys()} == {"head.weight", "head.bias"}
    assert made.out.stat().st_size < out.stat().st_size / 5


def test_the_same_ratings_make_the_same_bytes(
    made: Adaptation, bright: pd.DataFrame, checkpoint: Path, sample: Path, tmp_path: Path
) -> None:
    out = tmp_path / "again.safetensors"
    adapt(bright, checkpoint=checkpoint, images=str(sample / "images"), out=out)
    assert out.read_bytes() == made.out.read_bytes()


def test_evidence_is_of_opinions_that_were_not_learnt(
    bright: pd.DataFrame, checkpoint: Path, sample: Path, tmp_path: Path
) -> None:
    half = bright[::2]
    made = adapt(
        half, checkpoint=checkpoint, images=str(sample / "images"), out=tmp_path / "me.safetensors"
    )
    rest = bright.index.isin(half.index)
    held_out = np.corrcoef(scores(made.out, sample)[~rest], bright["score"][~rest])[0, 1]
    assert abs(held_out - made.evidence.personal) < 0.2


def test_choices_make_a_personal_model_too(
    bright: pd.DataFrame, checkpoint: Path, sample: Path, tmp_path: Path
) -> None:
    draw = np.random.default_rng(0).integers(len(bright), size=(600, 2))
    stars = bright["score"].to_numpy()[draw]
    draw = draw[stars[:, 0] > stars[:, 1] + 1][:120]
    names = bright["image"].to_numpy()[draw]
    file = tmp_path / "choices.jsonl"
    rows = [json.dumps({"winner": a, "loser": b}) for a, b in names]
    file.write_text("\n".join(rows) + "\n")
    out, images = tmp_path / "me.safetensors", str(sample / "images")
    made = adapt(file, checkpoint=checkpoint, images=images, out=out)
    assert made.evidence.metric == "accuracy" and made.evidence.better
    found = scores(out, sample)
    assert np.mean(found[draw[:, 0]] > found[draw[:, 1]]) > 0.8
    assert made.info.scale == read_info(checkpoint).scale


def test_ratings_of_one_photograph_count_once_as_their_mean_and_pages_are_noted(
    bright: pd.DataFrame, checkpoint: Path, sample: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    shutil.copytree(sample / "images", folder)
    shutil.copy(folder / bright["image"][0], folder / "copy.jpg")
    more = pd.DataFrame({"image": ["copy.jpg", bright["image"][1]], "score": [1, 1]})
    pages = folder / bright["image"][2]
    drawn = Image.open(pages).convert("RGB")
    drawn.save(pages, "TIFF", save_all=True, append_images=[drawn])
    file = folder / "ratings.csv"
    pd.concat([bright, more]).to_csv(file, index=False)
    made = adapt(file, checkpoint=checkpoint, out=tmp_path / "me.safetensors")
    assert made.notes[0].startswith("2 ratings repeat a photograph, by name or content")
    assert made.notes[-1] == f"{pages}: it has several pages: the first one was taken"
    assert made.evidence.photographs == made.evidence.opinions == len(bright)


def test_a_personal_model_knows_what_it_has_seen_and_not_how_others_score(
    made: Adaptation, bright: pd.DataFrame, checkpoint: Path
) -> None:
    info, seen = read_info(made.out), read_trained_on(made.out)
    before = read_trained_on(checkpoint)
    assert seen is not None and before is not None
    assert len(seen.names) == len(bright) > len(before.names)
    assert info.score_quantiles == () and not info.released
    assert info.metrics["srcc"] == made.evidence.personal
    with pytest.raises(ValueError, match="no percentiles"):
        Scorer(made.out, percentile=True)


def test_the_general_model_is_looked_for_beside_then_where_it_was_then_where_one_says(
    made: Adaptation, checkpoint: Path, sample: Path, bright: pd.DataFrame, tmp_path: Path
) -> None:
    place, folder = tmp_path / "general.safetensors", tmp_path / "elsewhere"
    shutil.copy(checkpoint, place)
    folder.mkdir()
    out = folder / "me.safetensors"
    adapt(bright, checkpoint=place, images=str(sample / "images"), out=out)
    expected = scores(made.out, sample)
    assert np.array_equal(scores(out, sample), expected)  # where it was
    beside = folder / place.name
    beside.write_bytes(b"another file")
    assert np.array_equal(scores(out, sample), expected)  # not by its name alone
    shutil.copy(checkpoint, beside)
    place.unlink()
    assert np.array_equal(scores(out, sample), expected)  # beside
    beside.unlink()
    with pytest.raises(WeightsError, match="no such file.*Give it as --general FILE"):
        load_checkpoint(out)
    assert np.array_equal(scores(out, sample, general=str(checkpoint)), expected)


def test_another_general_model_is_refused_with_both_named(
    made: Adaptation, checkpoint: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.safetensors"
    model, info = load_checkpoint(checkpoint)
    save_checkpoint(other, model, replace(info, epoch=1))
    origin = read_origin(made.out)
    assert origin is not None
    with pytest.raises(WeightsError, match=f"{origin.sha256[:16]}.*{other}: another model"):
        load_checkpoint(made.out, general=str(other))
    with pytest.raises(WeightsError, match="needs no other model: leave out --general"):
        load_checkpoint(checkpoint, general=str(other))


def test_a_general_model_in_a_folder_of_any_name_is_found(
    made: Adaptation, checkpoint: Path, tmp_path: Path
) -> None:
    place = tmp_path / "at 3\u202fPM\n" / "general.safetensors"
    place.parent.mkdir()
    shutil.copy(checkpoint, place)
    out = forged(made.out, tmp_path / "me.safetensors", place=str(place))
    assert load_checkpoint(out)[1] == made.info
    place.unlink()
    with pytest.raises(WeightsError, match=r"at 3\\u202fPM\\n/general.safetensors. Found"):
        load_checkpoint(out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"place": "//host/x"}, "name of its general model is damaged"),
        ({"place": "\\/host/x"}, "name of its general model is damaged"),
        ({"place": "x\0"}, "name of its general model is damaged"),
        ({"place": "x" * 10**6}, "name of its general model is damaged"),
        ({"sha256": "\x1b[2J"}, "name of its general model is damaged"),
        ({"place": "/dev/zero"}, "/dev/zero: a pipe, socket or device"),
        ({"place": "{here}/pipe"}, "pipe: a pipe, socket or device"),
        ({"place": "{here}"}, "a folder: expected a file"),
        ({"place": "https://host/x"}, "no such file"),
        ({"place": "{here}/me.safetensors"}, "me.safetensors: another model"),
        ({"place": "{made}", "sha256": "{sha}"}, "is a personal one itself"),
    ],
)
def test_a_forged_place_of_the_general_model_is_refused(
    change: dict[str, str], message: str, made: Adaptation, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    given = {"{here}": str(tmp_path), "{made}": str(made.out), "{sha}": file_digest(made.out)}
    for text, value in given.items():
        change = {key: old.replace(text, value) for key, old in change.items()}
    out = forged(made.out, tmp_path / "me.safetensors", **change)
    with pytest.raises(WeightsError, match=message):
        load_checkpoint(out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[:9], "9 ratings of 9 photographs: expected at least 10"),
        (lambda t: t[:0], "found no rows, expected a rating or choice a row"),
        (lambda t: t.assign(score=3), "all ratings are 3"),
        (lambda t: t.assign(score=t["score"] * 1e306), "score: found .*e.306."),
        (lambda t: t.assign(score=t["score"].replace(5, np.nan)), "column score.*a number"),
        (lambda t: t.assign(image="gone/" + t["image"]), "rated images are not in .*--images"),
        (lambda t: t.assign(worker=t["score"]), "ratings of several workers"),
        (lambda t: t.rename(columns={"score": "stars"}), "no column score or rating"),
        (lambda t: t.assign(winner="a", loser="b"), "columns of ratings and of choices"),
        (
            lambda t: t.set_axis(["winner", "loser"], axis=1).assign(loser=lambda c: c["winner"]),
            "another image than the winner",
        ),
    ],
)
def test_opinions_that_cannot_be_used_are_refused(
    change: Callable[[pd.DataFrame], pd.DataFrame],
    message: str,
    bright: pd.DataFrame,
    checkpoint: Path,
    sample: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "me.safetensors"
    with pytest.raises(LabelError, match=message):
        adapt(change(bright), checkpoint=checkpoint, images=str(sample / "images"), out=out)
    assert not out.exists()


def test_nothing_but_a_personal_model_is_written_over(
    made: Adaptation, bright: pd.DataFrame, checkpoint: Path, sample: Path, tmp_path: Path
) -> None:
    general = tmp_path / "general.safetensors"
    shutil.copy(checkpoint, general)
    images = str(sample / "images")
    for out in (
        general,
        sample / "images" / bright["image"][0],
        tmp_path / "no" / "me.safetensors",
    ):
        with pytest.raises(ValueError, match="--out"):
            adapt(bright, checkpoint=general, images=images, out=out)
    assert general.read_bytes() == checkpoint.read_bytes()
    mine = tmp_path / "me.safetensors"
    shutil.copy(made.out, mine)
    adapt(bright[:40], checkpoint=general, images=images, out=mine)
    assert read_info(mine).title.endswith("adapted to 40 ratings")
    with pytest.raises(ValueError, match="is a personal model: adapt the general one"):
        adapt(bright, checkpoint=mine, images=images, out=tmp_path / "new.safetensors")


def test_the_words_of_the_evidence() -> None:
    better = Evidence("SRCC", 0.7, 0.5, 0.1, 0.3, 40, 40)
    assert better.words() == (
        "better than the general model by +0.20 SRCC (95% +0.10 to +0.30): 0.70 against 0.50 on "
        "40 photographs, each by the ratings of others"
    )
    worse = Evidence("accuracy", 0.5, 0.7, -0.3, -0.1, 40, 30)
    assert worse.words() == (
        "no better than the general model: accuracy 0.50 against 0.70, difference -0.20 (95% -0.30 "
        "to -0.10), on 30 photographs, each by the choices of others"
    )


def test_the_command_says_what_the_model_is_worth(
    bright: pd.DataFrame,
    checkpoint: Path,
    sample: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, out = tmp_path / "ratings.csv", tmp_path / "me.safetensors"
    bright.to_csv(file, index=False)
    argv = ["adapt", str(file), "--checkpoint", str(checkpoint), "--out", str(out)]
    assert main([*argv, "--images", str(sample / "images")]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{out}: better than the general model by +")
    assert "ratings taken as from 1 to 5" in printed.err
    photo = str(sample / "images" / bright["image"][0])
    assert main(["score", photo, "--checkpoint", str(out), "--scale", "own"]) == 0
    assert 1 <= float(capsys.readouterr().out.splitlines()[1].split(",")[1]) <= 5


def test_a_small_file_without_all_its_weights_is_damaged(made: Adaptation, tmp_path: Path) -> None:
    with safe_open(made.out, "np") as file:
        header = file.metadata()
    save_file({"head.bias": load_file(made.out)["head.bias"]}, tmp_path / "x.safetensors", header)
    with pytest.raises(WeightsError, match="damaged: it has 1 weights, and names 2"):
        load_checkpoint(tmp_path / "x.safetensors")


def test_a_general_model_that_changes_after_its_fingerprint_was_taken_is_refused(
    made: Adaptation, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, info = load_checkpoint(checkpoint)
    with torch.no_grad():
        model.get_classifier().weight.mul_(0.5)
    found, digest = tmp_path / checkpoint.name, eat.checkpoint.adapted.file_digest
    shutil.copy(checkpoint, found)

    def swapped(path: Path) -> str:
        digits = digest(path)
        save_checkpoint(found, model, info)
        return digits

    monkeypatch.setattr(eat.checkpoint.adapted, "file_digest", swapped)
    with pytest.raises(WeightsError, match="changed while it was read"):
        load_checkpoint(made.out, general=str(found))
