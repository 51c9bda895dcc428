"""The demo's server: the page's scores, and what it refuses to strangers."""

import html
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from PIL import Image

import eat
from eat.cli import main

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from browser import Browser, find_chromium

pytest.importorskip("gradio", reason="the demo needs gradio")
API = "/gradio_api"
META = {"_type": "gradio.FileData"}
BUTTONS = "[...document.querySelectorAll('button')].filter(b => b.checkVisibility())"
UNKNOWN = b'{"data": [], "fn_index": 999, "session_hash": "a"}'


@dataclass
class Demo:
    """A page that is served, as a visitor's browser speaks with it."""

    address: str
    folder: Path
    session: str = field(default_factory=lambda: uuid.uuid4().hex)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        """Status and content of an answer; a body that is no bytes is sent as JSON."""
        connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=60)
        if not isinstance(body, bytes | None):
            body = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        response = connection.getresponse()
        return response.status, response.read()

    def upload(self, *files: Path) -> list[dict[str, Any]]:
        """Upload files; what the page then says of them."""
        parts = [
            f'--B\r\nContent-Disposition: form-data; name="files"; filename="{file.name}"\r\n'
            f"Content-Type: image/jpeg\r\n\r\n".encode()
            + file.read_bytes()
            for file in files
        ]
        body = b"\r\n".join([*parts, b"--B--\r\n"])
        multipart = "multipart/form-data; boundary=B"
        status, content = self.ask("POST", f"{API}/upload", body, Content_Type=multipart)
        assert status == 200, content
        return [{"path": path, "meta": META} for path in json.loads(content)]

    def config(self) -> dict[str, Any]:
        """What the page knows of its parts."""
        page = self.ask("GET", "/")[1].decode()
        return json.loads(re.search(r"window.gradio_config = (\{.*?\});\s*</script", page, re.S)[1])

    def act(self, name: str, *data: Any, **more: Any) -> dict[str, Any]:
        """Have an event of the page happen; its output."""
        event = next(one for one in self.config()["dependencies"] if one["api_name"] == name)
        body = {"data": data, "fn_index": event["id"], "session_hash": self.session} | more
        path = "queue/join" if event["queue"] else "run/predict"
        status, content = self.ask("POST", f"{API}/{path}", body)
        assert status == 200, content
        if not event["queue"]:
            return json.loads(content)
        events = self.ask("GET", f"{API}/queue/data?session_hash={self.session}")[1].decode()
        told = [json.loads(line[6:]) for line in events.splitlines() if line.startswith("data: ")]
        return next(one["output"] for one in told if one["msg"] == "process_completed")


@pytest.fixture(scope="module")
def demo(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The demo of a small model, which ends with the tests and leaves nothing behind."""
    place = tmp_path_factory.mktemp("demo")
    argv = ["demo", "--checkpoint", str(checkpoint), "--port", "null", "--files", "12"]
    limits = ["--megapixels", "1", "--megabytes", "1"]
    with subprocess.Popen(
        [sys.executable, "-m", "eat", *argv, *limits],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(place)},
    ) as process:
        address = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
        (folder,) = place.glob("eat-demo-*")
        yield Demo(address, folder)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err.endswith("eat demo: interrupted\n") and "Traceback" not in err
    assert not list(place.iterdir())


@pytest.fixture
def visitor(demo: Demo) -> Demo:
    """A visitor of its own."""
    return Demo(demo.address, demo.folder)


def shown(output: dict[str, Any]) -> str:
    """All of an output that is text."""
    return html.unescape(json.dumps(output["data"]))


def test_scores_are_those_of_eat_score(visitor: Demo, sample: Path, checkpoint: Path) -> None:
    photos = sorted((sample / "images").iterdir())[:3]
    turned = visitor.folder.parent / "turned.jpg"
    exif = Image.Exif()
    exif[274] = 6  # lies on its side
    Image.open(photos[0]).save(turned, exif=exif)
    photos.append(turned)
    expected = sorted(eat.score(photos, checkpoint=checkpoint), key=lambda one: -one.score)
    taken = visitor.act("take", visitor.upload(*photos), None)
    assert "error" not in taken
    captions = visitor.act("show_all", None)["data"][0]["value"]
    assert [one["caption"].split()[1] for one in captions] == [Path(s.image).name for s in expected]
    for place, score in enumerate(expected):
        event = {"event_data": {"index": place, "value": None}, "trigger_id": 0}
        told = visitor.act("choose", None, **event)["data"][2]
        assert float(re.search(r'value="([\d.]+)"', told)[1]) == pytest.approx(
            score.score, abs=1e-5
        )
        assert told.count("<rect") == 10
    turned.unlink()


def test_what_cannot_be_scored_is_told_in_the_page(
    visitor: Demo, sample: Path, tmp_path: Path
) -> None:
    good = sorted((sample / "images").iterdir())[0]
    large, broken, bomb = (tmp_path / name for name in ("large.jpg", "broken.jpg", "bomb.png"))
    Image.new("RGB", (1100, 1000)).save(large)
    Image.new("1", (14_000, 14_000)).save(bomb)
    broken.write_bytes(good.read_bytes()[:2000])
    (tmp_path / "text.jpg").write_text("<script>alert(1)</script>")
    files = [good, large, broken, tmp_path / "text.jpg", bomb]
    told = shown(visitor.act("take", visitor.upload(*files), None))
    assert "large.jpg: 1.1 megapixels, more than 1" in told
    assert "broken.jpg: damaged or truncated" in told
    assert "text.jpg: not an image" in told
    assert "bomb.png: " in told
    assert str(visitor.folder) not in told and "Traceback" not in told
    assert len(visitor.act("show_all", None)["data"][0]["value"]) == 1


def test_no_more_photographs_are_scored_than_allowed(visitor: Demo, sample: Path) -> None:
    photos = sorted((sample / "images").iterdir())[:14]
    told = shown(visitor.act("take", visitor.upload(*photos), None))
    assert told.count("more than 12 photographs") == 2


def test_an_upload_has_a_length_and_a_limit(visitor: Demo, tmp_path: Path) -> None:
    head = {"Content-Type": "multipart/form-data; boundary=B"}
    big = b'--B\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    body = big + bytes(1_100_000) + b"\r\n--B--\r\n"
    assert visitor.ask("POST", f"{API}/upload", body, **head)[0] == 413
    connection = http.client.HTTPConnection(urlsplit(visitor.address).netloc, timeout=60)
    connection.request("POST", f"{API}/upload", iter([body]), head, encode_chunked=True)
    assert connection.getresponse().status == 411
    assert visitor.ask("POST", f"{API}/upload", b"", Content_Length=str(10**12), **head)[0] == 413


@pytest.fixture
def neighbour() -> Iterator[tuple[str, list[str]]]:
    """A server that must not be asked for anything, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        do_HEAD = do_GET

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/secret.jpg", asked
    server.shutdown()
    server.server_close()


def test_no_path_from_outside_is_read(
    visitor: Demo, sample: Path, checkpoint: Path, neighbour: tuple[str, list[str]]
) -> None:
    url, asked = neighbour
    (mine,) = visitor.upload(sorted((sample / "images").iterdir())[0])
    outside = [
        "/etc/passwd", str(checkpoint), f"{visitor.folder}/../../etc/passwd", "../../etc/passwd",
        f"{mine['path']}/../../../../../../../../etc/passwd", url, "file:///etc/passwd", "",
        str(visitor.folder), "\0", None, ["/etc/passwd"],
    ]  # fmt: skip
    number = next(d["id"] for d in visitor.config()["dependencies"] if d["api_name"] == "take")
    for path in outside:
        for file in ({"path": path, "meta": META}, {**mine, "path": path, "url": url}):
            body = {"data": [[file], None], "fn_index": number, "session_hash": visitor.session}
            status, content = visitor.ask("POST", f"{API}/queue/join", body)
            assert (status, content) == (403, b"no file that was uploaded here"), path
        if isinstance(path, str) and path:
            for name in (path, quote(path, safe=""), quote(quote(path, safe=""), safe="")):
                assert visitor.ask("GET", f"{API}/file={name}".replace("\0", "%00"))[0] == 403
    assert visitor.ask("GET", f"{API}/file={mine['path']}")[0] == 200
    assert asked == []


def test_work_with_the_model_waits_for_its_turn(visitor: Demo) -> None:
    number = next(d["id"] for d in visitor.config()["dependencies"] if d["api_name"] == "take")
    body = {"data": [None, None], "fn_index": number, "session_hash": visitor.session}
    assert visitor.ask("POST", f"{API}/run/predict", body)[0] == 404


def test_a_link_among_the_uploads_leads_nowhere(visitor: Demo) -> None:
    (visitor.folder / "link.jpg").symlink_to("/etc/hostname")
    assert visitor.ask("GET", f"{API}/file={visitor.folder}/link.jpg")[0] == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/config"), ("GET", f"{API}/info"), ("GET", f"{API}/openapi.json"),
        ("GET", "/docs"), ("GET", "/monitoring"), ("GET", f"{API}/runs"),
        ("GET", f"{API}/proxy=http://127.0.0.1/"), ("GET", f"{API}/stream/a"),
        ("GET", f"{API}/custom_component/a/client/b/c"), ("POST", f"{API}/component_server"),
        ("POST", f"{API}/api/take"), ("POST", f"{API}/call/take"), ("POST", "/login"),
        ("POST", f"{API}/vibe-edit"), ("POST", f"{API}/process_recording"), ("PUT", "/"),
        ("GET", "/static/../../../blocks.py"), ("GET", "/assets/..%2f..%2f..%2fblocks.py"),
    ],
)  # fmt: skip
def test_what_the_page_does_not_need_is_not_there(visitor: Demo, method: str, path: str) -> None:
    status, content = visitor.ask(method, path, {} if method == "POST" else None)
    assert status in (403, 404), content
    assert b"class Blocks" not in content


def test_other_pages_and_foreign_names_are_refused(visitor: Demo) -> None:
    here = urlsplit(visitor.address).netloc
    port = here.rpartition(":")[2]
    for host in (f"evil.example:{port}", "evil.example", f"127.0.0.1.evil.example:{port}", ""):
        assert visitor.ask("GET", "/", Host=host)[0] == 403
    for host in (here, f"localhost:{port}", f"[::1]:{port}"):
        assert visitor.ask("GET", "/", Host=host)[0] == 200
    for origin in ("http://evil.example", "null", f"http://evil.example:{port}", "http://["):
        body = {"data": [None, None], "fn_index": 0, "session_hash": "a"}
        assert visitor.ask("POST", f"{API}/queue/join", body, Origin=origin)[0] == 403
    assert visitor.ask("GET", "/", Origin=f"http://{here}")[0] == 200


@pytest.mark.parametrize(
    "body", [b"{", b"[" * 100_000, b"a" * 2**21, b"\xff", b'{"data": []}', UNKNOWN]
)
def test_a_request_that_is_none_is_answered(visitor: Demo, body: bytes) -> None:
    status, content = visitor.ask(
        "POST", f"{API}/queue/join", body, Content_Type="application/json"
    )
    assert 400 <= status <= 500
    assert b"Traceback" not in content


def test_the_page_loads_nothing_from_elsewhere(visitor: Demo) -> None:
    connection = http.client.HTTPConnection(urlsplit(visitor.address).netloc, timeout=60)
    connection.request("GET", "/")
    response = connection.getresponse()
    policy = response.headers["Content-Security-Policy"]
    assert "http" not in policy and "*" not in policy and "default-src 'self'" in policy
    config = visitor.config()
    assert not config["analytics_enabled"] and not config["stylesheets"]
    assert all(one["api_visibility"] == "private" for one in config["dependencies"])
    assert b"googleapis" not in visitor.ask("GET", "/theme.css")[1]


def test_a_port_in_use_is_told(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert main(["demo", "--checkpoint", str(checkpoint), "--port", port]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert f"--host 127.0.0.1 --port {port}: " in told.err and "--port null" in told.err


def test_without_gradio_one_message_says_what_to_install(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo", "--checkpoint", str(checkpoint)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'eat-iaa[demo]'" in line


@pytest.mark.parametrize(
    "wrong", [["--port", "99999"], ["--files", "0"], ["--megapixels", "0.5"], ["--host", "no.such"]]
)
def test_wrong_options_are_one_message(
    checkpoint: Path, wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--checkpoint", str(checkpoint), *wrong]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert wrong[0].removeprefix("--") in line


@pytest.mark.skipif(find_chromium() is None, reason="no chromium is installed")
def test_a_visitor_in_a_browser(demo: Demo, sample: Path, tmp_path: Path) -> None:
    images = sorted((sample / "images").iterdir())
    hostile = [tmp_path / name for name in ("<b>bold.jpg", "${alert(1)}&amp;.jpg")]
    for file, image in zip(hostile, images, strict=False):
        file.write_bytes(image.read_bytes())
    (broken := tmp_path / "broken.jpg").write_bytes(b"nothing")
    files = [*hostile, broken, *images[2:11]]
    with Browser(1200, 1000) as browser:
        browser.open(demo.address)
        browser.wait("document.querySelector('input[type=file]') !== null")
        browser.choose_files("input[type=file]", files)
        browser.wait("document.querySelectorAll('.thumbnail-lg').length === 11")
        assert "broken.jpg: not an image" in browser.evaluate("document.body.textContent")
        browser.evaluate("document.querySelector('.thumbnail-lg').focus()")
        browser.press("Enter")
        browser.wait("document.querySelectorAll('.eat svg rect').length === 10")
        browser.wait("document.querySelectorAll('img[src*=\"/pictures/\"]').length === 2")
        assert browser.evaluate("document.querySelectorAll('.eat b, .eat script').length") == 0
        score = browser.evaluate("document.querySelector('.score').value")
        browser.evaluate("document.querySelectorAll('button[role=tab]')[1].click()")
        browser.wait("document.getElementById('compare').checkVisibility()")
        browser.evaluate("document.getElementById('compare').click()")
        browser.wait("document.querySelectorAll('.eat td').length >= 8")
        best = browser.evaluate("document.querySelectorAll('.eat td')[1].textContent")
        assert float(best) == pytest.approx(float(score), abs=5e-4)
        browser.evaluate("document.querySelectorAll('button[role=tab]')[2].click()")
        for count in range(11):
            browser.wait(f"document.body.innerText.includes('{count} of 11 rated')")
            browser.press(str(count % 5 + 1))
        browser.wait("document.body.innerText.includes('11 of 11 rated')")
        browser.evaluate("document.getElementById('make-ratings').click()")
        browser.wait("document.body.innerText.includes('than the general model: SRCC')")
        behaviour = {"behavior": "allow", "downloadPath": str(tmp_path / "down")}
        browser.call("Browser.setDownloadBehavior", **behaviour)
        for file in ("ratings.csv", "me.safetensors"):
            browser.evaluate(f"{BUTTONS}.find(b => b.innerText === 'Download {file}').click()")
            for _ in range(200):
                if not (tmp_path / "down" / file).exists():
                    time.sleep(0.05)
        assert browser.complaints() == []
        own = (demo.address, "data:", "blob:", "about:")
        assert [url for url in browser.requests() if not url.startswith(own)] == []
    assert (tmp_path / "down" / "ratings.csv").read_text().count(".jpg,") == 11
    assert not eat.score(files[0], checkpoint=tmp_path / "down" / "me.safetensors").error
