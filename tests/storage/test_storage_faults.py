"""Storage that fails and stalls: asked again for a while, then one line. The tests' S3 server, behind a proxy that gets in the way."""

import http.client
import pickle
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from raysberta.errors import InputError
from raysberta.pipeline.command import reported
from raysberta.storage import location
from raysberta.storage.artifacts import Store
from raysberta.storage.location import filesystem, join


class Proxy(ThreadingHTTPServer):
    """Hands requests on to a server, each only after it has failed in every way that `faults` names."""

    daemon_threads = True

    def __init__(self, server: str, faults: tuple[str, ...]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.server, self.faults, self.broken = server, faults, False
        self.asked: Counter[str] = Counter()
        self.lock = threading.Lock()

    def fault(self, request: str) -> str | None:
        """What befalls a request the next time, None where it goes through."""
        with self.lock:
            self.asked[request] += 1
            times = self.asked[request]
        if self.broken:
            return "503"
        return self.faults[times - 1] if times <= len(self.faults) else None


class Handler(BaseHTTPRequestHandler):
    """Of a request."""

    protocol_version = "HTTP/1.1"
    server: Proxy

    def hand_on(self) -> None:
        """Fail, or ask the server."""
        body = self._body()
        match self.server.fault(f"{self.command} {self.path}"):
            case "503":
                self.send_response(503)
                self.send_header("Content-Length", "0")
                self.end_headers()
            case "closed":
                self.close_connection = True
            case "stalled":
                time.sleep(3)
                self.close_connection = True
            case None:
                self._ask(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = hand_on

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = [self.rfile.readline()]
        while size := int(parts[-1].partition(b";")[0], 16):
            parts += [self.rfile.read(size + 2), self.rfile.readline()]
        return b"".join([*parts, self.rfile.readline()])  # in its chunks

    def _ask(self, body: bytes) -> None:
        connection = http.client.HTTPConnection(self.server.server)
        headers = {name: value for name, value in self.headers.items() if name != "Expect"}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(answer.getheader("Content-Length", 0) if self.command == "HEAD" else len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def proxy(s3: str, request: pytest.FixtureRequest) -> Iterator[Proxy]:
    """Before the S3 server, with the faults that a test asks for."""
    server = Proxy(s3.partition("endpoint_override=")[2].partition("&")[0], request.param)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def behind(proxy: Proxy, s3: str) -> str:
    return join(s3.replace(proxy.server, f"127.0.0.1:{proxy.server_port}"), f"faults-{proxy.server_port}")


@pytest.mark.parametrize("proxy", [("503", "closed")], indirect=True)
def test_what_fails_for_a_while_is_done_in_the_end(proxy: Proxy, s3: str) -> None:
    """An artifact written and read, each request of it failing twice: the rows, the manifest and the file system that travels."""
    store = Store(behind(proxy, s3))
    rows = pa.table({"text": [f"row {number}" for number in range(500)]})
    draft = store.draft("stage", "f1")
    draft.write_table("rows", rows)
    store.commit(draft, "stage", "f1", {}, {}, 42, time.time())
    found = store.find("stage", "f1")
    assert found is not None and found.table("rows").equals(rows)
    travelled = pickle.loads(pickle.dumps(store.fs))
    proxy.asked.clear()
    assert travelled.get_file_info(f"{store.home('stage', 'f1')}/manifest.json").is_file
    assert set(proxy.asked.values()) == {3}, proxy.asked


@pytest.mark.parametrize("proxy", [("stalled",)], indirect=True)
def test_a_request_that_stalls_is_made_again(proxy: Proxy, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(location, "STALLED_SECONDS", 1.0)
    fs, path = filesystem(behind(proxy, s3))
    begun = time.monotonic()
    assert fs.get_file_info(f"{path}/nothing").type == pafs.FileType.NotFound
    assert max(proxy.asked.values()) == 2 and time.monotonic() - begun < 10


@pytest.mark.parametrize("proxy", [()], indirect=True)
def test_what_does_not_come_back_is_one_line(
    proxy: Proxy, s3: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(location, "RETRIES", 3)
    store = Store(behind(proxy, s3))
    store.check_writable(0)
    proxy.broken = True
    proxy.asked.clear()
    with pytest.raises(InputError, match=r"^storage s3://bucket/run/faults-.* cannot be written: .*503") as caught:
        store.check_writable(0)
    assert "\n" not in str(caught.value) and "planted" not in str(caught.value)
    assert set(proxy.asked.values()) == {4}, "once and three times again"
    assert reported(lambda: store.find("stage", "f1") is None) == 1
    said = capsys.readouterr().err
    assert said.startswith("failed: ") and "503" in said and said.count("\n") == 1 and "planted" not in said


def test_waiting_is_bounded() -> None:
    waits = [0.025 * 2**number for number in range(location.RETRIES)]
    assert 20 < sum(waits) < 30
    assert (location.RETRIES + 1) * location.STALLED_SECONDS < 120
