"""Silences what C libraries write to file descriptor 2.

libtiff writes warnings about a damaged file there, hundreds of lines for some files, past Python.
The image's own failure is reported instead.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

_STDERR = 2
_lock = threading.Lock()
_silencing = 0  # threads within ``silence_stderr``: the first redirects, the last restores
_original: int | None = None


@contextlib.contextmanager
def silence_stderr() -> Iterator[None]:
    """Redirect this process's file descriptor 2 to the null device while the block runs."""
    global _silencing, _original
    with _lock:
        _silencing += 1
        if _silencing == 1:
            with contextlib.suppress(OSError):  # stderr is closed
                _original = os.dup(_STDERR)
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, _STDERR)
                os.close(null)
    try:
        yield
    finally:
        with _lock:
            _silencing -= 1
            if _silencing == 0 and _original is not None:
                os.dup2(_original, _STDERR)
                os.close(_original)
                _original = None
