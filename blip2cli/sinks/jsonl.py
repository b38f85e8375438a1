"""JSON Lines, plain and gzipped, appended as the run goes on.

Durability: a batch is handed to the system as whole lines; an fsync follows at most
``SYNC_SECONDS`` later, with the first batch written after that. So a killed process loses nothing
that was written, a power cut at most the last second. A line can be torn only by a power cut or a
full disk, and then only the last one.

The output appears with its first batch, in one step. With ``--overwrite`` the old file stays
until then, so a run that fails before it has a row to show destroys nothing. Settings go into
a hidden file beside the output. They are written before the output takes its place, under another
name and with the output's inode number, and renamed after; so whenever a crash comes between, it
can be told which rows they belong to.

A run that resumes has the journal mend the file with its first batch, and appends.

Gzip: a file of several gzip members, which every gzip reader takes as one. Each batch is flushed,
so that it can be read back after a crash; members end at commits and every ``MEMBER_BYTES``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence

from blip2cli.errors import RunError
from blip2cli.sinks.base import RowSchema, disk_errors
from blip2cli.sinks.journal import Journal
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.text import to_json
from blip2cli.storage import durable

SYNC_SECONDS = 1.0
MEMBER_BYTES = 1 << 18


class JsonlSink:
    """Writes one JSON object per line."""

    def __init__(
        self,
        paths: OutputPaths,
        schema: RowSchema,
        settings: Mapping[str, object],
        compress: bool,
        journal: Journal | None = None,
    ) -> None:
        """``journal`` is that of an output that is there, to go on with it."""
        self._paths = paths
        self._schema = schema
        self._settings = settings
        self._journal = journal
        self._packer = _Gzip() if compress else _Plain()
        self._descriptor: int | None = None
        self._end = 0  # bytes of whole lines
        self._rows = self._safe_rows = 0
        self._synced = 0.0  # when, on the monotonic clock
        self._failed = False

    def write(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Append the rows as whole lines."""
        lines = b"".join(to_json(self._schema.complete(row)) + b"\n" for row in rows)
        if lines:
            self._append(self._packer.pack(lines), len(rows))
            if time.monotonic() - self._synced >= SYNC_SECONDS:
                self._sync()

    def commit(self) -> None:
        """Return when all rows so far would survive a power cut."""
        if self._descriptor is not None:
            self._append(self._packer.finish(), 0)
            self._sync()

    def close(self) -> None:
        """Commit; a new output without rows is an empty file."""
        if self._descriptor is None:
            self._append(self._packer.pack(b""), 0)
        self.commit()
        assert self._descriptor is not None
        with self._reporting():
            self._check_in_place(self._descriptor)
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)  # some network file systems report a full disk only here

    def abort(self) -> None:
        """Keep the lines written so far."""
        if self._descriptor is not None:
            with contextlib.suppress(Exception):
                if not self._failed:
                    self.commit()
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None
        durable.remove_quietly(self._paths.temporary)

    def _append(self, data: bytes, rows: int) -> None:
        if self._failed:
            raise RunError(f"Writing {self._paths.final!r} failed before; nothing was added.")
        with self._reporting():
            if self._descriptor is None:
                if self._journal is None:
                    self._create(data)
                    self._safe_rows = rows
                else:
                    self._go_on(self._journal)
                    self._extend(data)
            else:
                self._extend(data)
        self._rows += rows
        self._end += len(data)

    def _create(self, data: bytes) -> None:
        """Put the output in place, holding ``data``."""
        paths = self._paths
        self._descriptor = durable.open_new(paths.temporary)
        durable.write_all(self._descriptor, data)
        os.fsync(self._descriptor)
        inode = os.fstat(self._descriptor).st_ino
        meta = to_json({"settings": self._settings, "inode": inode}) + b"\n"
        durable.replace_file(paths.hidden(".meta.tmp"), paths.next_meta, meta)
        durable.rename_into_place(paths.temporary, paths.final)
        durable.rename_into_place(paths.next_meta, paths.meta)
        self._synced = time.monotonic()

    def _go_on(self, journal: Journal) -> None:
        """Open the output that is there behind its last whole image."""
        journal.complete()
        self._descriptor = os.open(self._paths.final, os.O_WRONLY)
        self._end = os.lseek(self._descriptor, 0, os.SEEK_END)
        self._rows = self._safe_rows = journal.rows
        self._synced = time.monotonic()

    def _check_in_place(self, descriptor: int) -> None:
        """Raise OSError when the rows went into a file that is not the output any more."""
        if not os.path.samestat(os.fstat(descriptor), os.stat(self._paths.final)):
            raise OSError(errno.ESTALE, "another file took its place")

    def _extend(self, data: bytes) -> None:
        assert self._descriptor is not None
        try:
            durable.write_all(self._descriptor, data)
        except OSError:
            with contextlib.suppress(OSError):  # cut off what was written of a line
                os.ftruncate(self._descriptor, self._end)
            raise

    def _sync(self) -> None:
        assert self._descriptor is not None
        with self._reporting():
            os.fsync(self._descriptor)
        self._safe_rows = self._rows
        self._synced = time.monotonic()

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        safe = (
            f"the first {self._safe_rows} rows are safe in it"
            if self._safe_rows
            else ("no row was written")
        )
        try:
            with disk_errors(self._paths.final, safe):
                yield
        except BaseException:
            self._failed = True
            raise


class _Plain:
    def pack(self, data: bytes) -> bytes:
        return data

    def finish(self) -> bytes:
        return b""


class _Gzip:
    def __init__(self) -> None:
        self._member: zlib._Compress | None = None
        self._size = 0

    def pack(self, data: bytes) -> bytes:
        if self._member is None:
            self._member = zlib.compressobj(wbits=31)  # 31: gzip header and trailer, no time stamp
            self._size = 0
        self._size += len(data)
        packed = self._member.compress(data) + self._member.flush(zlib.Z_SYNC_FLUSH)
        return packed + self.finish() if self._size >= MEMBER_BYTES else packed

    def finish(self) -> bytes:
        if self._member is None:
            return b""
        end = self._member.flush(zlib.Z_FINISH)
        self._member = None
        return end
