"""The best, worst and most wrong predictions."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from eat.cli import main
from eat.pictures.examples import choose_examples


def test_examples_are_the_ends_of_the_predictions_and_of_the_errors() -> None:
    predicted = [5.0, 9.0, 1.0, 6.0]
    table = pd.DataFrame({"image": list("abcd"), "score": [5.0, 8.0, 3.5, 2.0]})
    found = choose_examples(table.assign(predicted=predicted), 2)
    images = {title: "".join(rows["image"]) for title, rows in found.items()}
    assert images == {"predicted best": "bd", "predicted worst": "ca", "most wrong": "dc"}
    whole = choose_examples(table.assign(predicted=predicted), 9)
    assert [len(rows) for rows in whole.values()] == [4, 4, 4]


def test_an_evaluation_draws_them(checkpoint: Path, sample: Path, tmp_path: Path) -> None:
    given = {"labels": sample, "images": sample / "images", "out": tmp_path, "examples": 2}
    given |= {"samples": 0, "workers": 0}
    argv = [f"--{name}={value}" for name, value in given.items()]
    assert main(["evaluate", str(checkpoint), *argv]) == 0
    assert np.asarray(Image.open(tmp_path / "examples.png")).std() > 10
