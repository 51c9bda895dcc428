"""Scoring photographs: the same score everywhere, and what is said about the others."""

import csv
import io
import json
import os
import reprlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from eat.checkpoint import load_checkpoint, save_checkpoint
from eat.cli import main
from eat.data.photos import find_images
from eat.data.scales import ScoreScale
from eat.scoring import Score, Scorer, score_lines
from eat.system.device import pick_device
from eat.system.stops import interruptible


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
    found = (float(scores[str(photo)]["score"]) for scores in (alone, among))
    assert next(found) == pytest.approx(next(found), abs=1e-5)
    assert float(alone[str(photo)]["score"]) == pytest.approx(in_python.score, abs=1e-6)


@pytest.mark.parametrize("average", [False, True])
def test_a_score_is_the_same_in_a_batch_of_any_size(
    folder: Path, checkpoint: Path, tmp_path: Path, average: bool
) -> None:
    model, info = load_checkpoint(checkpoint)
    info.model = replace(info.model, settings=info.model.settings | {"average_points": average})
    save_checkpoint(tmp_path / "model.safetensors", model, info)
    files = sorted([*folder.glob("1*.jpg"), *sorted(folder.glob("more/*"))])
    alone, *others = (
        [score.score for score in Scorer(tmp_path / "model.safetensors", batch_size=size)(files)]
        for size in (1, 2, 3, 32)
    )
    assert len(set(alone)) == len(files) == 5
    for scores in others:
        assert scores == pytest.approx(alone, abs=1e-5)


def test_what_there_is_to_score_chooses_the_batches(
    folder: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer, sizes = Scorer(checkpoint, device="cpu"), []
    monkeypatch.setattr(scorer.model, "forward", watched(scorer.model.forward, sizes))
    files = [*folder.glob("1*.jpg")]
    assert len([*scorer(files[0])]) == 1 and sizes.pop() == 1
    assert len([*scorer(files * 3)]) == 4 and sizes.pop() == 4
    frames = np.zeros((10, 8, 8, 3), np.uint8)
    assert len([*scorer(frames)]) == 10 and sizes == [8, 2]


def watched(forward: Callable[[Tensor], Tensor], sizes: list[int]) -> Callable[[Tensor], Tensor]:
    """A model's forward pass that notes the sizes of the batches."""
    return lambda pixels: sizes.append(len(pixels)) or forward(pixels)


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


@pytest.mark.parametrize(("scale", "expected"), [("ten", 3.25), ("own", 25)])
def test_a_model_of_another_scale_answers_on_one_to_ten_or_on_its_own(
    folder: Path,
    checkpoint: Path,
    tmp_path: Path,
    scale: str,
    expected: float,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, info = load_checkpoint(checkpoint)
    model.reset_classifier(1)
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.constant_(model.head.bias, 0.25)
    info.model, info.scale = replace(info.model, num_outputs=1), ScoreScale(0, 100, 100, 50)
    save_checkpoint(tmp_path / "percent.safetensors", model, info)
    photo = str(sorted(folder.glob("1*.jpg"))[0])
    argv = ["score", photo, "--checkpoint", str(tmp_path / "percent.safetensors")]
    assert main([*argv, "--format", "jsonl", *(["--scale", "own"] if scale == "own" else [])]) == 0
    score = json.loads(capsys.readouterr().out)
    assert score == {"image": photo, "score": pytest.approx(expected)}


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def many(photo: Path, folder: Path, count: int) -> Path:
    """A folder with one photograph under many names."""
    folder.mkdir()
    for i in range(count):
        os.link(photo, folder / f"{i:06}.jpg")
    return folder


@pytest.mark.parametrize("batch_size", [1, 4])
def test_results_keep_the_order_of_the_files_however_long_they_take(
    folder: Path, checkpoint: Path, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(folder.glob("*.jpg"))  # the broken one last
    plain = list(Scorer(checkpoint, batch_size=batch_size, workers=1)(files))
    scorer = Scorer(checkpoint, batch_size=batch_size, workers=3)
    decode = scorer._decode

    def slow(file: Path):
        time.sleep(0.2 if file == files[0] else 0)
        return decode(file)

    monkeypatch.setattr(scorer, "_decode", slow)
    among = list(scorer(files))
    assert [s.image for s in among] == [str(f) for f in files]
    assert [s.score for s in among[:-1]] == [s.score for s in plain[:-1]]
    assert among[-1].error == plain[-1].error != ""


def test_images_are_decoded_by_threads_ahead_of_the_model_but_not_far(
    folder: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = many(sorted(folder.glob("1*.jpg"))[0], tmp_path / "many", 60)
    scorer = Scorer(checkpoint, batch_size=1, workers=3)
    decode, decoded = scorer._decode, []

    def watched(file: Path):
        decoded.append(threading.current_thread())
        return decode(file)

    monkeypatch.setattr(scorer, "_decode", watched)
    scores = scorer(files)
    for taken in range(1, 4):
        next(scores)
        time.sleep(0.1)
        assert taken < len(decoded) <= taken + 6
    assert threading.main_thread() not in decoded
    scores.close()
    assert not any(thread.is_alive() for thread in decoded) and len(decoded) <= 9


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's memory count")
def test_memory_does_not_grow_with_the_number_of_files(
    folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    files = many(sorted(folder.glob("1*.jpg"))[0], tmp_path / "many", 400)
    scores = Scorer(checkpoint, batch_size=16, workers=2)(files)
    for _ in range(200):
        next(scores)
    before = resident()
    assert sum(1 for _ in scores) == 200
    # 200 images of 64 pixels are 2.5 MB as bytes and 10 MB as floats.
    assert resident() - before < 2e6


def test_an_interrupt_ends_scoring_promptly(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    files = many(sorted(folder.glob("1*.jpg"))[0], tmp_path / "many", 20000)
    argv = ["-m", "eat", "score", str(files), "--checkpoint", str(checkpoint)]
    process = subprocess.Popen(
        [sys.executable, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    lines = [process.stdout.readline() for _ in range(4)]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)  # long before all are scored
    assert process.returncode == 130 and err == "eat score: interrupted\n"
    assert lines[0].startswith("image,score,v1") and len(set(lines)) == 4


def test_an_interrupt_waits_for_the_score_at_hand_but_a_second_one_does_not() -> None:
    made = []

    def items(interrupts: list[int]) -> Iterator[int]:
        for i, times in enumerate(interrupts):
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
            made.append(i)
            yield i

    assert list(interruptible(items([0, 0]))) == [0, 1]
    with pytest.raises(KeyboardInterrupt):
        list(interruptible(items([0, 1, 0])))
    assert made == [0, 1, 0, 1]
    with pytest.raises(KeyboardInterrupt):
        list(interruptible(items([0, 2])))
    assert made == [0, 1, 0, 1, 0]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_folder_is_searched_as_before_with_links_and_without_a_look_at_each_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "link.jpg").symlink_to(sorted(folder.glob("1*.jpg"))[0])
    (folder / "dangling.jpg").symlink_to(folder / "gone.jpg")
    (folder / "folder.jpg").mkdir()
    (folder / "round").symlink_to(folder)
    shutil.copy(folder / "link.jpg", folder / "folder.jpg" / "B.JPEG")
    suffixes = {".jpg", ".jpeg"}
    expected = [
        p for p in sorted(folder.rglob("*")) if p.suffix.lower() in suffixes and not p.is_dir()
    ]
    stats = []
    monkeypatch.setattr(Path, "stat", lambda self, **_: stats.append(self) or os.stat(self))
    assert find_images([folder]) == expected and len(expected) == 9
    assert len(stats) <= 1


@pytest.mark.parametrize("value", ["0", str(10**400)])
@pytest.mark.parametrize("option", ["workers", "batch_size"])
def test_counts_out_of_range_are_refused(
    option: str, value: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", ".", "--checkpoint", str(checkpoint), f"--{option}", value]) == 2
    assert f"{option} is {reprlib.repr(int(value))}: expected 1 to 10" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["gpu", "", "cuda:", "cuda:x", "cpu:1", "meta"])
def test_an_unknown_device_is_an_error(checkpoint: Path, device: str) -> None:
    with pytest.raises(ValueError, match=f"device is '{device}': expected auto, cpu, cuda, cuda:1"):
        Scorer(checkpoint, device=device)


def test_devices_are_taken_by_number_and_kind_where_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for name in ("cpu", "cuda", "cuda:1", "mps"):
        assert str(pick_device(name)) == name
    with pytest.raises(ValueError, match="device is 'cuda:2', but torch finds 2 GPU of this kind"):
        pick_device("cuda:2")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device is 'mps', but torch finds no GPU of this kind"):
        pick_device("mps")


@pytest.mark.parametrize("to_file", [False, True])
def test_the_best_come_first_and_as_many_as_wanted(
    folder: Path, checkpoint: Path, tmp_path: Path, to_file: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    argv = ["score", str(folder), "--checkpoint", str(checkpoint), "--format", "jsonl"]

    def scored(*options: str) -> list[tuple[str, float]]:
        out = ["--out", str(tmp_path / "out")] if to_file else []
        assert main([*argv, *options, *out]) == 1
        text, err = capsys.readouterr()
        assert "broken.jpg" in err  # also where its line was cut off
        lines = map(json.loads, (tmp_path / "out").open() if to_file else text.splitlines())
        return [(line["image"], line.get("score")) for line in lines]

    plain = scored()
    expected = sorted((entry for entry in plain if entry[1]), key=lambda entry: -entry[1])
    ranked = scored("--sort", "true")
    assert ranked == [*expected, (str(folder / "broken.jpg"), None)] != plain
    assert scored("--top", "2") == expected[:2]
    assert main([*argv, "--top", "0"]) == 2
    assert "top is 0: expected" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error(
    folder: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["score", str(folder), "--checkpoint", str(checkpoint), "--device", "cuda"]
    assert main(argv) == 2
    assert "device is 'cuda', but torch finds no GPU" in capsys.readouterr().err


def test_an_output_that_is_not_finite_is_an_error_of_that_image(
    folder: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, info = load_checkpoint(checkpoint)
    with torch.no_grad():
        model.head.weight.fill_(3e38)  # finite, and its products are not
    path = checkpoint.with_name("large.safetensors")
    save_checkpoint(path, model, info)
    photo = sorted(folder.glob("1*.jpg"))[0]
    assert main(["score", str(photo), "--checkpoint", str(path), "--format", "jsonl"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out) == {"image": str(photo), "error": f"{photo}: the model's output is not "
                               "finite in fp32"}  # fmt: skip
    assert f"not scored: {photo}: the model's output is not finite" in err


def test_odd_names_are_scored_and_make_valid_files(
    folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    photo, odd = sorted(folder.glob("1*.jpg"))[0], tmp_path / "odd"
    odd.mkdir()
    names = [b"a\nb.jpg", b"a\rb.jpg", b'a,"b.jpg', b"a\xff.jpg"]
    for name in names:
        shutil.copy(photo, os.path.join(os.fsencode(odd), name))
    argv = ["score", str(odd), "--checkpoint", str(checkpoint), "--out"]
    assert main([*argv, str(tmp_path / "x.csv")]) == 0
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["image"].removeprefix(f"{odd}/") for row in rows} == {
        "a\nb.jpg", "a\rb.jpg", 'a,"b.jpg', "a\\udcff.jpg",
    }  # fmt: skip
    assert len({row["score"] for row in rows}) == 1
    assert main([*argv, str(tmp_path / "x.jsonl"), "--format", "jsonl"]) == 0
    lines = (tmp_path / "x.jsonl").read_text().splitlines()
    assert {os.fsencode(json.loads(line)["image"]) for line in lines} == {
        os.path.join(os.fsencode(odd), name) for name in names
    }


def test_a_link_to_itself_is_one_reported_error(
    folder: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.jpg").unlink()
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    assert main(["score", str(folder), "--checkpoint", str(checkpoint)]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 6 and err.count("not scored: ") == 1 and "loop.jpg" in err


def test_errors_have_a_line_in_json_and_none_in_csv() -> None:
    scores = [Score("a.jpg", 5.0, (0.25, 0.75)), Score("b.jpg", float("nan"), error="gone")]
    assert list(score_lines(scores, 2, "csv")) == [
        "image,score,v1,v2", "a.jpg,5.000000,0.250000,0.750000",
    ]  # fmt: skip
    assert [json.loads(line) for line in score_lines(scores, 2, "jsonl")] == [
        {"image": "a.jpg", "score": 5.0, "votes": [0.25, 0.75]},
        {"image": "b.jpg", "error": "gone"},
    ]


def test_a_watch_sees_the_photographs_and_what_the_model_attends_to(
    folder: Path, checkpoint: Path
) -> None:
    class Watch:
        blocks = ["stages.3.blocks.0"]
        photos: dict[str, int] = {}
        batches: list[tuple[int, torch.Size]] = []

        def decoded(self, file: Path, photo) -> None:
            self.photos[str(file)] = photo.size[0]

        def attended(self, files, record) -> None:
            self.batches.append((len(files), record[self.blocks[0]]["positions"].shape[:1]))

    scorer, watch = Scorer(checkpoint, batch_size=4), Watch()
    files = find_images([folder])
    seen = list(scorer.score_files(files, watch))
    plain = list(scorer.score_files(files))
    np.testing.assert_allclose([s.score for s in seen], [s.score for s in plain], atol=1e-5)
    assert watch.photos == {s.image: 96 for s in plain if not s.error}
    assert watch.batches == [(4, (4,)), (2, (2,))]
