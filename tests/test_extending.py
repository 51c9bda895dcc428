"""The example of docs/extending.md: its file and its commands, on a few drawn photographs."""

import csv
import re
import shlex
import shutil
from math import isfinite
from pathlib import Path

import pytest

from eat.checkpoint import read_info
from eat.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
TINY = ["--optim.epochs", "1", "--data.workers", "0", "--run.device", "cpu", "--data.size", "64"]


def fenced(language: str) -> str:
    """The first block of a language in the page."""
    found = re.search(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_the_example_is_prepared_trained_evaluated_and_scored(
    sample: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(fenced("python"))
    Path("photos").mkdir()
    lines = ["photo,stars,split"]
    for number, image in enumerate(sorted((sample / "images").iterdir())[:16]):
        shutil.copy(image, "photos")
        lines.append(f"{image.name},{number / 4},{'test' if number % 4 == 0 else 'train'}")
    Path("stars.csv").write_text("\n".join(lines))

    commands = fenced("console").replace("\\\n", " ").replace("$ eat ", "").splitlines()
    assert [line.split()[0] for line in commands] == ["prepare", "train", "evaluate", "score"]
    for line in commands:
        name, *words = shlex.split(line)
        fast = {"train": TINY, "evaluate": ["--workers", "0"], "prepare": ["--workers", "1"]}
        capsys.readouterr()
        assert main([name, *words, *fast.get(name, [])]) == 0, line
    scores = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert len(scores) == 16 and all(isfinite(float(row["score"])) for row in scores)

    info = read_info("runs/mine/checkpoints/best.safetensors")
    assert (info.model.name, info.model.settings) == ("mine.py:patches", {"width": 32})
    assert (info.dataset, info.title, info.scale.high) == ("stars", "My album", 5)
    assert set(info.files) == {"model.name", "data.name", "optim.loss"}
    trained, evaluated = (
        [row["predicted"] for row in csv.DictReader((folder / "predictions.csv").open())]
        for folder in (Path("runs/mine"), Path("runs/mine/eval"))
    )
    assert trained == evaluated and len(trained) == 4
