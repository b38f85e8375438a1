from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from blip2cli.errors import ImageError, SourceError
from blip2cli.options import SourceOptions
from blip2cli.sources import base, open_sources
from blip2cli.sources.file_size import MAX_FILE_BYTES
from blip2cli.sources.remote_ref import RemoteRef
from blip2cli.storage import opening, url_retries
from blip2cli.storage.fetching import fetch
from tests.s3_server import S3
from tests.sources.faulty import OwnMemory
from tests.store_proxy import StoreProxy

Names = Callable[..., list[str]]
Tree = Callable[..., Path]

# Names whose order differs between whole paths and components, and such as S3 allows.
ORDERED = ["a/b.jpg", "a/ü c#d%41+.png", "a-b/x.png", "a.png", "z.PNG"]
LEFT_OUT = [".hidden.png", ".hidden/a.png", "a/notes.doc", "a/.b.png"]


@pytest.fixture
def memory() -> Iterator[Callable[..., str]]:
    """Put empty files into fsspec's own memory and return the URL of their folder."""

    def make(*names: str) -> str:
        for name in names:
            MemoryFileSystem().pipe_file(f"/photos/{name}", b"")
        return "memory://photos"

    yield make
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def failure(ref: base.ImageRef) -> ImageError:
    with pytest.raises(ImageError) as caught:
        ref.read()
    return caught.value


def test_a_prefix_gives_the_same_names_in_the_same_order_as_the_folder(
    bucket: S3, memory: Callable[..., str], tree: Tree, names: Names
) -> None:
    local = tree(*ORDERED, *LEFT_OUT)
    bucket.upload("order", local, "pre/fix/")
    assert names(local) == ORDERED
    assert names("s3://order/pre/fix") == ORDERED
    assert names("s3://order/pre/fix/") == ORDERED
    assert names("s3://order/pre") == [f"fix/{name}" for name in ORDERED]
    assert names("s3://order") == [f"pre/fix/{name}" for name in ORDERED]
    assert names("S3://order/pre/fix") == ORDERED
    assert names(f"file://{local}") == ORDERED
    assert names(memory(*ORDERED, *LEFT_OUT)) == ORDERED


def test_keys_that_only_an_object_store_can_hold(bucket: S3, names: Names) -> None:
    """A file and a folder of one name, marks of folders, and components without a name."""
    bucket.bucket("odd", {"p/": b"", "p/a.png": b"", "p/a.png/b.png": b"", "p/none/": b""})
    bucket.bucket("slashes", {"p//a.png": b"", "p/b.png": b""})
    assert names("s3://odd/p") == ["a.png", "a.png/b.png"]
    assert names("s3://slashes/p") == ["b.png"]  # and the listing ends


def test_globs_match_as_on_the_local_disk(bucket: S3, tree: Tree, names: Names) -> None:
    local = tree(*ORDERED, *LEFT_OUT, "a/deep/er/b.jpg")
    bucket.upload("globs", local, "top/")
    patterns = ("*", "*.png", "**/*.jpg", "a*", "a*/*.png", "**", "*/.b.png", "[az].*", "a/*.doc")
    for pattern in patterns:
        expected = [
            ref.removeprefix("a/") if pattern[:2] == "a/" else ref
            for ref in names(f"{local}/{pattern}")
        ]
        assert names(f"s3://globs/top/{pattern}") == expected, pattern
        assert expected, pattern


def test_a_single_object_needs_no_suffix_and_may_look_like_a_pattern(
    bucket: S3, names: Names
) -> None:
    bucket.bucket("single", {"deep/x.dat": b"", "deep/cat[1].png": b"", "cat1.png": b""})
    assert names("s3://single/deep/x.dat") == ["x.dat"]
    assert names("s3://single/deep/cat[1].png") == ["cat[1].png"]
    assert names("s3://single/cat[1].png") == ["cat1.png"]


def test_several_urls_are_named_below_their_common_parent(bucket: S3, names: Names) -> None:
    bucket.bucket("several", {"x/a.png": b"", "x/y/a.png": b"", "xx/a.png": b""})
    assert names("s3://several/x/y", "s3://several/xx") == ["x/y/a.png", "xx/a.png"]
    assert names("s3://several/x", "s3://several/x/y") == ["a.png", "y/a.png"]
    assert names("s3://several/x/a.png", "s3://several/x/*.png") == ["a.png"]


def test_sources_without_a_common_parent_are_refused(bucket: S3, tree: Tree, names: Names) -> None:
    bucket.bucket("one", {"a.png": b""})
    bucket.bucket("two", {"a.png": b""})
    local = tree("a.png")
    for pair in (("s3://one", "s3://two"), (local, "s3://one"), ("s3://one", local)):
        with pytest.raises(SourceError, match="run them apart"):
            names(*pair)


@pytest.mark.parametrize("obstore", [True, False])
def test_objects_are_read_with_one_request_each(
    obstore: bool, bucket: S3, proxy: StoreProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not obstore:
        monkeypatch.setitem(sys.modules, "obstore.store", None)
    content = {"p/a.png": b"A" * 100_000, "p/b.png": b""}
    bucket.bucket(f"bytes-{obstore}".lower(), content)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    url = f"s3://bytes-{obstore}/p".lower()
    refs = list(open_sources(SourceOptions((url,))))
    refs = [pickle.loads(pickle.dumps(ref)) for ref in refs]
    proxy.requests.clear()
    assert [ref.read() for ref in refs] == list(content.values())
    # Of an empty object there is nothing to get.
    assert proxy.requests == [("GET", f"/{url.removeprefix('s3://')}/a.png")]
    assert RemoteRef("a.png", f"{url}/a.png").read() == content["p/a.png"]


def test_an_object_that_fails_is_the_failure_of_one_image(bucket: S3) -> None:
    bucket.bucket("failing", {"p/a.png": b"12345", "p/d/b.png": b"1"})
    gone = RemoteRef("x", "s3://failing/p/gone.png", size=1)
    assert failure(gone).error_type == "missing"
    assert failure(RemoteRef("x", "s3://no-such-bucket/a.png")).error_type == "missing"
    assert failure(RemoteRef("x", "s3://failing/p/d")).error_type == "not_a_file"
    assert failure(RemoteRef("x", "gopher://failing/p")).error_type == "read_error"
    large = RemoteRef("x", "s3://failing/p/a.png", size=MAX_FILE_BYTES + 1)
    assert failure(large).error_type == "too_large"
    assert fetch(large.path, None, 5) == b"12345"
    for size in (5, None, 1):  # 1: it has grown since it was listed
        with pytest.raises(url_retries.TooLargeError):
            fetch(large.path, size, 4)


def test_urls_without_an_object(bucket: S3, names: Names) -> None:
    bucket.bucket("empty", {"p/notes.doc": b""})
    bucket.bucket("bare", {})
    for url, message in (
        ("s3://empty/none", "There is no 's3://empty/none'"),
        ("s3://no-such-bucket/p", "There is no 's3://no-such-bucket/p'"),
        ("s3://no-such-bucket", "There is no 's3://no-such-bucket'"),
        ("s3://empty/p", "holds no images"),
        ("s3://bare", "holds no images"),
        ("s3://empty/p/*.png", "No image matches the pattern"),
        ("s3://no-such-bucket/*.png", "There is no"),
        ("s3://*/a.png", "wildcard in the bucket"),
        ("s3://", "names no place"),
        ("s3://Not_A_Bucket!/p", "no valid name"),
    ):
        with pytest.raises(SourceError, match=message.replace("*", r"\*")) as caught:
            names(url)
        assert str(caught.value).endswith((".", "folder.")), url
        assert "\n" not in str(caught.value)


def test_a_mistyped_pattern_does_not_hide_behind_another_source(bucket: S3, names: Names) -> None:
    bucket.bucket("typo", {"a.png": b""})
    with pytest.raises(SourceError, match="No image matches"):
        names("s3://typo/a.png", "s3://typo/*.jpgg")


def test_folders_are_listed_only_when_their_turn_comes(
    memory: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = memory("a/1.png", "b/2.png", "c/3.png")
    listed: list[str] = []
    real = MemoryFileSystem.ls

    def ls(self: Any, path: str, **kwargs: Any) -> Any:
        listed.append(path)
        return real(self, path, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "ls", ls)
    refs = open_sources(SourceOptions((url,)))
    assert listed == ["/photos", "/photos/a"]
    assert [next(refs).file_name, next(refs).file_name] == ["a/1.png", "b/2.png"]
    assert listed == ["/photos", "/photos/a", "/photos/b"]


def test_listings_are_not_remembered(bucket: S3, names: Names) -> None:
    bucket.bucket("flat", {f"p/{n}/a.png": b"" for n in range(3)})
    assert len(names("s3://flat/p")) == 3
    filesystem, _ = opening.connect("s3://flat/p")
    assert not filesystem.dircache


class Faulty(OwnMemory):
    """Raises the given exception, a number of times."""

    protocol = "faulty"
    error: Exception
    times = 0

    @classmethod
    def _fail(cls) -> None:
        if cls.times:
            cls.times -= 1
            raise cls.error

    def ls(self, path: str, *args: Any, **kwargs: Any) -> Any:
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return super().ls(path, *args, **kwargs)

    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> Any:
        self._fail()
        return super().cat_file(path, *args, **kwargs)


@pytest.fixture
def faulty(memory: Callable[..., str]) -> type[Faulty]:
    Faulty.register()
    return Faulty


def test_a_folder_that_cannot_be_listed_is_one_failed_image(
    faulty: type[Faulty], memory: Callable[..., str]
) -> None:
    memory("a.png", "closed/b.png", "d.png")
    refs = list(open_sources(SourceOptions(("faulty://photos",))))
    assert [ref.file_name for ref in refs] == ["a.png", "closed", "d.png"]
    error = failure(refs[1])
    assert error.error_type == "permission_denied"
    assert "its images are left out" in str(error)


def test_passing_errors_are_retried_and_lasting_ones_are_not(
    faulty: type[Faulty], memory: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory("a.png")
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    ref = RemoteRef("a.png", "faulty://photos/a.png", size=1)
    faulty.error, faulty.times = ConnectionResetError("reset"), 2
    assert ref.read() == b""
    faulty.error, faulty.times = ConnectionResetError("reset"), 3
    error = failure(ref)
    assert error.error_type == "read_error"
    assert str(error) == "The file cannot be read: its server cannot be reached."
    faulty.error, faulty.times = PermissionError(), 5
    assert failure(ref).error_type == "permission_denied"
    assert faulty.times == 4
    assert pauses == [0.2, 1.0] * 2
    faulty.times = 0


def test_a_busy_server_gets_a_second_request(monkeypatch: pytest.MonkeyPatch, bucket: S3) -> None:
    """S3's own library does it: two refusals pass unseen."""
    requests: list[str] = []

    class Busy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            body = b"12345" if len(requests) > 2 else b""
            self.send_response(200 if body else 503)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        assert RemoteRef("a", "s3://bucket/a", size=5).read() == b"12345"
        server.shutdown()
    assert requests == ["/bucket/a"] * 3


def test_no_server_and_no_credentials(
    bucket: S3, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(SourceError, match=r"cannot be reached .* check the network and AWS_ENDPO"):
        names("s3://unreached/p")
    error = failure(RemoteRef("x", "s3://unreached/p/a.png", size=1))
    assert str(error) == "The file cannot be read: its server cannot be reached."
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(SourceError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or"):
        names("s3://unreached/p")


def test_a_folder_of_archives_says_how_to_name_them(
    memory: Callable[..., str], names: Names
) -> None:
    url = memory("data/0.tar", "data/1.tar", "README.md")
    with pytest.raises(SourceError, match=r"but \.tar files; name them, as 'memory://photos/\*\*/"):
        names(url)
