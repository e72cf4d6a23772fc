"""An S3 server on this machine that keeps objects on the disk and writes down every request: run by the Python of `.venv/s3`.

Arguments: a folder for objects and the file of requests, a JSON line each with time, method, path, and bytes in and out.
"""

import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ["MOTO_S3_DEFAULT_KEY_BUFFER_SIZE"] = str(64 << 10)  # larger objects go to a temporary file
os.environ["TMPDIR"] = sys.argv[1]

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server


class Counted:
    """A WSGI application that writes down what is asked of another one."""

    def __init__(self, application: Any, file: Path) -> None:
        self._application, self._stream, self._lock = application, file.open("a", encoding="utf-8"), threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        """Answer a request."""
        answer: Iterable[bytes] = self._application(environ, start_response)
        parts, sent = iter(answer), 0
        try:
            part = next(parts, b"")
            while (following := next(parts, None)) is not None:
                sent += len(part)
                yield part
                part = following
            sent += len(part)
        finally:
            if close := getattr(answer, "close", None):
                close()
            # of a body in chunks with a checksum behind them the length is not said, but that of what is in the chunks
            received = int(environ.get("HTTP_X_AMZ_DECODED_CONTENT_LENGTH") or environ.get("CONTENT_LENGTH") or 0)
            said = {"time": time.time(), "method": environ["REQUEST_METHOD"], "path": environ["PATH_INFO"], "in": received, "out": sent}
            with self._lock:
                self._stream.write(json.dumps(said) + "\n")
                self._stream.flush()
        yield part  # after it is written down: who has the whole answer may end the server at once


class Quiet(MotoRequestHandler):
    """Keeps connections, and says nothing."""

    protocol_version = "HTTP/1.1"

    def log_request(self, *_: Any, **__: Any) -> None:
        """Nothing: `Counted` writes requests down."""


if __name__ == "__main__":
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # an object on the disk is an open file
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    server = make_server(
        "127.0.0.1", 0, Counted(DomainDispatcherApplication(create_backend_app), Path(sys.argv[2])), threaded=True, request_handler=Quiet
    )
    print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
