"""Fetching whole objects from behind URLs: one request each where the protocol allows it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from blip2cli.errors import SourceError
from blip2cli.storage.opening import connect, protocol_of, retries_of
from blip2cli.storage.remote_errors import RemoteDeniedError, RemoteMissingError, remote_error

T = TypeVar("T")


class TooLargeError(Exception):
    """An object is larger than allowed."""


def fetch(url: str, size: int | None, max_bytes: int) -> bytes:
    """Return the whole object at ``url``; ``size`` is its size in bytes where that is known.

    Raises TooLargeError when it has more than ``max_bytes`` bytes, IsADirectoryError for a folder,
    RemoteError or another SourceError when it cannot be read.
    """
    return with_retries(url, lambda: _fetch(url, size, max_bytes))


def with_retries(url: str, request: Callable[[], T]) -> T:
    """Make a request, and repeat one that fails in passing where the library does not.

    Raises RemoteError, and IsADirectoryError for what is a folder.
    """
    for pause in (*retries_of(url), None):
        try:
            return request()
        except (TooLargeError, IsADirectoryError, SourceError):
            raise
        except Exception as error:  # noqa: BLE001 - each protocol has exceptions of its own
            fault = remote_error(url, error)
            if pause is None or isinstance(fault, (RemoteMissingError, RemoteDeniedError)):
                raise fault from None
            time.sleep(pause)
    raise AssertionError  # the last turn returns or raises


def _fetch(url: str, size: int | None, max_bytes: int) -> bytes:
    filesystem, path = connect(url)
    data: bytes
    if protocol_of(url) == "hf":  # one request; cat_file would first list the object's folder
        with filesystem.open(path, "rb", block_size=0) as file:
            data = file.read(max_bytes + 1)
    else:
        if size is None:
            info = filesystem.info(path)
            size = info.get("size")
            if info["type"] == "directory":
                raise IsADirectoryError
        if size is None:
            data = filesystem.cat_file(path)
        elif size == 0 or size > max_bytes:  # of nothing, no range can be requested
            data = b""
        else:  # a range, because without one s3fs requests the size first
            data = filesystem.cat_file(path, start=0, end=max_bytes + 1)
    if (size is not None and size > max_bytes) or len(data) > max_bytes:
        raise TooLargeError
    return data
