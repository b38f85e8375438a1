"""A server on loopback that speaks as much of the hub's protocol as a download needs.

Endpoints as documented for the hub's HTTP API: repository info, the tree, and ``resolve`` for HEAD
and GET with ``X-Repo-Commit``, ``ETag`` and byte ranges. Models and data sets are told apart by
nothing but their names.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONVERTED_COMMIT = "76543210fedcba9876543210fedcba9876543210"
_BRANCH = ["refs", "convert", "parquet"]


@dataclass
class Hub:
    """What the server offers and what was asked of it."""

    repos: dict[str, Path]
    gated: set[str] = field(default_factory=set)
    private: dict[str, str] = field(default_factory=dict)  # repository to the token that opens it
    # Repository to the Parquet files that the hub made of it, a branch of their own.
    converted: dict[str, Path] = field(default_factory=dict)
    cut_once: set[str] = field(default_factory=set)  # these files' first GET ends half-way
    cut_always: set[str] = field(default_factory=set)  # these files' GETs end before the body
    failing: int = 0  # so many requests to /api are answered 503
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""

    def downloads(self) -> Counter[str]:
        """How often each file's body was asked for."""
        return Counter(path.rsplit("/", 1)[1] for method, path, _ in self._bodies(method="GET"))

    def ranges(self, name: str) -> list[str | None]:
        """The Range headers of the GETs of one file."""
        return [r for _, path, r in self._bodies(method="GET") if path.endswith(f"/{name}")]

    def _bodies(self, method: str) -> list[tuple[str, str, str | None]]:
        return [r for r in self.requests if r[0] == method and "/resolve/" in r[1]]


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve ``hub`` on a free port of 127.0.0.1 while the block runs."""

    class Handler(_Handler):
        content = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    content: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep the test's output clean."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.content.requests.append((self.command, path, self.headers.get("Range")))
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            if self.content.failing:
                self.content.failing -= 1
                return self._error(503, "Unavailable", "try later")
            return self._api(parts[2:])
        if parts[0] == "datasets":
            parts = parts[1:]
        repo, name = "/".join(parts[:2]), "/".join(parts[4:])
        if not self._allowed(repo):
            return None
        if repo in self.content.gated:
            return self._error(403, "GatedRepo", "Access to it is restricted.")
        return self._file(self._top(repo, parts[3:])[0], name)

    def _allowed(self, repo: str) -> bool:
        token = self.content.private.get(repo)
        if repo not in self.content.repos:
            self._error(404, "RepoNotFound", "Repository not found")
        elif token is not None and self.headers.get("Authorization") != f"Bearer {token}":
            self._error(401, "RepoNotFound", "Invalid username or password.")
        else:
            return True
        return False

    def _api(self, parts: list[str]) -> None:
        repo = "/".join(parts[:2])
        if not self._allowed(repo):
            return
        top, commit, rest = self._top(repo, parts[3:])
        if top is None:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {parts[3]}")
            return
        if len(parts) > 2 and parts[2] == "tree":
            folder = top.joinpath(*rest)
            if not folder.is_dir():
                self._error(404, "EntryNotFound", "Entry not found")
                return
            found = folder.rglob("*") if "recursive=true" in self.path.lower() else folder.iterdir()
            self._json([_entry(path, top) for path in sorted(found)])
            return
        files = sorted(p.relative_to(top).as_posix() for p in top.rglob("*") if p.is_file())
        self._json(
            {
                "_id": "1",
                "id": repo,
                "modelId": repo,
                "sha": commit,
                "private": False,
                "tags": [],
                "siblings": [{"rfilename": name} for name in files],
            }
        )

    def _top(self, repo: str, parts: list[str]) -> tuple[Path | None, str, list[str]]:
        """The folder of a revision, its commit, and the path behind it."""
        if parts[:3] == _BRANCH or parts[:1] == [CONVERTED_COMMIT]:
            rest = parts[3:] if parts[:3] == _BRANCH else parts[1:]
            return self.content.converted.get(repo), CONVERTED_COMMIT, rest
        known = not parts or parts[0] in ("main", COMMIT)
        return self.content.repos[repo] if known else None, COMMIT, parts[1:]

    def _file(self, top: Path | None, name: str) -> None:
        path = (top or Path("/nowhere")) / name
        if not path.is_file():
            self._error(404, "EntryNotFound", "Entry not found")
            return
        data = path.read_bytes()
        start = 0
        wanted = self.headers.get("Range")
        if wanted is not None:
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            end = wanted.split("-")[1]
            data = data[: int(end) + 1] if end else data
        self.send_response(206 if wanted is not None else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{_etag(path)}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        if wanted is not None:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if path.suffix in (".safetensors", ".bin"):
            self.send_header("X-Linked-Size", str(len(data)))
            self.send_header("X-Linked-Etag", f'"{_etag(path)}"')
        self.end_headers()
        if self.command == "HEAD":
            return
        body = data[start:]
        if name in self.content.cut_always:
            body = b""
        elif name in self.content.cut_once:
            self.content.cut_once.discard(name)
            body = body[: len(body) // 2]
        self.wfile.write(body)
        if len(body) < len(data) - start:
            self.wfile.flush()
            self.close_connection = True

    def _json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _error(self, status: int, code: str, message: str) -> None:
        body = json.dumps({"error": message}).encode()
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _entry(path: Path, top: Path) -> dict[str, object]:
    """One line of a tree."""
    name = path.relative_to(top).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "size": 0, "oid": "1"}
    return {"type": "file", "path": name, "size": path.stat().st_size, "oid": _etag(path)}


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
