"""The check of a data set finds each planted fault, resumes, and drops nothing by itself."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from eat.cli import main
from eat.config.commands import PrepareOptions
from eat.data import checks as module
from eat.data.checks import check_file, check_files, read_checks
from eat.data.labels.reading import read_labels
from eat.data.labels.table import LabelError
from eat.data.prepare import Report, prepare
from eat.data.splits import read_splits


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


def prepared(name: str, labels: Path, images: Path, out: Path, **options: Any) -> Report:
    """The report on a data set, by one process unless ``options`` say otherwise."""
    given = PrepareOptions(str(labels), str(images), str(out), **({"workers": 1} | options))
    return prepare(name, given)


def checked(folder: Path, **options: Any) -> Report:
    """The report on a folder, with two processes."""
    return prepared("tad66k", folder, folder / "images", folder / "out", workers=2, **options)


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
    prepared("sample", sample, sample / "images", tmp_path)
    pd.testing.assert_frame_equal(read_labels("sample", tmp_path), read_labels("sample", sample))


def test_prepared_labels_are_those_of_one_data_set(sample: Path, tmp_path: Path) -> None:
    prepared("sample", sample, sample / "images", tmp_path)
    with pytest.raises(LabelError, match="holds prepared labels of 'sample', expected 'ava'"):
        read_labels("ava", tmp_path)
    with pytest.raises(LabelError, match="give the test and validation lists to eat prepare"):
        read_labels("sample", tmp_path, test=sample / "generic_test.jpgl")


NOTES = [
    b"", b"[]", b"null", b"\xff", b"[" * 10**5, b"{}", {"dataset": 3}, {"dataset": None},
    {"numeric": []}, {"numeric": {"score": "float6"}}, {"numeric": {"score": "U999999999"}},
    {"numeric": {"other": "int64"}}, {"numeric": {"image": "int64"}}, {"numeric": {"score": 1}},
    {"bounds": [1]}, {"bounds": ["1", "10"]}, {"bounds": [1, 10**400]}, {"bounds": 5}, {"new": 1},
    {"left_out": {"a": 1}}, b"9" * 5000,
]  # fmt: skip


@pytest.fixture(scope="module")
def cleaned(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of prepared labels."""
    out = tmp_path_factory.mktemp("cleaned")
    prepared("sample", sample, sample / "images", out)
    return out


@pytest.mark.parametrize("note", NOTES, ids=lambda note: str(note)[:30])
def test_a_note_of_another_shape_is_named(cleaned: Path, tmp_path: Path, note: Any) -> None:
    sound = json.loads((cleaned / "prepared.json").read_text())
    content = note if isinstance(note, bytes) else json.dumps(sound | note).encode()
    (tmp_path / "prepared.json").write_bytes(content)
    shutil.copy(cleaned / "labels.csv", tmp_path)
    with pytest.raises(LabelError, match="prepared.json or labels.csv is not as .* run") as raised:
        read_labels("sample", tmp_path)
    assert len(str(raised.value)) < 300 + len(str(tmp_path)) and "\n" not in str(raised.value)


@pytest.mark.parametrize("table", [b"", b"\xff\xfe", b"image\n1,2,3\n4\n", b"image,split\na,\n"])
def test_a_prepared_table_of_another_shape_is_named(
    cleaned: Path, tmp_path: Path, table: bytes
) -> None:
    shutil.copy(cleaned / "prepared.json", tmp_path)
    (tmp_path / "labels.csv").write_bytes(table)
    with pytest.raises(LabelError, match="labels.csv"):
        read_labels("sample", tmp_path)
    (tmp_path / "labels.csv").unlink()
    with pytest.raises(LabelError, match="labels.csv: cannot be read"):
        read_labels("sample", tmp_path)


def test_what_the_labels_warn_of_stands_in_the_report(sample: Path, tmp_path: Path) -> None:
    extra = tmp_path / "test.jpgl"
    extra.write_text((sample / "generic_test.jpgl").read_text() + "999999999\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = prepared("sample", sample, sample / "images", tmp_path / "out",
                         test=str(extra))  # fmt: skip
    assert "1 of 17 ids have no label" in report.warnings[0]


def test_given_labels_are_never_written_over(tad66k: Path) -> None:
    lines = (tad66k / "train.csv").read_text()
    own = tad66k / "labels.csv"
    own.write_text(lines)
    (tad66k / "images" / "part" / "000.jpg").unlink()
    images = str(tad66k / "images")
    for labels in (tad66k, own, tad66k / "train.csv"):
        with pytest.raises(LabelError, match="give another --out"):
            prepared("table", labels, images, tad66k)
    prepared("table", own, images, tad66k / "out", leave_out=True)
    with pytest.raises(LabelError, match="give another --out"):
        prepared("table", tad66k / "out", images, tad66k / "out")
    assert own.read_text() == lines


@pytest.mark.parametrize(
    "values", [(7, 8), (0.1, None), (True, False), ("007", ""), ('a, "b"', "x\ny"), ("NA", "nan")]
)
def test_attributes_of_every_kind_survive_the_cleaned_table(tad66k: Path, values: tuple) -> None:
    labels = tad66k / "given.parquet"
    table = read_labels("tad66k", tad66k)
    table["extra"] = [values[i % 2] for i in range(len(table))]
    table.to_parquet(labels)
    out = tad66k / "out"
    prepared("table", labels, tad66k / "images", out)
    pd.testing.assert_frame_equal(read_labels("table", out), read_labels("table", labels))


def test_links_count_as_what_they_point_to(tad66k: Path) -> None:
    images = tad66k / "images"
    (images / "part").rename(tad66k / "elsewhere")
    (images / "part").symlink_to(tad66k / "elsewhere")
    (tad66k / "elsewhere" / "000.jpg").unlink()
    (tad66k / "elsewhere" / "000.jpg").symlink_to("nowhere")
    (images / "circle").symlink_to(images)
    (tad66k / "elsewhere" / "001.jpg").unlink()
    os.mkfifo(tad66k / "elsewhere" / "001.jpg")
    (tad66k / "elsewhere" / "002.jpg").unlink()
    (tad66k / "elsewhere" / "002.jpg").symlink_to("/dev/zero")
    problems = checked(tad66k).problems
    assert problems["missing"] == ["part/000.jpg", "part/001.jpg", "part/002.jpg"]
    assert check_file(str(images), "part/001.jpg").problem == "damaged"


def test_an_unreadable_file_is_reported_and_checked_again(
    tad66k: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = str(tad66k / "images")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda _: (_ for _ in ()).throw(PermissionError()))
        assert check_file(images, "part/001.jpg").problem == "damaged"
        patch.setattr(module, "read_image", lambda *_, **__: {}[0])
        check_files(images, ["part/001.jpg"], tad66k / "checks.csv", 1)
    assert read_checks(tad66k / "checks.csv")["problem"].tolist() == ["damaged"]
    check_files(images, ["part/001.jpg"], tad66k / "checks.csv", 1)
    assert read_checks(tad66k / "checks.csv")["problem"].tolist() == [""]


def test_an_unforeseen_error_of_a_decoder_is_damage(
    tad66k: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "read_image", lambda *_, **__: {}["tile"])
    assert check_file(str(tad66k / "images"), "part/001.jpg").problem == "damaged"


def test_results_among_the_images_are_no_stray_files(tad66k: Path) -> None:
    images = tad66k / "images"
    for _ in range(2):
        report = prepared("tad66k", tad66k, images, images / "out")
        assert report.unlabelled == []


def test_a_split_that_is_absent_and_a_name_that_is_not_utf8_are_told(tad66k: Path) -> None:
    images = tad66k / "images"
    for odd in (b"/00\xe9.jpg", b"/00\n.jpg"):
        Path(os.fsdecode(os.fsencode(images / "part") + odd)).touch()
    train = str(tad66k / "train.csv")
    text = prepared("tad66k", train, images, tad66k / "out").summary()
    assert "0 train (official: 52248), 0 test (official: 14079)" in text
    assert "part/00\\udce9.jpg" in text and "part/00\\n.jpg" in text
    assert len(read_splits("tad66k", train, images).train) == 30


def test_a_damaged_journal_is_named_with_the_way_out(tad66k: Path) -> None:
    checked(tad66k)
    journal = tad66k / "out" / "checks.csv"
    lines = journal.read_text().splitlines(keepends=True)
    sizes = lines[5].split(",")
    number, kind = ",".join([sizes[0], "9" * 400, *sizes[2:]]), f"{lines[5].strip()}x\n"
    for junk in ("\0" * 40 + "\n", number, kind, "\udcff\n"):
        text = "".join([*lines[:5], junk, *lines[6:]])
        journal.write_text(text, errors="surrogateescape")
        with pytest.raises(LabelError, match="checks.csv: damaged .*; remove it"):
            checked(tad66k)
    journal.write_text("one,two\n1,2\n")
    with pytest.raises(LabelError, match="checks.csv: damaged .*; remove it"):
        checked(tad66k)


def test_a_killed_process_ends_the_check(tad66k: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(module, "read_image", killed)
    with pytest.raises(
        ChildProcessError, match="under way were part/000.jpg to .*this again to go on"
    ):
        checked(tad66k)


def test_a_killed_check_goes_on_to_the_same_report(tad66k: Path) -> None:
    plant(tad66k)
    whole = checked(tad66k)
    journal = tad66k / "out" / "checks.csv"
    journal.unlink()
    code = (
        "import time; from eat.config.commands import PrepareOptions\n"
        "from eat.data.prepare import prepare\n"
        "from eat.data import checks as module; read = module.read_image\n"
        "def slow(*args, **options):\n    time.sleep(0.02); return read(*args, **options)\n"
        "module.read_image, module.CHUNK = slow, 4\n"
        "prepare('tad66k', PrepareOptions('.', 'images', 'out', workers=2))"
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=tad66k)
    # at least one flushed chunk: a header and four rows, of some 60 bytes each
    while child.poll() is None and not (journal.exists() and journal.stat().st_size > 300):
        time.sleep(0.005)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    assert 0 < len(read_checks(journal)) < 39
    assert checked(tad66k) == whole


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_truncation_is_found_wherever_it_is(tmp_path: Path, kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    path = tmp_path / f"cut.{kind}"
    Image.fromarray(pixels).save(path)
    content = path.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.99):
        path.write_bytes(content[: int(share * len(content))])
        assert check_file(str(tmp_path), path.name).problem == "damaged"


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
