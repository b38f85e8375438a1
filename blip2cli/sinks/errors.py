"""Where failed images are noted: a file beside the output, or lines on stderr.

The file is JSON Lines with ``file_name``, ``error_type`` and ``message``. It is created with the
first failure only. One that a replaced output left behind is replaced with the first failure, or
removed when the run completes without any.
"""

from __future__ import annotations

import contextlib
import os
from typing import Protocol, TextIO

from blip2cli.errors import ImageError
from blip2cli.sinks import durable
from blip2cli.sinks.base import disk_errors
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.text import to_json


class ErrorSink(Protocol):
    """Takes failed images in source order. Same ending, same errors as a ``Sink``."""

    def write(self, file_name: str, error: ImageError) -> None:
        """Note one failed image."""

    def commit(self) -> None:
        """Return when all notes so far would survive a power cut."""

    def close(self) -> None:
        """Commit, and complete."""

    def abort(self) -> None:
        """Keep what was noted. Never raises."""


class ErrorFile:
    """Notes failures in ``<stem>.errors.jsonl``."""

    def __init__(self, paths: OutputPaths) -> None:
        self._path = paths.errors
        self._temporary = paths.hidden(".errors.tmp")
        self._descriptor: int | None = None

    def write(self, file_name: str, error: ImageError) -> None:
        """Append one whole line."""
        line = to_json(
            {"file_name": file_name, "error_type": error.error_type, "message": str(error)}
        )
        with self._reporting():
            if self._descriptor is None:
                self._descriptor = durable.open_new(self._temporary)
                durable.write_all(self._descriptor, line + b"\n")
                os.fsync(self._descriptor)
                durable.rename_into_place(self._temporary, self._path)
            else:
                durable.write_all(self._descriptor, line + b"\n")

    def commit(self) -> None:
        """Fsync the file, if there is one."""
        if self._descriptor is not None:
            with self._reporting():
                os.fsync(self._descriptor)

    def close(self) -> None:
        """Commit; without a failure, remove the file an earlier run left."""
        self.commit()
        if self._descriptor is None:
            with self._reporting():
                durable.remove(self._path)
        else:
            os.close(self._descriptor)
            self._descriptor = None

    def abort(self) -> None:
        """Keep what was noted."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._descriptor)
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None
        durable.remove_quietly(self._temporary)

    def _reporting(self) -> contextlib.AbstractContextManager[None]:
        return disk_errors(self._path, "lines before that are safe in it")


class ErrorLines:
    """Notes failures as readable lines on a text stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, file_name: str, error: ImageError) -> None:
        """Print one line."""
        self._stream.write(f"{printable(file_name)}: {error.error_type}: {printable(str(error))}\n")
        self._stream.flush()

    def commit(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """The stream stays open: it belongs to the caller."""

    def abort(self) -> None:
        """Nothing to tidy up."""


class NoErrors:
    """For failures that are kept inline, as rows of the output itself."""

    def write(self, file_name: str, error: ImageError) -> None:
        """The row says it."""

    def commit(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def abort(self) -> None:
        """Nothing to do."""


def printable(text: str) -> str:
    """``text`` on one line: control characters and undecodable bytes as escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
