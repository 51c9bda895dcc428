"""A headless chromium, driven over its debugging pipe: no driver, no port, no network.

Used by scripts/benchmark_gallery.py and by the tests of pages.
"""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

# Nothing of the browser's own is to speak to anyone, or to draw on a GPU.
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps",
    "--disable-extensions", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip

# Codes of keys that a browser acts on itself.
CODES = {"Enter": 13, "Escape": 27, "PageDown": 34, "End": 35, "Home": 36}


def find_chromium() -> str | None:
    """The program, if there is one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


class Browser:
    """A browser with one page, as a context.

    Attributes:
        events: what the page told, in order: (method, values).
    """

    def __init__(self, width: int = 1280, height: int = 800) -> None:
        program = find_chromium()
        if program is None:
            raise FileNotFoundError("no chromium is installed")
        self.profile = tempfile.mkdtemp(prefix="chromium-")
        read, self._out = os.pipe()
        self._in, write = os.pipe()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._answers: dict[int, dict[str, Any]] = {}
        self._number, self._rest, self._session = 0, b"", ""

        def as_three_and_four() -> None:  # where chromium takes the pipe's ends
            ends = os.dup(read), os.dup(write)  # either may be 3 or 4 itself
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        flags = [*FLAGS, f"--user-data-dir={self.profile}", f"--window-size={width},{height}"]
        self._process = subprocess.Popen(
            [program, *flags, "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=as_three_and_four,
            close_fds=False,
        )
        os.close(read)
        os.close(write)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.resize(width, height)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self.profile, ignore_errors=True)

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol.

        Raises:
            RuntimeError: the browser refuses, or ended.
        """
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": values}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while self._number not in self._answers:
            self._take(self._read())
        answer = self._answers.pop(self._number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._in, 2**20)
            if not part:
                raise RuntimeError("the browser ended")
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._answers[message["id"]] = message
        else:
            self.events.append((message["method"], message.get("params", {})))

    def resize(self, width: int, height: int) -> None:
        """Give the window another size, in pixels of the page."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def evaluate(self, code: str) -> Any:
        """The value of a JavaScript expression, or what its promise resolves to.

        Raises:
            RuntimeError: it throws.
        """
        found = self.call(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in found:
            thrown = found["exceptionDetails"]
            raise RuntimeError(thrown.get("exception", {}).get("description", thrown["text"]))
        return found["result"].get("value")

    def open(self, page: Path | str) -> None:
        """Open a page, from the disk or by its address, and wait until its own scripts have run."""
        before = sum(method == "Page.loadEventFired" for method, _ in self.events)
        self.call("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        while sum(method == "Page.loadEventFired" for method, _ in self.events) == before:
            self._take(self._read())

    def wait(self, code: str, seconds: float = 30) -> None:
        """Wait until a JavaScript expression is true.

        Raises:
            TimeoutError: it never was.
        """
        end = time.monotonic() + seconds
        while not self.evaluate(code):
            if time.monotonic() > end:
                raise TimeoutError(code)
            time.sleep(0.02)

    def choose_files(self, selector: str, files: Sequence[Path]) -> None:
        """Choose files in a file field, as a user does in the system's dialog."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        field = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=field, files=[str(file) for file in files])

    def press(self, key: str) -> None:
        """Press and release a key, named as in JavaScript's KeyboardEvent.key."""
        text = {"text": "\r"} if key == "Enter" else {"text": key} if len(key) == 1 else {}
        code = CODES.get(key, 0)
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text
            )

    def screenshot(self, file: Path) -> None:
        """Write what is to be seen as a PNG."""
        content = self.call("Page.captureScreenshot", format="png")["data"]
        file.write_bytes(base64.b64decode(content))

    def complaints(self) -> list[str]:
        """Errors that the page has logged or thrown so far."""
        found = []
        for method, values in self.events:
            if method == "Runtime.exceptionThrown":
                found.append(values["exceptionDetails"]["text"])
            elif method == "Log.entryAdded" and values["entry"]["level"] == "error":
                found.append(values["entry"]["text"])
        return found

    def requests(self) -> list[str]:
        """Addresses that the page has asked for so far."""
        sent = "Network.requestWillBeSent"
        return [values["request"]["url"] for method, values in self.events if method == sent]
