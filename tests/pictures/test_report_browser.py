"""The page of a run in a real browser."""

import shutil
import sys
from pathlib import Path

import pytest

from eat.cli import main

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from browser import Browser, find_chromium


@pytest.mark.skipif(find_chromium() is None, reason="no chromium is installed")
def test_two_runs_stand_side_by_side(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "<b>other")
    options = tmp_path / "<b>other" / "config.yaml"
    options.write_text(options.read_text().replace("lr: 0.001", "lr: 0.5"))
    main(["report", str(run), str(tmp_path / "<b>other"), "--out", str(tmp_path / "page")])
    with Browser() as browser:
        browser.open(tmp_path / "page" / "index.html")
        browser.wait("document.documentElement.dataset.complete !== undefined")
        differs = "[...document.querySelectorAll('.differs th')].map(e => e.textContent)"
        assert browser.evaluate(differs) == ["optim.lr"]
        for tag, count in (("canvas", 2), ("svg", 8), ("b", 0)):
            assert browser.evaluate(f"document.querySelectorAll('{tag}').length") == count
        assert browser.complaints() == []
        assert {url.partition(":")[0] for url in browser.requests()} == {"file"}
