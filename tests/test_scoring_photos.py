"""Scores from whatever one has: files, encoded bytes, images and pixels, from several threads."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import eat
from eat.checkpoint import load_checkpoint, save_checkpoint
from eat.cli import main
from eat.scoring import Scorer


@pytest.fixture(scope="module", params=["exact", "fast"])
def scorer(checkpoint: Path, request: pytest.FixtureRequest) -> Scorer:
    scorer = Scorer(checkpoint)
    object.__setattr__(scorer.info.preprocessing, "decode", request.param)
    return scorer


@pytest.fixture(scope="module")
def photo(sample: Path) -> Path:
    """A photograph, upright."""
    return sorted((sample / "images").iterdir())[0]


def values(scores) -> list[float]:
    return [score.score for score in scores]


def test_a_photograph_has_one_score_in_whatever_form(scorer: Scorer, photo: Path) -> None:
    image = Image.open(photo)  # not yet decoded
    pixels = np.asarray(Image.open(photo))  # which nobody may write to
    content = photo.read_bytes()
    forms = [
        photo, str(photo), content, bytearray(content), memoryview(content), image, pixels,
        np.ascontiguousarray(pixels[::-1])[::-1], torch.tensor(pixels).permute(2, 0, 1),
    ]  # fmt: skip
    expected = next(scorer(photo)).score
    for form in forms:
        (score,) = scorer(form)
        assert score.error == "" and score.score == pytest.approx(expected, abs=1e-5)
    together = [*scorer(forms)]
    assert values(together) == pytest.approx([expected] * 8, abs=1e-5)  # the file comes once
    assert [score.image for score in together] == [
        str(photo), *(f"image {place}" for place in range(3, 10)),
    ]  # fmt: skip


def test_images_are_turned_as_their_files_are_and_stay_as_they_were(
    scorer: Scorer, photo: Path, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "turned.png"
    Image.open(photo).resize((90, 50)).save(file, exif=exif)
    image = Image.open(file)
    scores = values(scorer([file, image, file.read_bytes(), image]))
    assert scores[1:] == pytest.approx([scores[0]] * 3, abs=1e-5)
    assert image.size == (90, 50) and image.getexif()[0x0112] == 6
    plain = next(scorer(np.asarray(image)))
    assert plain.score != pytest.approx(scores[0], abs=1e-5)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16", "1"])
def test_images_of_other_colours_are_converted_as_their_files_are(
    scorer: Scorer, photo: Path, tmp_path: Path, mode: str
) -> None:
    grey = Image.open(photo).convert("L")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    else:
        image = (grey if mode == "1" else Image.open(photo)).convert(mode)
    image.save(tmp_path / "photo.tiff")
    scores = values(scorer([tmp_path / "photo.tiff", image]))
    assert scores[1] == pytest.approx(scores[0], abs=1e-5)


def test_several_are_read_as_they_are_wanted(scorer: Scorer, photo: Path, sample: Path) -> None:
    pixels = np.asarray(Image.open(photo))
    taken = []

    def frames():
        for shift in range(500):
            taken.append(shift)
            yield np.roll(pixels, shift, axis=1)

    scores = scorer(frames())
    first = [next(scores) for _ in range(3)]
    assert [score.image for score in first] == ["image 1", "image 2", "image 3"]
    assert len(taken) < 50
    batch = np.stack([np.roll(pixels, shift, axis=1) for shift in range(3)])
    assert values(scorer(batch)) == pytest.approx(values(first), abs=1e-5)
    of_tensor = scorer(torch.from_numpy(batch).permute(0, 3, 1, 2))
    assert values(of_tensor) == pytest.approx(values(first), abs=1e-5)
    assert [s.image for s in scorer([sample / "images", pixels])][-1] == "image 2"


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (None, "NoneType: expected a path, encoded bytes, a PIL image, or RGB pixels as uint8"),
        (5, "int: expected a path"),
        (io.BytesIO(b"x"), "BytesIO: expected a path"),
        (np.zeros((4, 5, 3)), "ndarray float64 (4, 5, 3): expected"),
        (np.zeros((4, 5), np.uint8), "ndarray uint8 (4, 5): expected"),
        (np.zeros((4, 0, 3), np.uint8), "ndarray uint8 (4, 0, 3): expected"),
        (torch.zeros(4, 5, 3, dtype=torch.uint8), "Tensor torch.uint8 (4, 5, 3): expected"),
        (torch.zeros(3, 4, 5), "Tensor torch.float32 (3, 4, 5): expected"),
        (Image.new("RGB", (0, 3)), "Image: expected"),
        (Image.new("F", (2, 3)), "grey of mode F without a defined range"),
        (b"", "an empty file"),
        (b"no photograph", "not an image that PIL can read"),
    ],
)
def test_what_is_no_photograph_is_told(scorer: Scorer, photo: Path, bad, told: str) -> None:
    (alone,) = scorer(bad)
    first, among = scorer([photo, bad])
    assert alone.error.startswith(f"image 1: {told}") and np.isnan(alone.score)
    assert among.error.startswith(f"image 2: {told}") and not first.error


def test_damaged_bytes_and_closed_images_are_told(scorer: Scorer, photo: Path) -> None:
    (score,) = scorer(photo.read_bytes()[:500])
    assert score.error.startswith("image 1: damaged or truncated (")
    image = Image.open(photo)
    image.load()
    image.close()
    (score,) = scorer(image)
    assert score.error.startswith("image 1: damaged or truncated (")


@pytest.mark.parametrize("url", ["https://example.com/a.jpg", "http://example.com/a?b=[1]*"])
def test_an_address_of_the_web_is_refused_by_name(
    scorer: Scorer, checkpoint: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (score,) = scorer(url)
    assert score.error == f"{url}: an address of the web: download it first"
    assert main(["score", url, "--checkpoint", str(checkpoint)]) == 1
    assert f"not scored: {score.error}" in capsys.readouterr().err


def test_one_photograph_gives_one_score_and_several_a_list(
    checkpoint: Path, photo: Path, tmp_path: Path
) -> None:
    one = eat.score(photo, checkpoint=checkpoint)
    assert isinstance(one, eat.Score) and one.image == str(photo)
    pixels = np.asarray(Image.open(photo))
    assert eat.score(pixels, checkpoint=checkpoint).score == pytest.approx(one.score, abs=1e-5)
    assert eat.score("no.jpg", checkpoint=checkpoint).error == "no.jpg: no such file"
    for several in ([photo], (pixels,), pixels[None], photo.parent / f"{photo.stem}.*"):
        (only,) = eat.score(several, checkpoint=checkpoint, batch_size=2)
        assert only.score == pytest.approx(one.score, abs=1e-5)
    assert eat.score([], checkpoint=checkpoint) == []
    assert len(eat.score(tmp_path, checkpoint=checkpoint)) == 1  # says that there are no images


def test_the_documented_thread_pool_scores(
    checkpoint: Path, sample: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    document = (Path(__file__).parents[1] / "docs" / "scoring.md").read_text(encoding="utf-8")
    example = document.split("```python\n")[2].split("```")[0]
    files = [str(file) for file in sorted((sample / "images").iterdir())[:3]]
    monkeypatch.setattr("sys.argv", ["example.py", str(checkpoint), *files])
    exec(example, {})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in lines] == files
    expected = values(Scorer(checkpoint)(files))
    assert [float(score) for _, score in lines] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("average", [False, True])
def test_threads_that_share_a_scorer_get_the_scores_of_one(
    sample: Path, checkpoint: Path, tmp_path: Path, average: bool
) -> None:
    model, info = load_checkpoint(checkpoint)
    settings = info.model.settings | {"average_points": average}
    object.__setattr__(info.model, "settings", settings)
    save_checkpoint(tmp_path / "model.safetensors", model, info)
    scorer = Scorer(tmp_path / "model.safetensors", workers=2)
    files = sorted((sample / "images").iterdir())[:24]
    shared = Image.open(files[0])  # that each thread is the first to decode
    alone = values(scorer(files))

    def work(start: int) -> list[float]:
        some = files[start : start + 5]
        return values(scorer([*some, shared]))

    with ThreadPoolExecutor(8) as pool:
        for start, scores in enumerate(pool.map(work, range(19))):
            expected = [*alone[start : start + 5], alone[0]]
            assert scores == pytest.approx(expected, abs=1e-5)


def test_the_percentile_is_that_of_the_scores_of_the_runs_split(
    photo: Path, sample: Path, checkpoint: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    test = [sample / "images" / f"{name}.jpg" for name in range(500000, 500016)]
    among = [*Scorer(checkpoint, percentile=True)(test)]
    for place, score in enumerate(sorted(among, key=lambda s: s.score)):
        assert score.percentile == pytest.approx(
            100 * place / 15, abs=1
        )  # the list has whole percents
    out = tmp_path / "x.csv"
    argv = ["score", str(photo), "--percentile", "true", "--checkpoint"]
    assert main([*argv, str(checkpoint), "--out", str(out)]) == 0
    assert out.read_text().startswith("image,score,percentile,v1,")
    assert "percentile: among the test split's photographs of " in capsys.readouterr().err
    model, info = load_checkpoint(checkpoint)
    info.score_quantiles = ()
    save_checkpoint(tmp_path / "old.safetensors", model, info)
    assert main([*argv, str(tmp_path / "old.safetensors")]) == 2
    assert "old.safetensors holds no percentiles: runs write them" in capsys.readouterr().err
