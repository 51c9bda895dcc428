"""Bulk scoring from the command line, on this machine: scores, counts, and going on."""

import hashlib
import json
import os
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import filelock
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eat.bulk.cluster import _remove_left_folders
from eat.cli import main
from eat.scoring import Scorer

pytest.importorskip("ray", reason="bulk scoring needs pip install 'eat-iaa[ray]'")


def pack(path: Path, files: list[Path], mode: str = "w") -> None:
    with tarfile.open(path, mode) as tar:
        for file in files:
            tar.add(file, file.name)


@pytest.fixture(scope="module")
def given(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of the sample's 64 images: two tars, one cut off, a Parquet file, and a folder."""
    folder = tmp_path_factory.mktemp("given")
    images = sorted((sample / "images").iterdir())
    broken = folder / "broken.jpg"
    broken.write_bytes(images[0].read_bytes()[:500])
    pack(folder / "0.tar", [*images[:20], broken])
    pack(folder / "1.tar.gz", images[20:30], "w:gz")
    pack(folder / "cut.tar", images[30:40])
    contents = [path.read_bytes() for path in images[40:50]]
    table = pa.table({"image": contents, "key": [path.stem for path in images[40:50]]})
    pq.write_table(table, folder / "2.parquet")
    (folder / "photos").mkdir()
    for path in images[50:]:
        shutil.copy(path, folder / "photos")
    shutil.move(broken, folder / "photos/broken.jpg")
    return folder


@pytest.fixture(scope="module")
def ours() -> Iterator[None]:
    """Whatever Ray starts for these tests is gone at their end."""
    yield
    lines = [" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])]
    session = re.compile(rf"session_[\d_-]+_{os.getpid()}\b")  # as Ray names it
    assert not [line for line in lines if session.search(line)]
    assert not [c for c in psutil.Process().children(recursive=True) if "ray" in c.name()]


def score(given: Path, out: Path, checkpoint: Path, *options: str) -> int:
    things = ["0.tar", "1.tar.gz", "cut.tar", "2.parquet", "photos"]
    things = [str(given / thing) for thing in things]
    options = ("--engine", "ray", "--shard_size", "8", "--sha256", "true", *options)
    return main(["score", *things, *options, "--checkpoint", str(checkpoint), "--out", str(out)])


def summary(out: Path) -> dict:
    return json.loads((out / "_summary.json").read_text())


@pytest.mark.long
@pytest.mark.usefixtures("ours")
def test_every_image_of_readable_shards_has_the_score_that_it_has_alone(
    given: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores"
    cut = given / "cut.tar"
    whole = cut.read_bytes()
    cut.write_bytes(whole[:20_000])
    try:
        assert score(given, out, checkpoint) == 1
        said = capsys.readouterr()
        assert "5 shards done, 1 not read; 56 images: 54 scored, 2 with an error" in said.out
        (problem,) = said.err.splitlines()
        assert problem.startswith(f"eat score: not read: {cut}: ")
        first = summary(out)
        assert (first["images"], first["scored"], first["errors"]) == (56, 54, 2)
        assert [*first["failed"]] == [str(cut)] and first["calls"][0]["shards_failed"] == 1
        kept = {path: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
        assert len(kept) == 5
    finally:
        cut.write_bytes(whole)

    assert score(given, out, checkpoint) == 0
    said = capsys.readouterr()
    assert "1 shards done, 5 were there, 0 not read; 66 images: 64 scored" in said.out
    assert said.err == ""
    again = summary(out)
    assert (again["images"], again["errors"], len(again["calls"])) == (66, 2, 2)
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())

    table = pd.read_parquet(out)
    assert len(table) == 66 and table["shard"].nunique() == 5
    names = table["key"].map(lambda key: Path(key).stem)
    assert sorted(names) == sorted([*names[names != "broken"].unique(), "broken", "broken"])
    bad = table[table["error"].notna()]
    assert bad["score"].isna().all() and bad["votes"].isna().all() and len(bad) == 2
    scored = table[table["error"].isna()].assign(name=names).set_index("name")
    images = {path.stem: path for path in (given / "photos").iterdir()}
    sample = {Path(s.image).stem: s for s in Scorer(checkpoint, device="cpu")(images.values())}
    for name, alone in sample.items():
        if not alone.error:
            assert scored.loc[name, "score"] == pytest.approx(alone.score, abs=1e-5)
            assert [*scored.loc[name, "votes"]] == pytest.approx(alone.votes, abs=1e-5)
            content = images[name].read_bytes()
            assert scored.loc[name, "sha256"] == hashlib.sha256(content).hexdigest()


def test_folders_of_killed_calls_are_removed_and_those_of_living_ones_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("left", "held"):
        (tmp_path / f"eat-ray-{name}").mkdir()
        (tmp_path / f"eat-ray-{name}" / "lock").touch()
    with filelock.FileLock(tmp_path / "eat-ray-held" / "lock"):
        _remove_left_folders()
    assert os.listdir(tmp_path) == ["eat-ray-held"]


def test_options_of_the_other_engine_and_other_things_are_refused(
    given: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores"
    for options, message in [
        (["--format", "jsonl"], "--format is for --engine local alone"),
        (["--resume", "true"], "--resume is for --engine local alone: the same call goes on"),
        (["--shard_size", "0"], "shard_size is 0: expected 1 to 1000000"),
        (["--actors", "5000"], "actors is 5000: expected 1 to 1024"),
        (["--device", "cuda:1"], "device is 'cuda:1': expected auto, cpu or cuda"),
        (["--precision", "int8", "--compile", "true"], "int8, which is not compiled"),
        (["--precision", "int8", "--device", "cuda"], "int8, which runs on a CPU"),
    ]:
        assert score(given, out, checkpoint, *options) == 2
        assert message in capsys.readouterr().err
    for options, message in [
        ([str(given / "0.tar")], "0.tar: no photograph: --engine ray takes tars"),
        ([str(given / "photos"), "--sha256", "true"], "--sha256 is for --engine ray alone"),
        (["s3://bucket/a.jpg"], "s3://bucket/a.jpg: no photograph: --engine ray takes"),
        ([str(given / "photos"), "--engine", "ray"], "give --out FOLDER"),
    ]:
        assert main(["score", *options, "--checkpoint", str(checkpoint)]) == 2
        assert message in capsys.readouterr().err
    assert not out.exists()


def test_without_its_packages_the_command_says_what_to_install(
    given: Path,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.startswith("eat.bulk.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert score(given, tmp_path / "scores", checkpoint) == 2
    assert "needs the package pyarrow: pip install 'eat-iaa[ray]'" in capsys.readouterr().err
