"""A proxy before an object store's server that does what networks and busy stores do.

A request passes, or one of ``FAULTS`` happens to it. Which, a test decides by a function of method
and path, or by a list of faults for the puts to come.
"""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

# "before": the connection is cut before the request reaches the server; "after": before its answer
# reaches the client; "busy": 503 SlowDown; "conflict": 409; "denied": 403; "lag": the listing that
# was answered first is answered again.
FAULTS = ("before", "after", "busy", "conflict", "denied", "lag")

Rule = Callable[[str, str], str | None]  # method and path → a fault, or None

_ERROR = '<?xml version="1.0"?><Error><Code>{}</Code><Message>Try again.</Message></Error>'
_ANSWERS = {
    "busy": (503, "SlowDown"),
    "conflict": (409, "ConditionalRequestConflict"),
    "denied": (403, "AccessDenied"),
}


@dataclass
class StoreProxy:
    """A running proxy. ``rule`` may be set at any time."""

    url: str
    rule: Rule = lambda method, path: None
    seconds: float = 0.0  # that each request takes longer
    requests: list[tuple[str, str]] = field(default_factory=list)  # method and path of each

    def on_puts(self, *faults: str | None, of: str = "") -> None:
        """Let these happen to the next puts of objects whose path holds ``of``, in order."""
        left = deque(faults)

        def rule(method: str, path: str) -> str | None:
            return left.popleft() if left and method == "PUT" and of in path else None

        self.rule = rule

    def count(self, method: str, of: str = "") -> int:
        """How many requests there were, of one method and with ``of`` in the path."""
        return sum(m == method and of in path for m, path in self.requests)


@contextmanager
def proxy_of(server: str) -> Iterator[StoreProxy]:
    """Stand before the server at this URL while the block runs."""
    host = urlsplit(server).netloc
    state = StoreProxy("")
    listings: dict[str, tuple[int, list[tuple[str, str]], bytes]] = {}
    local = threading.local()

    def upstream() -> http.client.HTTPConnection:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection(host, timeout=30)
        connection: http.client.HTTPConnection = local.connection
        return connection

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None: ...

        def _serve(self) -> None:
            body = self._body()
            state.requests.append((self.command, self.path))
            time.sleep(state.seconds)
            fault = state.rule(self.command, self.path)
            if fault in _ANSWERS:
                status, code = _ANSWERS[fault]
                self._answer(status, [], _ERROR.format(code).encode())
                return
            if fault == "lag" and self.path in listings:
                self._answer(*listings[self.path])
                return
            if fault != "before":
                answer = self._forward(body)
                if "list-type" in self.path:
                    listings.setdefault(self.path, answer)
                if fault != "after":
                    self._answer(*answer)
                    return
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve  # noqa: N815

        def _body(self) -> bytes:
            if self.headers.get("Expect") == "100-continue":
                self.send_response_only(100)
                self.end_headers()
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            # The signature covers the name of the host, so that of the proxy is passed on.
            dropped = ("transfer-encoding", "expect", "content-length", "connection")
            headers = {k: v for k, v in self.headers.items() if k.lower() not in dropped}
            if body or self.command in ("PUT", "POST"):
                headers["Content-Length"] = str(len(body))
            for fresh in (False, True):
                try:
                    upstream().request(self.command, self.path, body or None, headers)
                    answer = upstream().getresponse()
                    break
                except (http.client.HTTPException, OSError):
                    upstream().close()
                    if fresh:
                        raise
            return answer.status, answer.getheaders(), answer.read()

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            length = dict(headers).get("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *args: object) -> None: ...

    server_of_proxy = Server(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server_of_proxy.server_port}"
    thread = threading.Thread(target=server_of_proxy.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server_of_proxy.shutdown()
        server_of_proxy.server_close()
