"""A hub on loopback: the part of Hugging Face's that uploads and downloads of models ask for."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of_the_tests"


class FakeHub(ThreadingHTTPServer):
    """Repositories as lists of commits, each a dict of files.

    Attributes:
        repositories: commits by name; the number of a commit is its revision, in 40 digits.
        blobs: large files by their SHA-256.
        announced: size that is told of any file, in place of its own.
        broken: uploads of large files are cut off.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, list[dict[str, bytes]]] = {}
        self.blobs: dict[str, bytes] = {}
        self.announced: int | None = None
        self.broken = False


@contextmanager
def serving() -> Iterator[FakeHub]:
    """A hub that answers within the context."""
    with FakeHub() as hub:
        threading.Thread(target=hub.serve_forever, args=(0.02,), daemon=True).start()
        yield hub
        hub.shutdown()


class Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, status: int = 200, content: Any = b"", **headers: Any) -> None:
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": len(content)} | headers).items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.path.startswith("/blobs/"):
            return self.answer(content=self.server.blobs[self.path.removeprefix("/blobs/")])
        name, _, rest = self.path.removeprefix("/").partition("/resolve/")
        if name not in self.server.repositories:  # private or not there: the hub does not tell
            return self.answer(401, X_Error_Code="RepoNotFound")
        commits = self.server.repositories[name]
        revision, _, file = rest.partition("/")
        index = len(commits) if revision == "main" else int(revision)
        if not 0 < index <= len(commits):
            return self.answer(404, X_Error_Code="RevisionNotFound")
        if (content := commits[index - 1].get(file)) is None:
            return self.answer(404, X_Error_Code="EntryNotFound")
        oid = hashlib.sha256(content).hexdigest()
        size = len(content) if self.server.announced is None else self.server.announced
        headers = {"X_Repo_Commit": f"{index:040}", "ETag": f'"{oid}"'}
        if oid in self.server.blobs:
            # Another host, as the hub's files lie on one: its answer is not asked about the file.
            place = f"http://localhost:{self.server.server_port}/blobs/{oid}"
            return self.answer(
                302, **headers, Location=place, X_Linked_Size=size, X_Linked_ETag=f'"{oid}"'
            )
        return self.answer(content=content, **headers)

    def do_PUT(self) -> None:
        content = self.body()
        if self.server.broken:
            self.close_connection = True
            return None
        self.server.blobs[self.path.removeprefix("/blobs/")] = content
        return self.answer()

    def do_POST(self) -> None:
        content = self.body()
        if self.path == "/api/validate-yaml":
            return self.answer(content={"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            asked = json.loads(content)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            status = 409 if name in self.server.repositories else 200
            self.server.repositories.setdefault(name, [])
            return self.answer(status, {"url": f"{self.server.endpoint}/{name}"})
        if self.path.endswith("/info/lfs/objects/batch"):
            return self.answer(
                content={"objects": list(map(self.place, json.loads(content)["objects"]))}
            )
        if self.path == "/verify":
            told = json.loads(content)
            right = len(self.server.blobs[told["oid"]]) == told["size"]
            return self.answer(200 if right else 404)
        name, _, verb = (
            self.path.removeprefix("/api/models/").rpartition("/main")[0].rpartition("/")
        )
        if verb == "preupload":
            large = {True: "lfs", False: "regular"}
            files = [
                {"path": file["path"], "uploadMode": large[file["path"].endswith(".safetensors")],
                 "shouldIgnore": False}
                for file in json.loads(content)["files"]
            ]  # fmt: skip
            return self.answer(content={"files": files})
        return self.commit(name, [json.loads(line) for line in content.splitlines()])

    def place(self, blob: dict[str, Any]) -> dict[str, Any]:
        """Where to put a large file."""
        if blob["oid"] in self.server.blobs:
            return blob
        at = {"href": f"{self.server.endpoint}/blobs/{blob['oid']}"}
        return blob | {
            "actions": {"upload": at, "verify": {"href": f"{self.server.endpoint}/verify"}}
        }

    def commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        commits = self.server.repositories[name]
        files = dict(commits[-1]) if commits else {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]]
        commits.append(files)
        address = f"{self.server.endpoint}/{name}/commit/{len(commits):040}"
        self.answer(
            content={"commitUrl": address, "commitOid": f"{len(commits):040}", "success": True}
        )
