"""An S3 server on loopback (moto's), and the environment that leads clients to it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen


@dataclass
class S3:
    """A running server. Objects are written by plain HTTP, as a browser's upload would."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it, and nothing that could lead it elsewhere."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "a-secret-key",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }

    def bucket(self, name: str, objects: Mapping[str, bytes]) -> None:
        """Make a bucket of these objects."""
        self._put(name)
        for key, data in objects.items():
            self._put(f"{name}/{key}", data)

    def upload(self, name: str, folder: Path, prefix: str) -> None:
        """Make a bucket with a copy of a local folder below ``prefix``."""
        files = (path for path in folder.rglob("*") if path.is_file())
        self.bucket(
            name, {f"{prefix}{p.relative_to(folder).as_posix()}": p.read_bytes() for p in files}
        )

    def read(self, name: str, key: str) -> bytes:
        """The content of an object."""
        content: bytes = self.filesystem().cat_file(f"{name}/{key}")
        return content

    def filesystem(self) -> Any:
        """A file system of fsspec, with all rights."""
        import s3fs

        access = {"key": "testing", "secret": "a-secret-key", "endpoint_url": self.url}
        return s3fs.S3FileSystem(**access, use_listings_cache=False)

    def _put(self, path: str, data: bytes = b"") -> None:
        headers = {"Content-Type": "application/octet-stream"}
        with urlopen(Request(f"{self.url}/{quote(path)}", data, headers, method="PUT")):
            pass


@contextmanager
def serve_s3() -> Iterator[S3]:
    """Serve S3 on a free port of 127.0.0.1 while the block runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what moto's own imports have to say
        from moto.server import ThreadedMotoServer

        server: Any = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
    host, port = server.get_host_and_port()
    try:
        yield S3(f"http://{host}:{port}")
    finally:
        server.stop()
