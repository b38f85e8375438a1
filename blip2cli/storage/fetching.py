"""Fetching whole objects from behind URLs: one request each where the protocol allows it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from blip2cli.errors import ImageError, SourceError
from blip2cli.sources import base as limits
from blip2cli.sources.base import ImageRef
from blip2cli.storage.opening import connect, protocol_of, retries_of
from blip2cli.storage.remote_errors import (
    RemoteDeniedError,
    RemoteError,
    RemoteMissingError,
    remote_error,
)

T = TypeVar("T")


@dataclass(frozen=True)
class RemoteRef(ImageRef):
    """An image behind a URL, which ``path`` holds."""

    size: int | None = field(default=None, kw_only=True)  # bytes, where the listing told

    @property
    def url(self) -> str:
        """Where the image lies."""
        return self.path

    def read(self) -> bytes:
        """Return the whole object, fetched by the calling process.

        Raises ImageError: ``missing``, ``permission_denied``, ``not_a_file``, ``too_large`` or
        ``read_error``.
        """
        try:
            return again(self.path, lambda: _fetch(self.path, self.size))
        except RemoteError as error:
            raise error.of_image() from None
        except SourceError as error:
            raise ImageError("read_error", str(error)) from None


def again(url: str, request: Callable[[], T]) -> T:
    """Make a request; where the protocol's library does not, try again what may pass.

    Raises RemoteError, or ImageError for what is a folder.
    """
    for pause in (*retries_of(url), None):
        try:
            return request()
        except (ImageError, SourceError):
            raise
        except IsADirectoryError:
            raise ImageError("not_a_file", "It is a folder, not a file.") from None
        except Exception as error:  # noqa: BLE001 - each protocol has exceptions of its own
            fault = remote_error(url, error)
            if pause is None or isinstance(fault, (RemoteMissingError, RemoteDeniedError)):
                raise fault from None
            time.sleep(pause)
    raise AssertionError  # the last turn returns or raises


def _fetch(url: str, size: int | None) -> bytes:
    filesystem, path = connect(url)
    most = limits.MAX_FILE_BYTES + 1
    data: bytes
    if protocol_of(url) == "hf":  # one request; cat_file would first list the object's folder
        with filesystem.open(path, "rb", block_size=0) as file:
            data = file.read(most)
    else:
        if size is None:
            info = filesystem.info(path)
            size = info.get("size")
            if info["type"] == "directory":
                raise IsADirectoryError
        if size is None:
            data = filesystem.cat_file(path)
        elif size == 0 or _over(size):  # of nothing, no range can be asked for
            data = b""
        else:  # a range, because without one s3fs asks for the size first
            data = filesystem.cat_file(path, start=0, end=most)
    if _over(size) or _over(len(data)):
        raise ImageError("too_large", "The file is over 1 GiB.")
    return data


def _over(size: int | None) -> bool:
    return size is not None and size > limits.MAX_FILE_BYTES
