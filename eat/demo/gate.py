"""What the demo's server lets in: requests of its own page, about its own files."""

import json
import logging
import re
import reprlib
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

log = logging.getLogger("eat")
API = "/gradio_api"
# What Gradio's page asks for. All else that Gradio serves, such as proxies, is not there.
READ = re.compile(
    r"/|/favicon\.ico|/manifest\.json|/theme\.css|/(assets|static)/.+"
    rf"|{API}/(upload_progress|queue/data|heartbeat/\w+)"
)
WRITE = re.compile(rf"{API}/(upload|queue/join|run/predict|cancel)")
FILE = f"{API}/file="
MOST_JSON = 2**20  # bytes of a request that is no upload
MOST_STORED = 4 * 2**30  # bytes of all that is uploaded
# The page may load nothing from elsewhere, and nobody may frame it.
HEADERS = {
    "content-security-policy": "default-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'; frame-ancestors 'none'; form-action 'self'; "
    "base-uri 'self'; object-src 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Refused(Exception):
    """A request that is not let in."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Gate:
    """An ASGI application that passes on to another what it lets in.

    Args:
        app: the other.
        folder: of uploaded files, and those made of them. No path outside it is passed on.
        host: name that the server was bound to.
    """

    def __init__(self, app: App, folder: Path, host: str) -> None:
        self.app = app
        self.folder = folder.resolve()
        self.names = {"localhost", host}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # a websocket, of which Gradio has none
            await send({"type": "websocket.close"})
            return
        try:
            receive = await self.checked(scope, receive)
        except Refused as refused:
            await answer(send, refused.status, str(refused))
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(name.encode(), text.encode()) for name, text in HEADERS.items()]
                message["headers"] = [*message["headers"], *more]
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except Exception as error:  # it has answered; nonsense of strangers fills no terminal
            log.warning("%s: %s: %s", scope["path"], type(error).__name__, reprlib.repr(str(error)))

    async def checked(self, scope: Message, receive: Receive) -> Receive:
        """Check a request.

        Returns:
            Its body as the application is to receive it.

        Raises:
            Refused: it is not let in.
        """
        headers = {name.decode("latin-1"): v.decode("latin-1") for name, v in scope["headers"]}
        self.check_origin(headers)
        path, method = scope["path"], scope["method"]
        if method in ("GET", "HEAD"):
            if path.startswith(FILE):
                self.check_path(path.removeprefix(FILE))
            elif not READ.fullmatch(path):
                raise Refused(HTTPStatus.NOT_FOUND, "not found")
            return receive
        if method != "POST" or not WRITE.fullmatch(path):
            raise Refused(HTTPStatus.NOT_FOUND, "not found")
        if path == f"{API}/upload":
            self.check_room(headers.get("content-length", ""))
            return receive
        body = await read_body(receive)
        for given in paths_in(parse(body)):
            self.check_path(given)
        return replay(body, receive)

    def check_origin(self, headers: dict[str, str]) -> None:
        """Refuse other pages' requests, and those under a foreign name, which may come to mean us.

        A page of the web could have the visitor's browser send them.
        """
        host = headers.get("host", "")
        own = (None, f"http://{host}", f"https://{host}")
        if not self.is_ours(host) or headers.get("origin") not in own:
            raise Refused(HTTPStatus.FORBIDDEN, "open this page by its address")

    def is_ours(self, host: str) -> bool:
        """Whether a host is named as by a visitor: by its address, or as the server was bound."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in self.names or bool(ip_address(name))
        except ValueError:
            return False

    def check_path(self, path: Any) -> None:
        """Refuse what is no path of a file that was uploaded here, or made here."""
        try:
            inside = Path(path).is_absolute() and self.folder in Path(path).resolve().parents
        except (OSError, TypeError, ValueError, RuntimeError):
            inside = False
        if not inside:
            raise Refused(HTTPStatus.FORBIDDEN, "no file that was uploaded here")

    def check_room(self, length: str) -> None:
        """Refuse an upload of unknown length, and one that there is no room for."""
        if not length.isdecimal():
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "an upload without its length")
        stored = sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())
        if stored + int(length) > MOST_STORED:
            most = f"{MOST_STORED / 2**30:.0f} GB"
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"all uploads together: {most}")


async def answer(send: Send, status: HTTPStatus, text: str) -> None:
    """Answer with a line of text."""
    body = text.encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def read_body(receive: Receive) -> bytes:
    """The whole body of a request.

    Raises:
        Refused: it is longer than ``MOST_JSON``.
    """
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MOST_JSON:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too long")
    return body


def replay(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read once more, then what comes after it."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


def parse(body: bytes) -> Any:
    """A JSON body; Refused if it is none."""
    try:
        return json.loads(body or b"null")
    except (ValueError, RecursionError):
        raise Refused(HTTPStatus.BAD_REQUEST, "no JSON") from None


def paths_in(content: Any) -> Iterator[Any]:
    """All that a request names as a file, at any depth."""
    waiting = [content]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if "path" in one:
                yield one["path"]
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
