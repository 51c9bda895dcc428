import ast
import dataclasses
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import full_disk
from PIL import Image

from eat.cli import main
from eat.sample import make as sample
from eat.sample import scenes
from eat.sample.make import expected_score, make_sample, make_workers


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make_sample(tmp_path_factory.mktemp("sample") / "small", train=24, test=8, size=64)


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample") / "rated"
    make_sample(folder, train=30, test=160, size=32)
    make_workers(folder, workers=6, test_workers=3, ratings=20)
    return folder


def read_ava(folder):
    return np.loadtxt(folder / "AVA.txt", dtype=int)


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_layout_is_that_of_ava(small):
    ava = read_ava(small)
    assert ava.shape == (32, 15)
    assert ava[:, 0].tolist() == list(range(1, 33))
    assert len(set(ava[:, 1])) == 32
    votes = ava[:, 2:12]
    assert votes.min() >= 0
    assert ((votes.sum(1) >= 150) & (votes.sum(1) <= 250)).all()
    tags = dict(line.split(" ") for line in (small / "tags.txt").read_text().splitlines())
    assert set(map(str, ava[:, 12:14].ravel())) <= {"0", *tags}
    challenges = dict(
        line.split(" ") for line in (small / "challenges.txt").read_text().split("\n")[:-1]
    )
    assert set(map(str, ava[:, 14])) <= set(challenges)
    test_ids = [int(line) for line in (small / "generic_test.jpgl").read_text().splitlines()]
    assert test_ids == ava[24:, 1].tolist()


def test_every_listed_image_opens_and_no_other_is_there(small):
    ids = read_ava(small)[:, 1]
    shapes = set()
    for image_id in ids:
        with Image.open(small / "images" / f"{image_id}.jpg") as image:
            image.load()
            assert image.mode == "RGB" and max(image.size) == 64
            shapes.add(image.size)
    assert len(shapes) >= 3
    assert {path.stem for path in (small / "images").iterdir()} == set(map(str, ids))


def test_tag_names_the_scene(small):
    factors = pd.read_csv(small / "factors.csv")
    for tag, scene in zip(read_ava(small)[:, 12], factors["scene"], strict=True):
        assert tag in (0, sample.TAGS[scene])


def test_same_seed_gives_same_bytes(small, tmp_path):
    again = make_sample(tmp_path / "again", train=24, test=8, size=64)
    assert contents(again) == contents(small)


def test_another_seed_and_the_other_split_give_other_images(small, tmp_path):
    other = make_sample(tmp_path / "other", train=8, test=8, size=64, seed=1)
    everything = [path.read_bytes() for path in small.glob("images/*.jpg")]
    everything += [path.read_bytes() for path in other.glob("images/*.jpg")]
    assert len(set(everything)) == 32 + 16


def test_more_images_leave_the_earlier_ones_alone(small, tmp_path):
    few = make_sample(tmp_path / "few", train=5, test=3, size=64)
    for path in few.glob("images/*.jpg"):
        assert path.read_bytes() == (small / "images" / path.name).read_bytes()
    votes = {row[1]: row[1:].tolist() for row in read_ava(small)}
    assert all(votes[row[1]] == row[1:].tolist() for row in read_ava(few))


def test_score_rises_with_each_term_and_neither_is_enough():
    draws = [scenes.draw_factors(np.random.default_rng([7, i])) for i in range(1000)]
    scores = pd.Series([expected_score(factors) for factors in draws])
    terms = pd.DataFrame(
        {name: [getattr(f, name) for f in draws] for name in ("foreground", "background")}
    )
    for name in terms:
        assert 0.55 < scores.corr(terms[name], method="spearman") < 0.8
    assert abs(terms.corr().iloc[0, 1]) < 0.1
    assert scores.corr(terms.sum(axis=1), method="spearman") > 0.95
    assert 0.8 < scores.std() < 1.4 and scores.min() >= 2.5 and scores.max() <= 8.5


def test_a_taste_moves_votes_and_workers_and_leaves_the_images(tmp_path):
    folders = [tmp_path / "even", tmp_path / "front"]
    tastes = []
    for folder, taste in zip(folders, (0.5, 1.0), strict=True):
        make_sample(folder, train=2, test=150, size=32, taste=taste)
        make_workers(folder, workers=1, test_workers=40, ratings=2)
        tastes.append(pd.read_csv(folder / "flickr_aes" / "tastes.csv").mean(numeric_only=True))
    even, front = (contents(folder) for folder in folders)
    assert all(front[name] == image for name, image in even.items() if name.endswith(".jpg"))
    factors = pd.read_csv(folders[1] / "factors.csv")
    fits = [factors["expected_score"].corr(factors[name]) for name in ("foreground", "background")]
    assert fits[0] > 0.9 and abs(fits[1]) < 0.3
    assert tastes[1]["foreground"] > 2 * tastes[1]["background"]
    assert abs(tastes[0]["foreground"] - tastes[0]["background"]) < 0.2


@pytest.mark.parametrize("name", [*scenes.FOREGROUND, *scenes.BACKGROUND, *scenes.TECHNICAL])
def test_every_factor_is_seen_in_the_image_and_in_the_score(name):
    values = dict.fromkeys([*scenes.FOREGROUND, *scenes.BACKGROUND, *scenes.TECHNICAL], 0.5)
    good = scenes.Factors("Landscape", "tree", "Blue_Morning", values | {name: 0.9})
    bad = dataclasses.replace(good, values=values | {name: 0.1})
    first, second = (
        np.asarray(scenes.draw_scene(f, np.random.default_rng(0), 64), float) for f in (good, bad)
    )
    assert np.abs(first - second).mean() > 1
    assert expected_score(good) > expected_score(bad)


@pytest.mark.parametrize("scene", scenes.SCENES)
def test_every_scene_takes_each_of_its_subjects(scene):
    values = dict.fromkeys([*scenes.FOREGROUND, *scenes.BACKGROUND, *scenes.TECHNICAL], 0.9)
    pictures = {
        scenes.draw_scene(
            scenes.Factors(scene, subject, "Golden_Hour", values), np.random.default_rng(3), 48
        ).tobytes()
        for subject in scenes.SCENES[scene]
    }
    assert len(pictures) == len(scenes.SCENES[scene])


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_interrupted_run_leaves_nothing(tmp_path, monkeypatch, error):
    real, count = sample.draw_scene, iter(range(100))

    def fail_late(*args):
        if next(count) == 5:
            raise error
        return real(*args)

    monkeypatch.setattr(sample, "draw_scene", fail_late)
    with pytest.raises(error):
        make_sample(tmp_path / "sample", train=10, test=4, size=32)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed(tmp_path):
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    for pid, suffix in ((killed.pid, "partial"), (killed.pid, "old"), (os.getpid(), "partial")):
        (tmp_path / f".sample.{pid}-0123abcd.{suffix}").mkdir()
    make_sample(tmp_path / "sample", train=3, test=2, size=32)
    left = [f".sample.{os.getpid()}-0123abcd.partial", "sample"]
    assert sorted(path.name for path in tmp_path.iterdir()) == left


def test_failed_overwrite_keeps_the_old_sample(tmp_path, monkeypatch):
    folder = make_sample(tmp_path / "sample", train=3, test=2, size=32)
    before = contents(folder)
    monkeypatch.setattr(sample, "draw_scene", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_sample(folder, train=4, test=2, size=32, overwrite=True)
    assert contents(folder) == before
    assert list(tmp_path.iterdir()) == [folder]


def test_existing_folder(tmp_path, monkeypatch):
    settings = {"train": 3, "test": 2, "size": 32}
    folder = make_sample(tmp_path / "sample", **settings)
    with monkeypatch.context() as patch:
        patch.setattr(sample, "draw_scene", lambda *args: 1 / 0)
        assert make_sample(folder, **settings) == folder
    with pytest.raises(FileExistsError, match="other settings.*overwrite=True"):
        make_sample(folder, train=4, test=2, size=32)
    (folder / "images" / "500001.jpg").unlink()
    with pytest.raises(FileExistsError, match="files missing"):
        make_sample(folder, **settings)
    make_sample(folder, **settings, overwrite=True)
    assert (folder / "images" / "500001.jpg").is_file()


def test_a_sample_that_another_process_made_meanwhile_is_not_replaced(tmp_path, monkeypatch):
    write = sample._write_sample

    def slowly(*given):
        monkeypatch.setattr(sample, "_write_sample", write)
        make_sample(tmp_path / "data", train=1, test=1, size=32, task="background")
        write(*given)

    monkeypatch.setattr(sample, "_write_sample", slowly)
    with pytest.raises(FileExistsError, match="holds a sample with other settings"):
        make_sample(tmp_path / "data", train=1, test=1, size=32)
    assert sample.task_of(tmp_path / "data") == "background"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_full_disk_leaves_no_sample_of_cut_images(tmp_path):
    with full_disk(), pytest.raises(OSError, match="File too large"):
        make_sample(tmp_path / "data", train=2, test=1, size=64)
    assert not list(tmp_path.iterdir())


def test_overwrite_never_deletes_what_is_no_sample(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="is no sample"):
        make_sample(tmp_path, train=2, test=2, size=32, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("name", ["runs", "images/mine.jpg"])
def test_overwrite_never_deletes_what_lies_in_a_sample(tmp_path, name):
    folder = make_sample(tmp_path / "sample", train=1, test=1, size=32)
    (folder / name).write_text("years of work")
    with pytest.raises(FileExistsError, match=f"{name} is no part of a sample"):
        make_sample(folder, train=2, test=1, size=32, overwrite=True)
    assert (folder / name).read_text() == "years of work"


WRONG = [
    {"taste": 1.5},
    {"train": 0},
    {"test": 0},
    {"test": 400_001},
    {"size": 8},
    {"size": 4097},
    {"seed": -1},
]


@pytest.mark.parametrize("wrong", WRONG)
def test_numbers_out_of_range_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        make_sample(tmp_path / "sample", **wrong)
    assert list(tmp_path.iterdir()) == []


def read_ratings(folder):
    path = folder / "flickr_aes" / "FLICKR-AES_image_labeled_by_each_worker.csv"
    assert path.read_text().startswith(" worker, imagePair, score\n")
    return pd.read_csv(path, names=["worker", "image", "score"], skiprows=1)


def test_workers_rate_their_own_split(rated):
    ratings = read_ratings(rated)
    test_workers = pd.read_csv(rated / "flickr_aes" / "test_workers_ID.csv")["ID"]
    assert len(test_workers) == 3 and ratings["worker"].nunique() == 9
    assert ratings["score"].between(1, 5).all()
    assert not ratings.duplicated(["worker", "image"]).any()
    test_images = {f"{line}.jpg" for line in (rated / "generic_test.jpgl").read_text().split()}
    of_test_worker = ratings["worker"].isin(test_workers)
    assert (ratings["image"].isin(test_images) == of_test_worker).all()
    counts = ratings.groupby("worker").size()
    assert (counts[test_workers] >= 150).all()
    assert (counts.drop(test_workers) == 20).all()


def test_image_scores_cover_every_image(rated):
    lines = (rated / "flickr_aes" / "FLICKR-AES_image_score.txt").read_text().splitlines()
    scores = {name: float(score) for name, score in (line.split(" ") for line in lines)}
    assert set(scores) == {path.name for path in (rated / "images").iterdir()}
    assert all(0 <= score <= 1 for score in scores.values())
    assert np.std(list(scores.values())) > 0.05


def test_ratings_follow_the_taste_of_their_worker(rated):
    factors = pd.read_csv(rated / "factors.csv").set_index("image")
    tastes = pd.read_csv(rated / "flickr_aes" / "tastes.csv").set_index("worker")
    assert (tastes < 0).any(axis=None)
    assert np.allclose((tastes**2).sum(axis=1), 1, atol=1e-3)
    centre, spread = np.array(list(sample.TASTES.values())).T
    for worker, given in read_ratings(rated).groupby("worker"):
        if len(given) < 150:
            continue
        liking = (factors.loc[given["image"], list(tastes)] - centre) / spread
        own = given["score"].corr(pd.Series(liking @ tastes.loc[worker]).set_axis(given.index))
        others = [
            given["score"].corr(pd.Series(liking @ tastes.loc[other]).set_axis(given.index))
            for other in tastes.index.drop(worker)
        ]
        assert own > 0.8 and own > np.mean(others) + 0.2


def test_a_damaged_sample_gets_no_workers(tmp_path):
    folder = make_sample(tmp_path / "sample", train=1, test=1, size=32)
    sound = (folder / "factors.csv").read_text()
    for damaged in ("", "image\n", sound[:-300], sound.replace("train", '"', 1), sound + "x\n"):
        (folder / "factors.csv").write_text(damaged)
        with pytest.raises(ValueError, match="factors.csv: .*; make the sample anew"):
            make_workers(folder, workers=1, test_workers=1, ratings=1)


def test_a_wrong_number_of_workers_makes_no_sample(tmp_path, capsys):
    assert main(["sample", str(tmp_path / "sample"), "--workers", "-1"]) == 2
    assert "workers is -1: expected at least 0" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_workers_are_reused_or_refused(rated, small):
    before = contents(rated)
    make_workers(rated, workers=6, test_workers=3, ratings=20)
    assert contents(rated) == before
    with pytest.raises(FileExistsError, match="other settings"):
        make_workers(rated, workers=5)
    with pytest.raises(ValueError, match="a test worker rates 150 images, the sample has 8"):
        make_workers(small, ratings=20)
    assert not (small / "flickr_aes").exists()
    with pytest.raises(FileNotFoundError, match="sample.json"):
        make_workers(small / "images")


@pytest.mark.parametrize("module", [sample, scenes])
def test_drawing_imports_no_torch(module):
    nodes = list(ast.walk(ast.parse(Path(module.__file__).read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert "numpy" in names
    assert not {name for name in names if name.split(".")[0] in ("torch", "torchvision")}


def test_the_script_of_statistics_says_what_it_expects(tmp_path, monkeypatch):
    script = Path(__file__).parents[2] / "scripts" / "sample_statistics.py"
    for argv in ([], [str(tmp_path)]):
        monkeypatch.setattr(sys, "argv", [str(script), *argv])
        with pytest.raises(SystemExit, match="expected the folder of a sample, with factors.csv"):
            runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("image,foreground,background,expected_score\na,1,1,1\n", "line 1: no column split"),
        ("a.jpg,train,1,1,1\nb.jpg,train,1,1,1\n", "expected images of the train split and of"),
        ("a.jpg,train,1,?,1\nb.jpg,test,1,1,1\n", "line 2, column background: .*expected a number"),
        ("a.jpg,train,1,1\n", "line 2"),
        ("a.jpg,train,1,1,1\nb.jpg,test,1,1,1\n", r"a\.jpg: no such file"),
    ],
)
def test_a_damaged_table_of_factors_is_one_message(rows, message, tmp_path, monkeypatch, capsys):
    script = Path(__file__).parents[2] / "scripts" / "sample_statistics.py"
    head = "" if rows.startswith("image") else "image,split,foreground,background,expected_score\n"
    (tmp_path / "factors.csv").write_text(head + rows)
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(script), run_name="__main__")
    assert re.search(f"sample_statistics.py: error: {tmp_path}.*{message}", capsys.readouterr().err)
