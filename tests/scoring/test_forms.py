"""One score of a photograph: whatever its form, its colours and the size of the batch."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from data.drawn import scene
from data.profiles import profile_of
from PIL import Image

import eat
from eat.scoring import Scorer


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("wide.jpg", "RGB", {"icc_profile": profile_of("Display P3")}),
        ("wide.tif", "RGB", {"icc_profile": profile_of("ProPhoto RGB")}),
        ("clear.png", "RGBA", {"icc_profile": profile_of("Adobe RGB (1998)")}),
        ("inks.jpg", "CMYK", {}),
        ("frames.gif", "P", {"save_all": True, "append_images": [scene().convert("P")]}),
    ],
)
def test_files_bytes_and_images_of_any_colours_have_one_score(
    name: str, mode: str, options: dict, checkpoint: Path, tmp_path: Path
) -> None:
    image = scene().convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save(tmp_path / name, **options)
    opened = Image.open(tmp_path / name)
    forms = [tmp_path / name, (tmp_path / name).read_bytes(), opened]
    scores = [score.score for score in Scorer(checkpoint)(forms)]
    assert scores == pytest.approx([scores[0]] * 3, abs=1e-5)


def test_a_score_is_the_same_in_batches_of_1_and_of_32(checkpoint: Path, sample: Path) -> None:
    files = sorted((sample / "images").iterdir())[:40]
    alone, together = (
        [score.score for score in Scorer(checkpoint, batch_size=size)(files)] for size in (1, 32)
    )
    assert together == pytest.approx(alone, abs=1e-5) and len(set(alone)) > 30


def test_the_example_for_fiftyone_fills_its_fields(
    checkpoint: Path, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in of the few calls that it makes."""
    files = [*sorted((sample / "images").iterdir())[:3], tmp_path / "absent.jpg"]
    samples: list[dict] = [{} for _ in files]

    def opened(dataset: object) -> SimpleNamespace:
        return SimpleNamespace(wait=lambda: None)

    dataset = SimpleNamespace(
        values=lambda field: [str(file) for file in files],
        iter_samples=lambda autosave: samples,
        sort_by=lambda field, reverse: dataset,
    )
    module = SimpleNamespace(
        Dataset=SimpleNamespace(from_images_dir=lambda folder: dataset), launch_app=opened
    )
    monkeypatch.setitem(sys.modules, "fiftyone", module)
    document = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    example = document.split("```python\n")[1].split("```")[0]
    exec(example.replace("best.safetensors", str(checkpoint)), {})
    expected = [eat.score(file, checkpoint=checkpoint).score for file in files[:3]]
    assert [s["aesthetics"] for s in samples[:3]] == pytest.approx(expected, abs=1e-5)
    assert samples[3] == {"aesthetics": None}
