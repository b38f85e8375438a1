"""The list of failed images beside an output.

It is JSON Lines with ``file_name``, ``error_type``, ``message`` and the carried columns, so that it
can be fed back as a manifest. It is created with the first failure. One that an earlier run left is
removed before a new output takes its place.

A run that resumes appends to the file. Images in it are not tried again, unless the option
``retry_errors`` is given; then an image that succeeds leaves the file when the run completes, and
one that fails again is listed with its new reason.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping

from blip2cli.errors import ImageError
from blip2cli.sinks.appended_file import AppendedFile
from blip2cli.sinks.base import DiskGuard
from blip2cli.sinks.failure_list_file import AppendedObject, open_list, remove_list
from blip2cli.sinks.failure_list_journal import FailureJournal
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings_file import claim_failures, owns_failures
from blip2cli.storage import durable
from blip2cli.storage.hash_set import OCCURRENCE, HashSet, occurrence_key
from blip2cli.storage.text_encoding import to_json

SYNC_SECONDS = 1.0
OBJECT_SYNC_SECONDS = 30.0  # on a store, where the whole list is put


class FailureList:
    """Takes failed images in source order; ends as a ``Sink`` does, and raises the same errors.

    This one lists nothing: failures are rows of the output itself, or only listeners print them.
    """

    failed_before: HashSet | tuple[str, ...] = ()  # images that failed in an earlier run

    def remove_old(self) -> None:
        """Remove the list of an earlier output, before a new one takes its place."""

    def write(
        self, file_name: str, error: ImageError, carried: Mapping[str, object] | None = None
    ) -> None:
        """List one failed image; ``carried`` are its columns of the source."""

    def succeeded(self, key: str) -> None:
        """Note that this image of ``failed_before`` has its rows now."""

    def commit(self) -> None:
        """Return when all failures so far would survive a power cut."""

    def close(self) -> None:
        """Commit, and complete the list."""

    def abort(self) -> None:
        """Leave what is listed. Never raises."""


class FailureFile(FailureList):
    """Writes ``<whole name of the output>.errors``."""

    def __init__(self, paths: OutputPaths, journal: FailureJournal | None = None) -> None:
        """``journal`` is that of the file to append to, when a run resumes."""
        self._paths = paths
        self._path = paths.errors
        self._replace = paths.replace
        self._temporary = paths.temporary()
        self._file: AppendedFile | AppendedObject | None = None
        self._sync_seconds = OBJECT_SYNC_SECONDS if paths.is_remote else SYNC_SECONDS
        self._journal = journal
        self.failed_before = journal.failed if journal is not None else ()
        self._synced_at = 0.0  # on the monotonic clock
        self._settled = HashSet()  # images whose old lines leave the file at the end
        self._disk = DiskGuard(self._path, lambda: "lines before that are safe in it")
        if journal is None and not self._replace:
            with self._disk.errors():  # one of ours is of a run that was killed before any rows
                self._replace = owns_failures(paths)

    def remove_old(self) -> None:
        if self._replace and self._file is None:
            with self._disk.errors():
                remove_list(self._paths)
                claim_failures(self._paths, owned=False)

    def write(
        self, file_name: str, error: ImageError, carried: Mapping[str, object] | None = None
    ) -> None:
        failure: dict[str, object] = {
            "file_name": file_name,
            "error_type": error.error_type,
            "message": str(error),
        }
        failure |= {**(carried or {}), **failure}
        key = occurrence_key(file_name, failure.get(OCCURRENCE))
        if key in self.failed_before:
            self._settled.add(key)
        line = to_json(failure) + b"\n"
        with self._disk.errors():
            if self._file is None:
                self._file = self._open(line)
            else:
                self._file.append(line)
                if time.monotonic() - self._synced_at >= self._sync_seconds:
                    self._sync(self._file)

    def succeeded(self, key: str) -> None:
        self._settled.add(key)

    def commit(self) -> None:
        if self._file is not None:
            with self._disk.errors():
                self._file.check()
                self._sync(self._file)

    def close(self) -> None:
        self.commit()
        with self._disk.errors():
            if self._file is not None:
                file, self._file = self._file, None
                file.close()
            if self._journal is not None:
                self._journal.complete(self._settled)
            elif not self._synced_at:
                self.remove_old()

    def abort(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                if not self._disk.failed:
                    self._file.sync()
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
        if not self._paths.is_remote:
            durable.remove_quietly(self._temporary)

    def _open(self, line: bytes) -> AppendedFile | AppendedObject:
        """Create the file with ``line``, or append it to the one of the run that is resumed."""
        if self._paths.is_remote:
            before = b""
            if self._journal is None:
                claim_failures(self._paths)
            else:
                with open_list(self._paths) as file:
                    before = file.read(self._journal.end)
            self._synced_at = time.monotonic()
            new = self._journal is None and not self._replace
            return AppendedObject(self._paths, before + line, new)
        if self._journal is None:
            descriptor = durable.create(self._temporary, append=True)
        else:
            descriptor = durable.open_regular(self._path, os.O_RDWR | os.O_APPEND)
            os.ftruncate(descriptor, self._journal.end)
        durable.write_all(descriptor, line)
        os.fsync(descriptor)
        if self._journal is None:
            claim_failures(self._paths)
            durable.rename_into_place(self._temporary, self._path, self._replace)
        self._synced_at = time.monotonic()
        return AppendedFile(self._path, descriptor)

    def _sync(self, file: AppendedFile | AppendedObject) -> None:
        file.sync()
        self._synced_at = time.monotonic()
