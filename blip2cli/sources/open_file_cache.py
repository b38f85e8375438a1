"""Cache of one open file per thread: archives and tables stay open from image to image.

Opening a file on another machine, or reading the directory of a large archive, costs more than
reading the image.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from blip2cli.storage.opening import is_remote

T = TypeVar("T")  # with a method ``close``


class _Cached(threading.local):
    key: Hashable = None
    file: Any = None


_cached = _Cached()


def cached_open(opener: Callable[[str], T], location: str) -> T:
    """``opener(location)``, left open until this thread opens something else.

    A local file that has changed since is opened anew.
    """
    stamp = None
    if not is_remote(location):
        status = os.stat(location)
        stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    key = (opener, location, stamp)
    if _cached.key != key or _cached.file is None:
        close_cached()
        _cached.file = opener(location)
        _cached.key = key
    file: T = _cached.file
    return file


def close_cached() -> None:
    """Close the file that this thread has open."""
    file, _cached.file, _cached.key = _cached.file, None, None
    if file is not None:
        file.close()
