"""A gallery in a real browser: shown, filtered, opened, exported, and nothing run or asked."""

import csv
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pictures.test_gallery import HOSTILE

from eat.cli import main

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from browser import Browser, find_chromium

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no chromium is installed")
COMPLETE = "document.documentElement.dataset.complete !== undefined"
NAMES = "[...document.querySelectorAll('.cell:not([hidden])')].map(c => c.photograph.name)"

DRAWN = """(() => {
    const canvas = find('detail-points'), pen = canvas.getContext('2d');
    return pen.getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean);
})()"""


def read_csv(file: Path) -> list[dict[str, str]]:
    """Rows of a file that is being downloaded."""
    for _ in range(200):
        if file.exists():
            break
        time.sleep(0.05)
    with file.open(newline="", encoding="utf-8") as content:
        return list(csv.DictReader(content))


@pytest.fixture(scope="module")
def page(sample: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of photographs of hostile names, one of them twice, and a broken one."""
    folder = tmp_path_factory.mktemp("gallery")
    images = sorted((sample / "images").iterdir())
    (folder / "photos" / "more").mkdir(parents=True)
    for image, name in zip(images, HOSTILE, strict=False):
        shutil.copy(image, folder / "photos" / name)
    shutil.copy(images[0], folder / "photos" / "more" / "twin.jpg")
    (folder / "photos" / "<b>broken.jpg").touch()
    argv = ["--checkpoint", str(checkpoint), "--out", str(folder / "page"), "--near", "0"]
    assert main(["gallery", str(folder / "photos"), *argv]) == 1
    return folder / "page"


@pytest.fixture
def browser(page: Path, tmp_path: Path) -> Iterator[Browser]:
    """A browser with the gallery open; afterwards nothing has gone wrong in it."""
    with Browser(1000, 700) as browser:
        browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        browser.open(page / "index.html")
        browser.wait(COMPLETE)
        yield browser
        assert browser.complaints() == []
        assert {url.partition(":")[0] for url in browser.requests()} <= {"file", "blob"}


def choose(browser: Browser, field: str, value: str) -> list[str]:
    """Set a filter as a user does; the names that are shown then."""
    code = f"find({field!r}).value = {value!r}; find({field!r}).dispatchEvent(EVENT); {NAMES}"
    found: list[str] = browser.evaluate(
        code.replace("EVENT", "new Event('input', { bubbles: true })")
    )
    return found


def test_a_visitor_filters_and_exports(browser: Browser, page: Path, tmp_path: Path) -> None:
    count = len(HOSTILE)
    assert len(browser.evaluate(NAMES)) == count  # the twins as one
    scores = browser.evaluate("[...document.querySelectorAll('.cell b')].map(e => +e.textContent)")
    assert scores == sorted(scores, reverse=True)
    assert "<b>broken.jpg: an empty file" in browser.evaluate("find('errors').textContent")
    assert browser.evaluate("document.querySelectorAll('main b, main script').length") == count
    browser.evaluate("find('grouped').click()")
    assert len(browser.evaluate(NAMES)) == count + 1
    folder = browser.evaluate("[...find('folder').options].at(-1).value")
    assert choose(browser, "folder", folder) == ["twin.jpg"]
    assert len(choose(browser, "folder", "")) == count + 1
    assert choose(browser, "name", "LATIN") == ["latin-\\udce9.jpg"]
    assert len(choose(browser, "name", "")) == count + 1
    assert choose(browser, "low", "11") == []
    choose(browser, "low", "")
    worst = choose(browser, "order", "worst")
    browser.evaluate("find('export').click()")
    rows = read_csv(tmp_path / "selection.csv")
    assert list(rows[0]) == ["image", "score", "percentile", "group"]
    assert all(0 <= float(row["percentile"]) <= 100 for row in rows)
    assert [row["image"].rpartition("/")[2] for row in rows] == worst
    assert all(Path(row["image"]).is_file() for row in rows if "latin" not in row["image"])


def test_a_visitor_opens_photographs_by_the_keyboard(browser: Browser) -> None:
    browser.evaluate("document.querySelector('.open[tabindex=\"0\"]').focus()")
    browser.press("ArrowRight")
    second = browser.evaluate("document.activeElement.closest('.cell').photograph.name")
    assert second == browser.evaluate(NAMES)[1]
    browser.press("x")  # marks it
    browser.press("Enter")
    browser.wait(
        "find('detail').open && find('detail-votes').querySelectorAll('rect').length === 10"
    )
    assert browser.evaluate("find('detail-name').textContent") == second
    assert browser.evaluate("find('detail-mark').checked")
    ranked = browser.evaluate("find('detail-percentile').textContent")
    assert re.fullmatch(r"higher than \d+% of the scores of the test split's .+", ranked)
    browser.wait("find('detail-photo').src.includes('/photos/') && find('detail-photo').complete")
    browser.wait(DRAWN)
    browser.press("o")
    assert not browser.evaluate(DRAWN)
    browser.press("ArrowLeft")
    assert browser.evaluate("find('detail-name').textContent") == browser.evaluate(NAMES)[0]
    browser.press("Escape")
    browser.wait("!find('detail').open")
    assert browser.evaluate("document.activeElement.className") == "open"
    assert "1 marked" in browser.evaluate("find('status').textContent")


def test_on_a_phone_the_photographs_come_before_the_filters(browser: Browser) -> None:
    top = "find('grid').getBoundingClientRect().top"
    for width, open_ in ((390, False), (1000, True), (390, False)):
        browser.resize(width, 844)
        browser.wait(f"find('filter-box').open === {str(open_).lower()}")
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert browser.evaluate(top) < 844 / 3
    browser.evaluate("document.querySelector('#filter-box > summary').click()")
    browser.wait(f"{top} > 844 / 3")
