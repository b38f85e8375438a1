"""Opening a source's file for reading, wherever it lies: a local path or a URL of fsspec.

fsspec and the packages of the protocols are imported only when a URL is opened. A file system
object belongs to one process: none is sent to a loader worker, each opens its own. (Fork servers
never import fsspec, so no worker inherits the thread that runs its event loop.)
"""

from __future__ import annotations

import io
import re
from typing import Any, BinaryIO, cast

from blip2cli.errors import SourceError
from blip2cli.storage.remote_errors import remote_error
from blip2cli.storage.secrets import hide_secrets

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)

# What is fetched at once from an open file, in bytes. Tables and archives are read forwards, with
# jumps to an index at the end: "readahead" keeps one such block and fetches the next when it is
# used up or left, where caches of many blocks would hold hundreds of MiB in every worker. At
# 30 ms to the first byte and 100 MB/s, 8 MiB keep three quarters of the speed.
BLOCK = 8 << 20

# To one server of S3; 10 is what botocore would make of it.
CONNECTIONS = 64
_IN_EXTRA = frozenset({"s3", "s3a", "gs", "gcs", "http", "https", "hf"})


def is_remote(text: str) -> bool:
    """True when ``text`` is a URL (``s3://bucket/key``), False when it is a local path."""
    return "://" in text and _URL.match(text) is not None


def protocol_of(url: str) -> str:
    """The part of a URL before ``://``, in lower case."""
    return url.partition("://")[0].lower()


def open_binary(location: str) -> BinaryIO:
    """Open a local path or a URL for reading, seekable.

    Raises OSError as ``open`` does. For a URL every error, also one met while reading, is a
    ``RemoteError``: an OSError that is a SourceError as well, so that a reader may pass it on.
    """
    if not is_remote(location):
        return open(location, "rb")
    filesystem, path = connect(location)
    try:
        file = filesystem.open(path, "rb", block_size=BLOCK, cache_type="readahead")
    except Exception as error:  # noqa: BLE001 - each protocol has exceptions of its own
        raise remote_error(location, error) from None
    return cast(BinaryIO, _RemoteFile(location, file))


def check_place(url: str) -> None:
    """Raise SourceError for a URL with a password in it, or one that names no place."""
    protocol = protocol_of(url)
    rest = url[len(protocol) + 3 :]
    # A secret key of S3 may hold slashes; elsewhere what comes after one is a path.
    secret = r"(?!arn:)[^/@]*:.*@" if protocol in ("s3", "s3a") else r"[^/@]*:[^/]*@"
    if re.match(secret, rest):
        raise SourceError(
            None,
            f"The URL {hide_secrets(url)!r} holds a password",
            "give it through the environment or the configuration of the protocol instead",
        )
    if not rest.strip("/") and protocol not in ("file", "local", "memory"):
        raise SourceError(
            None, f"The URL {url!r} names no place", f"write {protocol}://bucket/folder"
        )


def connect(url: str, **options: Any) -> tuple[Any, str]:
    """Return the fsspec file system of this process for ``url``, and the path in it.

    ``options`` are those of fsspec for the file system.
    Raises SourceError for what is wrong before any request: an unknown protocol, one
    whose package is missing, a password in the URL.
    """
    protocol = protocol_of(url)
    check_place(url)
    try:
        import fsspec
    except ImportError:
        raise _package_missing(url, protocol, "fsspec") from None
    try:
        kind = fsspec.get_filesystem_class(protocol)
    except ValueError:
        raise SourceError(
            None,
            f"The protocol of {hide_secrets(url)!r} is not known",
            "s3://, gs:// and hf:// are",
        ) from None
    except ImportError as error:
        raise _package_missing(url, protocol, getattr(error.__cause__, "name", None)) from None
    if protocol in ("s3", "s3a"):
        own = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
        options["config_kwargs"] = {"max_pool_connections": CONNECTIONS, **own}
    try:
        # Not fsspec.url_to_fs, which would take "::" in a key for a chain of protocols.
        return kind(**kind._get_kwargs_from_urls(url), **options), kind._strip_protocol(url)
    except Exception as error:  # noqa: BLE001
        raise remote_error(url, error) from None


def _package_missing(url: str, protocol: str, package: str | None) -> SourceError:
    name = (package or "its package").partition(".")[0]
    install = "pip install 'blip2cli[remote]'" if protocol in _IN_EXTRA else f"pip install {name}"
    return SourceError(None, f"{hide_secrets(url)!r} needs {name}, which is not installed", install)


class _RemoteFile(io.BufferedIOBase):
    """An open file of fsspec whose errors are RemoteErrors."""

    def __init__(self, url: str, file: Any) -> None:
        self._url = url
        self._file = file

    def read(self, size: int | None = -1, /) -> bytes:
        try:
            data: bytes = self._file.read(-1 if size is None else size)
        except Exception as error:  # noqa: BLE001
            raise remote_error(self._url, error) from None
        return data

    def read1(self, size: int = -1, /) -> bytes:
        return self.read(BLOCK if size < 0 else size)

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        try:
            place: int = self._file.seek(offset, whence)
        except Exception as error:  # noqa: BLE001 - a web server may not offer ranges
            raise remote_error(self._url, error) from None
        return place

    def tell(self) -> int:
        place: int = self._file.tell()
        return place

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
