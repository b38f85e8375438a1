"""Objects of S3 are read by obstore, with the settings and the errors of s3fs."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from blip2cli.storage import fetching
from blip2cli.storage.fetching import fetch
from blip2cli.storage.object_requests import ObjectFolder
from blip2cli.storage.remote_errors import RemoteDeniedError, RemoteError, RemoteMissingError
from blip2cli.storage.s3_reads import objects_of
from blip2cli.storage.web import TooLargeError
from tests.store_proxy import StoreProxy

pytest.importorskip("obstore")

LIMIT = 1 << 20


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Nothing is known of buckets and settings."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    objects_of.cache_clear()
    yield
    s3fs.S3FileSystem.clear_instance_cache()
    objects_of.cache_clear()


@pytest.fixture
def no_s3fs(monkeypatch: pytest.MonkeyPatch) -> None:
    """s3fs is asked for no object."""

    def asked(url: str, *args: object) -> bytes:
        raise AssertionError(url)

    monkeypatch.setattr(fetching, "_fetch_by_fsspec", asked)


@pytest.mark.usefixtures("no_s3fs")
def test_any_key_is_read_by_one_request(bucket: str, proxy: StoreProxy) -> None:
    names = ["a.png", "d/ü c#d%41+.png", "x?y=1&z=[2].png", "~'(a)*!$,;=@.png", "empty.png"]
    folder = ObjectFolder(bucket)
    for name in names:
        folder.replace(name, name.encode() * 9999 if name != "empty.png" else b"")
    proxy.requests.clear()
    found = [fetch(f"{bucket}/{name}", None, LIMIT) for name in names]
    assert found == [folder.read(name) for name in names]
    assert proxy.count("GET") == 2 * len(names) == len(proxy.requests)


@pytest.mark.usefixtures("no_s3fs")
def test_more_bytes_than_allowed_are_not_read(bucket: str) -> None:
    ObjectFolder(bucket).replace("a.png", b"12345")
    assert fetch(f"{bucket}/a.png", 5, 5) == b"12345"
    for size in (None, 1):  # 1: it has grown since it was listed
        with pytest.raises(TooLargeError):
            fetch(f"{bucket}/a.png", size, 4)


def test_faults_are_those_of_s3fs(bucket: str, proxy: StoreProxy) -> None:
    ObjectFolder(bucket).replace("a.png", b"12345")
    for fault in ("busy", "before", "after"):
        left = [fault] * 2
        proxy.rule = lambda method, path, left=left: left.pop() if left else None  # type: ignore[misc]
        assert fetch(f"{bucket}/a.png", 5, LIMIT) == b"12345"
        assert not left
    with pytest.raises(RemoteMissingError, match="There is no 's3://"):
        fetch(f"{bucket}/b.png", 5, LIMIT)
    ObjectFolder(bucket).replace("d/a.png", b"1")
    with pytest.raises(IsADirectoryError):
        fetch(f"{bucket}/d", None, LIMIT)
    proxy.rule = lambda method, path: "denied"
    with pytest.raises(RemoteDeniedError, match="may not be read with the credentials in use"):
        fetch(f"{bucket}/a.png", 5, LIMIT)


class Regional(BaseHTTPRequestHandler):
    """A server of one region, which sends back what is signed for another."""

    protocol_version = "HTTP/1.1"
    region = "us-east-1"
    requests: list[tuple[str, str]]  # who asked, and how it was signed

    def do_GET(self) -> None:
        signed = self.headers.get("Authorization", "")
        self.requests.append((self.headers["User-Agent"].partition("/")[0], signed))
        here = not signed or f"/{self.region}/s3/" in signed
        body = b"12345" if here else b"<Error><Code>PermanentRedirect</Code></Error>"
        self.send_response(200 if here else 301)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Mon, 02 Nov 2026 00:00:00 GMT")
        self.send_header("x-amz-bucket-region", self.region)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def regional(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Regional]]:
    """That server, and a profile that leads to it."""

    class Server(Regional):
        requests: list[tuple[str, str]] = []  # noqa: RUF012

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
            monkeypatch.delenv(name, raising=False)
        port = server.server_address[1]
        (tmp_path / "config").write_text(
            f"[profile far]\nendpoint_url = http://127.0.0.1:{port}\nregion = us-east-1\n"
        )
        (tmp_path / "credentials").write_text(
            "[far]\naws_access_key_id = of-the-profile\naws_secret_access_key = a-secret-key\n"
        )
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        monkeypatch.setenv("AWS_PROFILE", "far")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield Server
        server.shutdown()


def askers(server: type[Regional]) -> list[str]:
    asked = [agent for agent, _ in server.requests]
    server.requests.clear()
    return asked


@pytest.mark.usefixtures("no_s3fs")
def test_credentials_and_address_of_a_profile(regional: type[Regional]) -> None:
    assert fetch("s3://bucket/a.png", 5, LIMIT) == b"12345"
    ((agent, signed),) = regional.requests
    assert agent == "object_store"
    assert "Credential=of-the-profile/" in signed


@pytest.mark.usefixtures("no_s3fs")
def test_what_needs_no_signature_has_none(
    regional: type[Regional], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fsspec.config.conf, "s3", {"anon": True})
    assert fetch("s3://bucket/a.png", 5, LIMIT) == b"12345"
    assert regional.requests == [("object_store", "")]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
@pytest.mark.usefixtures("no_s3fs")
def test_a_certificate_of_ones_own_is_trusted(
    regional: type[Regional], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-addext", "basicConstraints=critical,CA:FALSE"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    with ThreadingHTTPServer(("127.0.0.1", 0), regional) as server:
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{server.server_address[1]}")
        assert fetch("s3://bucket/a.png", 5, LIMIT) == b"12345"
        server.shutdown()


def test_a_bucket_of_another_region_is_found(regional: type[Regional]) -> None:
    regional.region = "eu-west-7"
    assert fetch("s3://bucket/a.png", 5, LIMIT) == b"12345"
    assert set(askers(regional)) > {"object_store"}  # s3fs as well, which is sent to the region
    assert fetch("s3://bucket/a.png", 5, LIMIT) == b"12345"
    assert askers(regional) == ["object_store"]


def test_s3fs_is_asked_where_obstore_cannot_be(
    regional: type[Regional], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fsspec.config.conf, "s3", {"requester_pays": True})
    assert fetch("s3://bucket/a.png", 5, LIMIT) == b"12345"
    assert "object_store" not in askers(regional)
    monkeypatch.setitem(fsspec.config.conf, "s3", {})
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    assert fetch("s3://other/a.png", 5, LIMIT) == b"12345"
    assert "object_store" not in askers(regional)


def test_obstore_is_given_up_where_only_s3fs_gets_objects(
    regional: type[Regional], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Regional.do_GET

    def do_get(self: Regional) -> None:
        if self.headers["User-Agent"].startswith("object_store"):
            self.requests.append(("object_store", ""))
            self.send_error(400)
        else:
            real(self)

    monkeypatch.setattr(regional, "do_GET", do_get, raising=False)
    for _ in range(2):
        assert fetch("s3://bucket/a.png", 5, LIMIT) == b"12345"
        assert "object_store" in askers(regional)
    assert fetch("s3://bucket/a.png", 5, LIMIT) == b"12345"
    assert "object_store" not in askers(regional)


def test_a_server_that_is_gone(regional: type[Regional], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(RemoteError, match=r"The server of 's3://bucket/a\.png' cannot be reached"):
        fetch("s3://bucket/a.png", 5, LIMIT)
