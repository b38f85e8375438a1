"""Fetching whole objects from behind URLs: one request each where the protocol allows it."""

from __future__ import annotations

from blip2cli.storage.opening import check_place, connect, protocol_of
from blip2cli.storage.s3_reads import read_object
from blip2cli.storage.url_retries import with_retries
from blip2cli.storage.web import PROTOCOLS, TooLargeError, fetch_web


def fetch(url: str, size: int | None, max_bytes: int) -> bytes:
    """Return the whole object at ``url``; ``size`` is its size in bytes where that is known.

    Raises TooLargeError when it has more than ``max_bytes`` bytes, IsADirectoryError for a folder,
    RemoteError or another SourceError when it cannot be read.
    """
    if protocol_of(url) in PROTOCOLS:
        check_place(url)
        return with_retries(url, lambda: fetch_web(url, max_bytes))
    return with_retries(url, lambda: _fetch(url, size, max_bytes))


def _fetch(url: str, size: int | None, max_bytes: int) -> bytes:
    # Of nothing there is nothing to get.
    if protocol_of(url) in ("s3", "s3a") and size != 0 and (size or 0) <= max_bytes:
        return read_object(url, max_bytes, lambda: _fetch_by_fsspec(url, size, max_bytes))
    return _fetch_by_fsspec(url, size, max_bytes)


def _fetch_by_fsspec(url: str, size: int | None, max_bytes: int) -> bytes:
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
