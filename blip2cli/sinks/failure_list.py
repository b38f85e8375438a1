"""The list of failed images beside an output.

It is JSON Lines with ``file_name``, ``error_type`` and ``message``. It is created with the
first failure only. One that an earlier run left is removed before a new output takes its place.

A run that resumes goes on with the file. Images in it count as dealt with, unless they are to be
tried again; then an image that succeeds leaves the file when the run completes, and one that fails
again is noted with its new reason.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Protocol

from blip2cli.errors import ImageError, RunError
from blip2cli.sinks.base import disk_errors
from blip2cli.sinks.failure_list_journal import ErrorJournal
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.text import to_json
from blip2cli.storage import durable

SYNC_SECONDS = 1.0


class ErrorSink(Protocol):
    """Takes failed images in source order. Same ending, same errors as a ``Sink``."""

    def begin(self) -> None:
        """A new output is about to take its place."""

    def write(self, file_name: str, error: ImageError) -> None:
        """Note one failed image."""

    def succeeded(self, file_name: str) -> None:
        """This image has its rows now, whatever was noted before."""

    def commit(self) -> None:
        """Return when all notes so far would survive a power cut."""

    def close(self) -> None:
        """Commit, and complete."""

    def abort(self) -> None:
        """Keep what was noted. Never raises."""


class ErrorFile:
    """Notes failures in ``<stem>.errors.jsonl``."""

    def __init__(self, paths: OutputPaths, journal: ErrorJournal | None = None) -> None:
        """``journal`` is that of the file an unfinished run left, to go on with it."""
        self._path = paths.errors
        self._temporary = paths.hidden(".errors.tmp")
        self._descriptor: int | None = None
        self._journal = journal
        self._synced = 0.0  # when, on the monotonic clock
        # What has to leave the file at the end: its old lines about these images.
        self._settled: set[str] = set()
        self._failed = False  # a disk that failed once is not asked again

    def begin(self) -> None:
        """A new output is about to take its place: what an earlier one left goes first."""
        if self._journal is None and self._descriptor is None:
            with self._reporting():
                durable.remove(self._path)

    def write(self, file_name: str, error: ImageError) -> None:
        """Append one whole line."""
        self.succeeded(file_name)
        line = _line(file_name, error.error_type, str(error))
        with self._reporting():
            if self._descriptor is None:
                self._open(line)
            else:
                durable.write_all(self._descriptor, line)
                if time.monotonic() - self._synced >= SYNC_SECONDS:
                    self._sync()

    def succeeded(self, file_name: str) -> None:
        """What the file said of this image before is no longer true."""
        if self._journal is not None and file_name in self._journal.failed:
            self._settled.add(file_name)

    def commit(self) -> None:
        """Fsync the file, if there is one."""
        if self._failed:
            raise RunError(f"Writing {self._path!r} failed before; nothing was added.")
        if self._descriptor is not None:
            with self._reporting():
                self._sync()

    def close(self) -> None:
        """Commit; without a failure, there is no file."""
        self.commit()
        with self._reporting():
            if self._descriptor is not None:
                descriptor, self._descriptor = self._descriptor, None
                os.close(descriptor)
            if self._journal is not None:
                self._journal.complete(self._settled)
            elif not self._synced:
                durable.remove(self._path)

    def abort(self) -> None:
        """Keep what was noted."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                if not self._failed:
                    os.fsync(self._descriptor)
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None
        durable.remove_quietly(self._temporary)

    def _open(self, line: bytes) -> None:
        """Create the file with ``line``, or open the one that is there and append it."""
        if self._journal is None:
            self._descriptor = durable.open_new(self._temporary)
            durable.write_all(self._descriptor, line)
            os.fsync(self._descriptor)
            durable.rename_into_place(self._temporary, self._path)
        else:
            self._descriptor = os.open(self._path, os.O_WRONLY)
            os.ftruncate(self._descriptor, self._journal.end)
            os.lseek(self._descriptor, 0, os.SEEK_END)
            durable.write_all(self._descriptor, line)
            os.fsync(self._descriptor)
        self._synced = time.monotonic()

    def _sync(self) -> None:
        assert self._descriptor is not None
        os.fsync(self._descriptor)
        self._synced = time.monotonic()

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            with disk_errors(self._path, "lines before that are safe in it"):
                yield
        except BaseException:
            self._failed = True
            raise


class NoErrors:
    """For failures that are rows of the output itself, or that only a listener prints."""

    def begin(self) -> None:
        """Nothing to do."""

    def succeeded(self, file_name: str) -> None:
        """Nothing to do."""

    def write(self, file_name: str, error: ImageError) -> None:
        """Nothing to do."""

    def commit(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def abort(self) -> None:
        """Nothing to do."""


def _line(file_name: str, error_type: str, message: str) -> bytes:
    noted = {"file_name": file_name, "error_type": error_type, "message": message}
    return to_json(noted) + b"\n"
