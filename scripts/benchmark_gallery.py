"""How fast a gallery of many photographs opens and scrolls, in a headless chromium.

    python scripts/benchmark_gallery.py
    python scripts/benchmark_gallery.py --photographs 100000 --keep /tmp/gallery

The photographs are drawn, and their scores, votes and points are random. It measures the first
paint and the time until all thumbnails in sight are there, from the start of the navigation; then
the longest frame while the page scrolls from end to end, and while it is filtered and sorted.
"""

import argparse
import io
import tempfile
from pathlib import Path

import numpy as np
from browser import Browser
from PIL import Image

from eat.pictures.gallery.make import ASSETS, write_photographs
from eat.pictures.gallery.photographs import MOST_POINTS, Photograph, thumb_name
from eat.pictures.page import new_page

FRAMES = """
(async () => {
  const next = () => new Promise(requestAnimationFrame);
  const spans = [];
  let before = await next();
  const frame = async (act) => {
    act();
    const now = await next();
    spans.push(now - before);
    before = now;
  };
  %s
  return [Math.max(...spans), spans.sort((a, b) => a - b)[spans.length >> 1], spans.length];
})()
"""
SCROLL = """
  const steps = 600, end = document.documentElement.scrollHeight - innerHeight;
  for (let i = 0; i <= steps; i++) await frame(() => scrollTo(0, (end * i) / steps));
"""
WHEEL = """
  scrollTo(0, 0);
  for (let i = 0; i < 600; i++) await frame(() => scrollBy(0, 120));
"""
FILTER = """
  const set = (id, value) => {
    find(id).value = value;
    find(id).dispatchEvent(new Event("input", { bubbles: true }));
  };
  const wishes = [["low", "6"], ["name", "7"], ["order", "worst"], ["order", "name"], ["low", ""], ["name", ""]];
  for (const [id, value] of wishes) {
    await frame(() => set(id, value));
    for (let i = 0; i < 5; i++) await frame(() => {});
  }
"""  # noqa: E501


def draw_page(folder: Path, count: int) -> None:
    """A gallery of drawn photographs in 200 folders, a tenth of them near-duplicates."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[:213, :320]
    with new_page(folder, ASSETS) as page:
        (page / "thumbs").mkdir()
        photographs = []
        for i, score in enumerate(np.sort(draw.normal(5.3, 0.8, count).clip(1, 10))[::-1]):
            file = Path(f"photographs/{i % 200:03}/{i:06}.jpg")
            a, b, c = draw.uniform(10, 90, 3)
            pixels = np.stack([np.sin(x / a + y / b), np.sin(y / c), np.sin(x / c)], axis=2)
            pixels = 127 + 100 * pixels + draw.normal(0, 9, (213, 320, 1))
            content = io.BytesIO()
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(content, "JPEG", quality=80)
            (page / "thumbs" / thumb_name(file)).write_bytes(content.getvalue())
            votes = tuple(draw.dirichlet(np.ones(10)).tolist())
            points = draw.integers(0, 1000, (MOST_POINTS, 3)).astype(np.int16)
            group = i - 1 if i % 10 == 1 else i
            shown = (320, 213), group, points, 100 - 100 * i / count
            photographs.append(Photograph(i, file, float(score), votes, *shown))
        about = {"title": f"{count} drawn photographs", "version": "", "model": "drawn"}
        about |= {"checkpoint": "none", "trained_on": "nothing", "low": 1, "high": 10}
        about |= {"block": "drawn", "upright": True, "errors": [], "rated": None}
        about["ranked_among"] = "drawn photographs"
        write_photographs(page, folder, photographs, about)


def main() -> None:
    """Draw a gallery, open it, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=int, default=20_000)
    parser.add_argument("--keep", type=Path, help="folder of the page; is used if it is there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        page = given.keep or Path(scratch) / "page"
        if not (page / "index.html").exists():
            draw_page(page, given.photographs)
        with Browser(1600, 900) as browser:
            browser.open(page / "index.html")
            in_sight = "[...document.images].every(i => !i.closest('.cell') || i.complete)"
            browser.wait(f"document.querySelector('.cell') && {in_sight}")
            thumbnails = browser.evaluate("performance.now()")
            browser.wait("document.documentElement.dataset.complete !== undefined")
            whole = browser.evaluate("performance.now()")
            paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            print(f"{'first paint':28}{browser.evaluate(paint):8.0f} ms   aim 2000")
            print(f"{'thumbnails in sight':28}{thumbnails:8.0f} ms")
            print(f"{'all photographs known':28}{whole:8.0f} ms")
            for name, code in (("end to end", SCROLL), ("by the wheel", WHEEL), ("filter", FILTER)):
                longest, median, count = browser.evaluate(FRAMES % code)
                print(f"{name + ', longest frame':28}{longest:8.0f} ms   aim 100 "
                      f"(median {median:.0f} ms of {count})")  # fmt: skip
            print(
                f"{'heap':28}{browser.evaluate('performance.memory.usedJSHeapSize') / 1e6:8.0f} MB"
            )
            for complaint in browser.complaints():
                print(f"the page complains: {complaint}")


if __name__ == "__main__":
    main()
