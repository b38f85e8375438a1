"""Images behind web servers: a real one on loopback that redirects, stalls, refuses and forbids."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from blip2cli.errors import ImageError
from blip2cli.options import SourceOptions
from blip2cli.sources import open_sources
from blip2cli.sources.remote_ref import RemoteRef
from blip2cli.storage import url_retries, web
from blip2cli.storage.fetching import fetch
from blip2cli.storage.remote_errors import RemoteError
from blip2cli.storage.url_retries import with_retries
from blip2cli.storage.web import TooLargeError, forbidding_directive
from tests.images.pictures import encoded, gradient

PICTURE = encoded(gradient(), "PNG")


class Web:
    """A web server, and how often each path was asked for."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.agents: set[str] = set()
        self.url = ""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr(url_retries, "RETRY_AFTER", (0.01, 0.02))
    found = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            found.asked[path] += 1
            found.agents.add(self.headers["User-Agent"])
            if path == "/moved.png":
                self.answer(302, Location="/a.png")
            elif path == "/loop.png":
                self.answer(302, Location="/loop.png")
            elif path == "/busy.png" and found.asked[path] < 3:
                self.answer(503)
            elif path == "/asked.png" and found.asked[path] < 2:
                self.answer(429, **{"Retry-After": "0.3"})
            elif path in ("/404.png", "/403.png", "/418.png", "/500.png"):
                self.answer(int(path[1:4]))
            elif path == "/noai.png":
                self.answer(200, PICTURE, **{"X-Robots-Tag": "all, NoAI"})
            elif path == "/slow.png":
                self.send_response(200)
                self.end_headers()
                for _ in range(100):
                    try:
                        self.wfile.write(b"x")
                        self.wfile.flush()
                    except OSError:
                        return
                    time.sleep(0.02)
            elif path == "/endless.png":
                self.send_response(200)
                self.end_headers()
                with_pieces = bytes(1 << 12)
                for _ in range(1 << 10):
                    try:
                        self.wfile.write(with_pieces)
                    except OSError:
                        return
            else:
                self.answer(200, PICTURE)

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Keep the test's output clean."""

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{running.server_address[1]}"
    yield found
    running.shutdown()
    running.server_close()
    thread.join()


def test_redirects_are_followed_and_failures_tried_again(server: Web) -> None:
    for name in ("a", "moved", "busy", "asked"):
        assert fetch(f"{server.url}/{name}.png", None, 1 << 20) == PICTURE
    assert server.asked == {"/a.png": 2, "/moved.png": 1, "/busy.png": 3, "/asked.png": 2}
    (agent,) = server.agents
    assert agent.startswith("blip2cli/")


@pytest.mark.parametrize(
    ("name", "kind", "times"),
    [
        ("404", "missing", 1),
        ("403", "permission_denied", 1),
        ("418", "read_error", 1),
        ("500", "read_error", 3),
        ("loop", "read_error", None),
        ("noai", "permission_denied", 1),
    ],
)
def test_what_cannot_be_had_is_a_failure_with_a_name(
    name: str, kind: str, times: int | None, server: Web
) -> None:
    with pytest.raises(ImageError) as caught:
        RemoteRef("a", f"{server.url}/{name}.png").read()
    assert caught.value.error_type == kind
    if times is not None:
        assert server.asked[f"/{name}.png"] == times
    if name == "noai":
        assert "X-Robots-Tag: noai" in str(caught.value)


def test_size_and_time_are_limited(server: Web) -> None:
    for name in ("a", "endless"):
        with pytest.raises(TooLargeError):
            fetch(f"{server.url}/{name}.png", None, 60)
    slow = f"{server.url}/slow.png"
    with pytest.raises(RemoteError, match=r"did not come within 0\.1 seconds"):
        with_retries(slow, lambda: web.fetch_web(slow, 1 << 20, seconds=0.1))
    assert server.asked["/slow.png"] == 1


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([], None),
        (["all"], None),
        (["noai"], "noai"),
        (["nofollow, NoImageAI"], "noimageai"),
        (["nofollow", "noindex"], "noindex"),
        (["otherbot: noai"], None),
        (["BLIP2CLI: noimageindex"], "noimageindex"),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST"], None),
        (["noai, unavailable_after: 25 Jun 2030 15:00:00 PST"], "noai"),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, noai"], "noai"),
        (["max-image-preview:large, noindex"], "noindex"),
    ],
)
def test_robots_headers(headers: list[str], found: str | None) -> None:
    assert forbidding_directive(headers) == found


def test_a_list_of_urls(server: Web, tmp_path: Path) -> None:
    table = tmp_path / "urls.csv"
    table.write_text(
        f"url,alt\n{server.url}/a.png?size=1,one\n{server.url}/404.png,two\n"
        f"{server.url}/a.png?size=2,three\nfile:///etc/passwd,four\n/etc/passwd,five\n"
    )
    refs = list(open_sources(SourceOptions((str(table),), image_column="url", keep=("alt",))))
    host = server.url.removeprefix("http://")
    assert [ref.file_name for ref in refs[:2]] == [f"{host}/a.png", f"{host}/404.png"]
    assert [getattr(ref, "error_type", None) for ref in refs] == [
        None, None, None, "outside_source", "outside_source",
    ]  # fmt: skip
    assert refs[0].read() == refs[2].read() == PICTURE
    assert len({ref.file_name for ref in refs[:3]}) == 3
    listed = tmp_path / "urls.txt"
    listed.write_text(f"{server.url}/a.png?size=1\ns3://bucket/a.png\n{server.url}/a.png?size=2\n")
    one, denied, two = open_sources(SourceOptions((str(listed),)))
    assert [one.file_name, two.file_name] == [refs[0].file_name, refs[2].file_name]
    assert one.read() == PICTURE
    assert getattr(denied, "error_type", None) == "outside_source"
    # Elsewhere a path that leads to another machine has to be allowed.
    renamed = table.with_name("names.csv")
    renamed.write_text(table.read_text().replace("url,", "file_name,"))
    (first, *_) = open_sources(SourceOptions((str(renamed),)))
    assert getattr(first, "error_type", None) == "outside_source"
