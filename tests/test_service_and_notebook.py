"""The files of examples/: what they do for a user who runs them."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

import eat

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def service(checkpoint: Path) -> Iterator[str]:
    """The address of a service that runs."""
    command = [sys.executable, EXAMPLES / "service.py", checkpoint, "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


def test_the_service_scores_photographs_of_several_clients_as_the_package_does(
    service: str, checkpoint: Path, sample: Path
) -> None:
    photos = sorted((sample / "images").iterdir())[:4]

    def ask(photo: Path) -> float:
        with urlopen(service, photo.read_bytes(), timeout=60) as answer:
            return json.load(answer)["score"]

    with ThreadPoolExecutor(len(photos)) as pool:
        found = [*pool.map(ask, photos)]
    scores = eat.score(photos, checkpoint=checkpoint)
    assert isinstance(scores, list)
    assert found == pytest.approx([score.score for score in scores], abs=1e-5)


@pytest.mark.parametrize(
    ("content", "headers", "code", "message"),
    [
        (b"no photograph", {}, 422, b'"error": "image 1'),
        (b"", {"Content-Length": "100000000"}, 413, b"less than 100 MB"),
        (b"", {}, 413, b"expected a Content-Length"),
    ],
)
def test_the_service_refuses_what_is_no_photograph_or_too_large(
    content: bytes, headers: dict[str, str], code: int, message: bytes, service: str
) -> None:
    with pytest.raises(HTTPError) as caught:
        urlopen(Request(service, content, headers), timeout=60)
    assert caught.value.code == code
    assert message in caught.value.read()


@pytest.mark.long
def test_the_notebook_runs_from_its_first_cell_to_its_last(
    checkpoint: Path,
    sample: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("onnxruntime")
    for folder in ("examples", "data", "runs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "data" / "sample").symlink_to(sample)
    (tmp_path / "runs" / "quickstart").symlink_to(checkpoint.parents[1])
    monkeypatch.chdir(tmp_path / "examples")
    cells = json.loads((EXAMPLES / "photographs.ipynb").read_text(encoding="utf-8"))["cells"]
    codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    names: dict[str, object] = {}
    for code in codes:
        exec(code, names)
    printed = capsys.readouterr().out
    assert re.search(r"\S+ than the general model", printed)
    found, wanted = re.search(r"([\d.]+) by onnxruntime, ([\d.]+) by PyTorch", printed).groups()
    assert float(found) == pytest.approx(float(wanted), abs=1e-3)
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert len(outputs) == len(codes), "run the notebook before it is committed"
    assert not [output for output in outputs if output["output_type"] == "error"]
