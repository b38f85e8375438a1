"""Writer of JSON Lines, plain and gzipped: appended batch by batch, with fsync on a timer.

Durability: a batch is written as complete lines; an fsync follows with the first batch that comes
``SYNC_SECONDS`` or more after the last fsync. So a killed process loses nothing that was written, a
power cut at most the last second. A line can be torn only by a power cut or a full disk, and then
only the last one.

The output appears with its first batch, in one step. An output that is overwritten stays until
then, so a run that fails before its first row destroys nothing. See ``settings`` for the file
beside it.

A run that resumes has the journal repair the file with its first batch, and appends.

Gzip: a file of several gzip members, which every gzip reader takes as one. Each batch is flushed,
so that it can be read back after a crash; members end at commits and every ``MEMBER_BYTES``.
"""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from blip2cli.sinks.appended_file import AppendedFile
from blip2cli.sinks.base import DiskGuard, RowSchema, disk_errors
from blip2cli.sinks.journal import Journal
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings import Settings, write_settings
from blip2cli.storage import durable
from blip2cli.storage.text_encoding import to_json

SYNC_SECONDS = 1.0
MEMBER_BYTES = 1 << 16  # what one damaged byte can cost


class JsonlSink:
    """Writes one JSON object per line."""

    def __init__(
        self,
        paths: OutputPaths,
        schema: RowSchema,
        settings: Settings | Mapping[str, object],
        compress: bool | None = None,
        journal: Journal | None = None,
    ) -> None:
        """``journal`` is that of the output to append to, when a run resumes.

        Of ``settings`` as a mapping only the options are known. ``compress``: None for what the
        name of the output says.
        """
        self._paths = paths
        self._schema = schema
        self._settings = settings if isinstance(settings, Settings) else Settings(settings)
        self._journal = journal
        self._encoder = _Gzip() if (paths.compressed if compress is None else compress) else None
        self._temporary = paths.temporary()
        self._file: AppendedFile | None = None
        self._rows = self._safe_rows = 0
        self._synced_at = 0.0  # on the monotonic clock
        self._disk = DiskGuard(paths.final, self._safe)

    def write(self, rows: Sequence[Mapping[str, object]]) -> None:
        lines = b"".join(to_json(self._schema.complete(row)) + b"\n" for row in rows)
        if lines:
            data = self._encoder.encode(lines) if self._encoder else lines
            self._append(data, len(rows))
            if time.monotonic() - self._synced_at >= SYNC_SECONDS:
                assert self._file is not None
                self._sync(self._file)
        elif self._file is None and not os.path.lexists(self._paths.final):
            self._begin()

    def commit(self) -> None:
        if self._file is not None:
            self._append(self._encoder.finish() if self._encoder else b"", 0)
            self._sync(self._file)

    def close(self) -> None:
        """Commit; a new output without rows is an empty file."""
        if self._file is None:
            self._begin()
        self.commit()
        assert self._file is not None
        with self._disk.errors():
            file, self._file = self._file, None
            file.close()

    def abort(self) -> None:
        """Leave the lines written so far."""
        if self._file is not None:
            with contextlib.suppress(Exception):
                if not self._disk.failed:
                    self.commit()
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
        durable.remove_quietly(self._temporary)

    def _begin(self) -> None:
        self._append(self._encoder.encode(b"") if self._encoder else b"", 0)

    def _append(self, data: bytes, rows: int) -> None:
        with self._disk.errors():
            if self._file is None and self._journal is not None:
                self._file = self._reopen(self._journal)
            if self._file is None:
                self._file = self._create(data)
                self._safe_rows = rows
            else:
                self._file.append(data)
        self._rows += rows

    def _create(self, data: bytes) -> AppendedFile:
        """Put a new output in place, with ``data`` in it."""
        descriptor = durable.create(self._temporary, append=True)
        durable.write_all(descriptor, data)
        os.fsync(descriptor)
        with self._settle(os.fstat(descriptor).st_ino):
            durable.rename_into_place(self._temporary, self._paths.final, self._paths.replace)
        self._synced_at = time.monotonic()
        return AppendedFile(self._paths.final, descriptor, self._settle)

    def _reopen(self, journal: Journal) -> AppendedFile:
        """Open the output of an earlier run behind its last complete image."""
        journal.complete()
        descriptor = durable.open_regular(self._paths.final, os.O_RDWR | os.O_APPEND)
        self._rows = self._safe_rows = journal.rows
        self._synced_at = time.monotonic()
        return AppendedFile(self._paths.final, descriptor, self._settle)

    def _settle(self, inode: int) -> contextlib.AbstractContextManager[None]:
        return write_settings(self._paths, self._settings, inode)

    def _sync(self, file: AppendedFile) -> None:
        with self._disk.errors():
            file.sync()
        self._safe_rows = self._rows
        self._synced_at = time.monotonic()

    def _safe(self) -> str:
        rows = self._safe_rows
        return f"the first {rows} rows are safe in it" if rows else "no row was written"


class StdoutSink:
    """Writes and flushes each batch, so that the next program of a pipe can work on it at once.

    A pipe that the reader closed (``| head``) raises BrokenPipeError. The stream stays open.
    """

    def __init__(self, stream: BinaryIO, schema: RowSchema) -> None:
        self._stream = stream
        self._schema = schema

    def write(self, rows: Sequence[Mapping[str, object]]) -> None:
        lines = b"".join(to_json(self._schema.complete(row)) + b"\n" for row in rows)
        with disk_errors("stdout", "rows before that were written"):
            self._stream.write(lines)
            self._stream.flush()

    def commit(self) -> None:
        """Nothing more can be done for rows on their way to another program."""

    def close(self) -> None:
        """The stream belongs to the caller."""

    def abort(self) -> None:
        """There is nothing to remove."""


class _Gzip:
    def __init__(self) -> None:
        self._member: zlib._Compress | None = None
        self._size = 0

    def encode(self, data: bytes) -> bytes:
        if self._member is None:
            self._member = zlib.compressobj(wbits=31)  # 31: gzip header and trailer, no time stamp
            self._size = 0
        self._size += len(data)
        data = self._member.compress(data) + self._member.flush(zlib.Z_SYNC_FLUSH)
        return data + self.finish() if self._size >= MEMBER_BYTES else data

    def finish(self) -> bytes:
        if self._member is None:
            return b""
        end = self._member.flush(zlib.Z_FINISH)
        self._member = None
        return end
