"""A hub on this machine: what huggingface_hub and datasets ask of one over HTTP, answered from a folder of repositories.

`<root>/<owner>/<name>/` holds the files of a data set at its one commit. Files are sent with their ETag and in ranges, as the hub does.
"""

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

COMMIT = "c0ffee0123456789c0ffee0123456789c0ffee01"


class Hub(ThreadingHTTPServer):
    """Serves until it is shut down."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.root = root
        self.asked: Counter[str] = Counter()
        """Requests by path."""
        self.broken: Counter[str] = Counter()
        """How many more requests for a path get no good answer: 503, or of a file half of it."""
        self.sent = 0
        """Bytes of files."""

    @property
    def endpoint(self) -> str:
        """For HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked[path] += 1
        if found := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(*found.groups())
        elif found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+?)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?", path):
            self._about(*found.groups())
        else:
            self._refuse(404, "EntryNotFound")

    def _repository(self, name: str, revision: str | None) -> Path | None:
        folder = self.server.root / name
        if not folder.is_dir():
            self._refuse(404, "RepoNotFound")
        elif revision not in (None, "main", COMMIT):
            self._refuse(404, "RevisionNotFound")
        else:
            return folder
        return None

    def _about(self, name: str, what: str | None, revision: str | None, inner: str | None) -> None:
        path = unquote(urlsplit(self.path).path)
        if self.server.broken[path] > 0:
            self.server.broken[path] -= 1
            self._refuse(503, "")
            return
        folder = self._repository(name, revision)
        if folder is None:
            return
        files = sorted(file for file in folder.rglob("*"))
        if what == "tree":
            base = folder / (inner or "")
            if not base.exists():
                self._refuse(404, "EntryNotFound")
                return
            deep = "recursive=true" in self.path.lower()
            self._json([_entry(folder, file) for file in files if (deep and base in file.parents) or file.parent == base])
        elif what == "paths-info":
            asked = json.loads(self.body) if self.body.startswith(b"{") else {"paths": re.findall(r"paths=([^&]*)", self.body.decode())}
            names = [unquote(each.replace("+", " ")) for each in asked["paths"]]
            self._json([_entry(folder, folder / each) for each in names if each and (folder / each).exists()])
        else:
            siblings = [{"rfilename": file.relative_to(folder).as_posix()} for file in files if file.is_file()]
            card = (folder / "README.md").read_text().split("---")[1] if (folder / "README.md").is_file() else "{}"
            about = {"id": name, "sha": COMMIT, "private": False, "tags": [], "downloads": 0, "likes": 0, "gated": False, "disabled": False}
            self._json({**about, "siblings": siblings, "cardData": yaml.safe_load(card)})

    def _file(self, name: str, revision: str, inner: str) -> None:
        folder = self._repository(name, revision)
        if folder is None:
            return
        if not (folder / inner).is_file():
            self._refuse(404, "EntryNotFound")
            return
        data = (folder / inner).read_bytes()
        start, stop = 0, len(data)
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, stop = int(found[1]), int(found[2]) + 1 if found[2] else len(data)
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("Accept-Ranges", "bytes")
        if "Range" in self.headers:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        if self.command == "GET":
            part = data[start:stop]
            if self.server.broken[inner] > 0:
                self.server.broken[inner] -= 1
                part = part[: len(part) // 2]
                self.close_connection = True
            self.server.sent += len(part)
            self.wfile.write(part)

    def _json(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", f"{code} says this hub")
        self.send_header("Content-Length", "0")
        self.end_headers()


def _entry(folder: Path, file: Path) -> dict[str, object]:
    name = file.relative_to(folder).as_posix()
    if file.is_dir():
        return {"type": "directory", "path": name, "oid": "0" * 40}
    return {"type": "file", "path": name, "oid": hashlib.sha1(file.read_bytes()).hexdigest(), "size": file.stat().st_size}


@contextmanager
def serving(root: Path) -> Iterator[Hub]:
    """A hub over a folder, on a free port."""
    hub = Hub(root)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
