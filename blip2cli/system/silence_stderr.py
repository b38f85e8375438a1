"""Keeping what a C library says about a damaged file off stderr.

libtiff writes its remarks, hundreds of lines for some files, straight to file descriptor 2, past
Python. The failure of the image says what is to be said.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

_STDERR = 2
_lock = threading.Lock()
_inside = 0  # threads within ``hushed``; the first closes the door, the last opens it again
_original: int | None = None


@contextlib.contextmanager
def silence_stderr() -> Iterator[None]:
    """Send this process's file descriptor 2 nowhere while the block runs."""
    global _inside
    with _lock:
        _inside += 1
        if _inside == 1:
            _close()
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _open()


def _close() -> None:
    global _original
    try:
        _original = os.dup(_STDERR)
    except OSError:  # stderr is closed: nothing to keep off it
        _original = None
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDERR)
    os.close(nowhere)


def _open() -> None:
    global _original
    if _original is not None:
        os.dup2(_original, _STDERR)
        os.close(_original)
        _original = None
