"""The check of a data set finds each planted fault, resumes, and drops nothing by itself."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from eat.cli import main
from eat.data.labels import LabelError
from eat.data.prepare import check_files, prepare, read_checks
from eat.data.registry import read_labels


@pytest.fixture
def tad66k(tmp_path: Path) -> Path:
    """A small sound data set in TAD66K's format: 30 training and 10 test images in a subfolder."""
    folder = tmp_path / "set"
    (folder / "images" / "part").mkdir(parents=True)
    draw = np.random.default_rng(0)
    rows = {"train": [], "test": []}
    for i in range(40):
        pixels = draw.integers(0, 256, (80, 100, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / "part" / f"{i:03}.jpg")
        rows["train" if i < 30 else "test"].append(f"part/{i:03}.jpg,{i % 9 + 1}.5")
    for split, lines in rows.items():
        (folder / f"{split}.csv").write_text("\n".join(["image,score", *lines]) + "\n")
    return folder


def checked(folder: Path, **options):
    """The report on a folder, with two processes."""
    return prepare("tad66k", str(folder), str(folder / "images"), str(folder / "out"), workers=2,
                   **options)  # fmt: skip


def plant(folder: Path) -> dict[str, list[str]]:
    """Break images in every way; returns what is to be found."""
    images = folder / "images" / "part"
    (images / "000.jpg").unlink()
    (images / "001.jpg").write_bytes(b"")
    (images / "002.jpg").write_text("no picture")
    for name, share in (("003.jpg", 0.3), ("004.jpg", 0.9)):
        content = (images / name).read_bytes()
        (images / name).write_bytes(content[: int(share * len(content))])
    shutil.copy(images / "010.jpg", images / "011.jpg")  # within a split
    shutil.copy(images / "012.jpg", images / "035.jpg")  # across the splits
    Image.new("RGB", (20, 90), "red").save(images / "013.jpg")
    (images / "stray.jpg").write_text("unlabelled")
    return {
        "missing": ["part/000.jpg"],
        "empty": ["part/001.jpg"],
        "not an image": ["part/002.jpg"],
        "damaged": ["part/003.jpg", "part/004.jpg"],
    }


def test_a_sound_set_is_cleaned_at_once(tad66k: Path) -> None:
    report = checked(tad66k)
    assert report.ok and report.cleaned
    assert report.counts == {"train": 30, "test": 10}
    assert "30 train (official: 52248), 10 test (official: 14079)" in report.summary()
    expected = read_labels("tad66k", tad66k)
    pd.testing.assert_frame_equal(read_labels("tad66k", tad66k / "out"), expected)


def test_every_planted_fault_is_found_by_name(tad66k: Path) -> None:
    expected = plant(tad66k)
    report = checked(tad66k)
    assert report.problems == expected and not report.ok and not report.cleaned
    assert report.duplicates == [["part/010.jpg", "part/011.jpg"], ["part/012.jpg", "part/035.jpg"]]
    assert report.leaks == [["part/012.jpg", "part/035.jpg"]]
    assert report.small == ["part/013.jpg"] and report.unlabelled == ["part/stray.jpg"]
    assert not (tad66k / "out" / "labels.csv").exists()
    written = json.loads((tad66k / "out" / "report.json").read_text())
    assert written["problems"] == expected
    text = report.summary()
    assert "2 truncated or broken images: part/003.jpg, part/004.jpg" in text
    assert "mend the files, or go on without them by --leave_out true" in text


def test_leaving_out_is_a_choice_that_is_recorded(tad66k: Path) -> None:
    plant(tad66k)
    report = checked(tad66k, leave_out=True)
    assert report.cleaned
    table = read_labels("tad66k", tad66k / "out")
    assert len(table) == 35 and "part/011.jpg" in set(table["image"])
    note = json.loads((tad66k / "out" / "prepared.json").read_text())
    assert note["left_out"]["part/003.jpg"] == "damaged" and len(note["left_out"]) == 5


def test_a_later_fault_takes_the_cleaned_labels_back(tad66k: Path) -> None:
    assert checked(tad66k).cleaned
    (tad66k / "images" / "part" / "005.jpg").write_bytes(b"")
    assert not checked(tad66k).cleaned
    left = {path.name for path in (tad66k / "out").iterdir()}
    assert left == {"checks.csv", "report.json"}


def test_a_second_check_reads_only_what_changed(
    tad66k: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked(tad66k)
    (tad66k / "images" / "part" / "007.jpg").write_bytes(b"changed")
    journal = tad66k / "out" / "checks.csv"
    before = len(journal.read_text().splitlines())
    report = checked(tad66k)
    assert report.problems["not an image"] == ["part/007.jpg"]
    assert len(journal.read_text().splitlines()) == before + 1


def test_an_interrupted_check_goes_on_from_its_last_whole_line(tad66k: Path) -> None:
    plant(tad66k)
    whole = checked(tad66k)
    journal = tad66k / "out" / "checks.csv"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:12]) + lines[12][:17])
    assert len(read_checks(journal)) == 11
    assert checked(tad66k) == whole


def test_checks_of_other_files_are_kept(tad66k: Path) -> None:
    journal = tad66k / "checks.csv"
    check_files(str(tad66k / "images"), ["part/001.jpg"], journal, 1)
    check_files(str(tad66k / "images"), ["part/002.jpg"], journal, 1)
    assert read_checks(journal)["image"].tolist() == ["part/001.jpg", "part/002.jpg"]


def test_votes_tags_and_names_survive_the_cleaned_table(sample: Path, tmp_path: Path) -> None:
    prepare("sample", str(sample), str(sample / "images"), str(tmp_path), workers=1)
    pd.testing.assert_frame_equal(read_labels("sample", tmp_path), read_labels("sample", sample))


def test_prepared_labels_are_those_of_one_data_set(sample: Path, tmp_path: Path) -> None:
    prepare("sample", str(sample), str(sample / "images"), str(tmp_path), workers=1)
    with pytest.raises(LabelError, match="holds prepared labels of 'sample', expected 'ava'"):
        read_labels("ava", tmp_path)
    with pytest.raises(LabelError, match="give the test and validation lists to eat prepare"):
        read_labels("sample", tmp_path, test=sample / "generic_test.jpgl")


def test_what_the_labels_warn_of_stands_in_the_report(sample: Path, tmp_path: Path) -> None:
    extra = tmp_path / "test.jpgl"
    extra.write_text((sample / "generic_test.jpgl").read_text() + "999999999\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = prepare("sample", str(sample), str(sample / "images"), str(tmp_path / "out"),
                         test=str(extra), workers=1)  # fmt: skip
    assert "1 of 17 ids have no label" in report.warnings[0]


def test_the_command_tells_by_its_exit_code(
    tad66k: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = str(tad66k / "images"), str(tad66k / "out")
    argv = ["prepare", "tad66k", "--labels", str(tad66k), "--images", images, "--out", out]
    assert main([*argv, "--workers", "1"]) == 0
    plant(tad66k)
    assert main([*argv, "--workers", "1"]) == 1
    assert "1 labels without a file: part/000.jpg" in capsys.readouterr().out
    assert main([*argv, "--leave_out", "true"]) == 0
    argv[3] = str(tad66k / "absent.csv")
    assert main(argv) == 2
