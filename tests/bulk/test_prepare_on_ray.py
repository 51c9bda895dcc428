"""Data sets prepared by Ray: the same report, journal and cache as by this machine's processes."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from eat.cli import main
from eat.config.commands import PrepareOptions
from eat.data.prepare import prepare

TABLE = "image,split,score\na.jpg,train,5\nb.jpg,train,6\nc.jpg,test,7\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Labels of three images, of which one is cut short."""
    (tmp_path / "images").mkdir()
    for name, shade in ("a", 40), ("b", 90), ("c", 200):
        Image.new("L", (100, 80), shade).save(tmp_path / "images" / f"{name}.jpg")
    broken = tmp_path / "images" / "b.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])
    (tmp_path / "labels.csv").write_text(TABLE)
    return tmp_path


def prepared(data: Path, name: str, **pool: Any) -> tuple[dict[str, Any], bytes, set[str]]:
    """Report, cache and journal."""
    given = PrepareOptions(str(data / "labels.csv"), str(data / "images"), str(data / name),
                           workers=1, leave_out=True, cache=64)  # fmt: skip
    prepare("table", given, **pool)
    report = json.loads((data / name / "report.json").read_text())
    journal = set((data / name / "checks.csv").read_text().splitlines())
    return report, (data / name / "cache-64.npy").read_bytes(), journal


def test_ray_prepares_a_data_set_as_this_machines_processes_do(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="an optional package")
    from eat.bulk.pool import ray_pool

    report, cache, journal = prepared(data, "local")
    assert report["problems"]["damaged"] == ["b.jpg"]
    (data / "disk").mkdir()
    (data / "disk" / "mounted").touch()
    with ray_pool(None, ["images", "disk"]) as pool:
        monkeypatch.chdir(data)  # and not where Ray was started
        by_ray = prepared(data, "ray", pool=pool)
        (data / "disk" / "mounted").unlink()
        with pytest.raises(OSError, match="disk: not on machine .*a disk that all machines see"):
            next(pool(len, ["task"], 1, name=str))
    assert by_ray == (report | {n: by_ray[0][n] for n in ("out", "caches")}, cache, journal)


def test_an_address_is_for_ray_alone(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = ["--labels", "labels.csv", "--images", "images", "--out", str(data / "out")]
    assert main(["prepare", "table", *places, "--address", "auto"]) == 2
    assert "--address is for --engine ray alone" in capsys.readouterr().err
