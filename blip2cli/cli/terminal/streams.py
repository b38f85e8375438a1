"""Standard streams that may be closed, full or gone: what cannot be printed ends no run."""

from __future__ import annotations

import io
import os
import re
import sys
import threading
from typing import Any, BinaryIO

_UNSEEN = re.compile("[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


class Unfailing(io.FileIO):
    """A file that takes whatever is written, as far as that is possible."""

    def write(self, data: Any, /) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left:
                written = super().write(left)
                if not written:  # it would block
                    break
                left = left[written:]
        except OSError:  # no space, or the terminal or the reader is gone
            pass
        return size


class OneLineJson(io.RawIOBase):
    """Passes JSON lines on to a terminal; characters that steer one are written as escapes."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        text = bytes(data).decode("utf-8", "backslashreplace")
        shown = _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
        self._stream.write(shown.encode())
        return len(data)

    def flush(self) -> None:
        self._stream.flush()


def open_standard_streams() -> None:
    """Make all three usable, and stderr unfailing. To be called before any file is opened."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Else the next file that is opened, an output perhaps, gets the number, and all that
            # is printed goes into it.
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:  # closed (``>&-``): rows may still go to a file
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names need not be encodable; stderr is as lenient by itself.
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stderr = io.TextIOWrapper(
        Unfailing(2, "w", closefd=False),  # unbuffered, as with -u
        encoding=getattr(sys.stderr, "encoding", None),
        errors="backslashreplace",
        line_buffering=True,
        write_through=True,
    )
    show_tracebacks_of_threads(False)


def stdout_is_closed() -> bool:
    """Whether the process was started without a stdout."""
    return sys.stdout.name == os.devnull


def show_tracebacks_of_threads(shown: bool) -> None:
    """Whether Python prints an error that ended a thread, or that nobody could be told of."""
    threading.excepthook = threading.__excepthook__ if shown else _say_nothing
    sys.unraisablehook = sys.__unraisablehook__ if shown else _say_nothing


def _say_nothing(error: object) -> None:
    pass
