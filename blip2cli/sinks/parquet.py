"""Writer of Parquet: durable part files during the run, merged into one file at its end.

A Parquet file can be read only when its last byte is written, so rows first go to numbered part
files beside the output, small complete Parquet files under hidden names that no reader picks up.
Each is committed durably. ``close`` merges them row group by row group into one file and renames
it into place: the output is absent or complete. An output that is overwritten stays until then.

A run that resumes appends behind the last part. An output that is complete becomes the first part,
by a hard link, and stays in place until the new one replaces it. So where there are parts, they are
the rows; a merge that was interrupted is done again. The first part is removed before the others:
without it, they are known to be left over.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import os
from collections.abc import Mapping, Sequence
from functools import cached_property

import pyarrow as pa

from blip2cli.errors import RunError, option
from blip2cli.sinks.base import DiskGuard, RowSchema
from blip2cli.sinks.journal import Journal
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.row_groups import (
    PART_BYTES,
    UncommittedRows,
    arrow_schema,
    group_rows,
    parquet_writer,
    read_batches,
    row_groups,
)
from blip2cli.sinks.settings import (
    Settings,
    parquet_metadata,
    write_settings,
)
from blip2cli.sinks.settings_file import forget_replaced, is_replaced
from blip2cli.storage import durable
from blip2cli.storage.atomic import AtomicFile


class ParquetSink:
    """Writes one Parquet file."""

    def __init__(
        self,
        paths: OutputPaths,
        schema: RowSchema,
        settings: Settings,
        journal: Journal | None = None,
        part_bytes: int = PART_BYTES,
    ) -> None:
        """``journal`` is that of the output to append to, when a run resumes. Rows are committed
        when they have ``part_bytes``, or are old."""
        self._paths = paths
        self._settings = settings
        self._schema = arrow_schema(schema, settings)
        self._rows = UncommittedRows(schema, self._schema, part_bytes)
        self._journal = journal
        self._safe_rows = journal.rows if journal else 0
        self._disk = DiskGuard(paths.final, self._safe)

    def write(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Take rows; a part is committed when they are many or old enough."""
        if not rows:
            self._begin()
            return
        if self._rows.add(rows):
            self.commit()

    def commit(self) -> None:
        if not self._rows:
            return
        with self._disk.errors():
            self._check_parts()
        table = self._rows.table()
        with self._disk.errors():
            self._write_part(table)
        self._rows.clear()
        self._safe_rows += table.num_rows

    def _begin(self) -> None:
        """Put a part without rows in place, unless there is an output to replace or to go on."""
        with self._disk.errors():
            if not os.path.lexists(self._paths.final) and not self._parts:
                self._write_part(self._schema.empty_table())

    def _write_part(self, table: pa.Table) -> None:
        """Put one more part in place; with the first one the settings."""
        paths = self._paths
        # Only parts hold the token: the output shall be the same bytes for the same rows.
        schema = self._schema.with_metadata(parquet_metadata(self._settings, self._settings.token))
        buffer = pa.BufferOutputStream()
        with parquet_writer(buffer, schema) as writer:
            writer.write_table(table)
        temporary, path = paths.temporary(), paths.next_part(self._parts)
        descriptor = durable.create(temporary)
        try:
            durable.write_all(descriptor, buffer.getvalue().to_pybytes())
            os.fsync(descriptor)
            inode = os.fstat(descriptor).st_ino
            settle = write_settings(paths, self._settings, inode, later=True)
            with contextlib.nullcontext() if self._parts else settle:
                durable.rename_into_place(temporary, path, replace=False)
        except BaseException:
            durable.remove_quietly(temporary)
            raise
        finally:
            os.close(descriptor)
        self._parts.append(path)

    def close(self) -> None:
        """Merge all parts into the output."""
        self.commit()
        with self._disk.errors():
            if not self._parts:
                self._write_part(self._schema.empty_table())
            merge(self._paths, self._parts, self._schema, group_rows(self._schema))

    def abort(self) -> None:
        """Commit if that can be done; parts stay beside the output."""
        with contextlib.suppress(Exception):
            if not self._disk.failed:
                self.commit()

    @cached_property
    def _parts(self) -> list[str]:
        """The parts to append to; without a journal, those of an earlier run are removed first."""
        paths = self._paths
        parts = paths.parts()
        if self._journal is None:
            if not paths.replace and paths.every_part():
                raise FileExistsError(errno.EEXIST, "hidden rows of another run are beside it")
            if parts:  # the settings beside them are theirs, and not those of an older output
                durable.remove(paths.meta)
            remove_parts(paths)
            parts = []
        elif not parts:
            self._journal.complete()  # removes what a merge left over
            durable.link(paths.final, paths.part(0), paths.temporary())
            parts = [paths.part(0)]
        return parts

    def _check_parts(self) -> None:
        """Raise RunError when a part is no longer in its place."""
        gone = [part for part in self._parts if not os.path.lexists(part)]
        if gone:
            raise RunError(
                None,
                f"{gone[0]!r}, which holds rows of {self._paths.final!r}, was moved or deleted "
                "while the run wrote it",
                f"put it back, and go on with {option('resume')}",
            )

    def _safe(self) -> str:
        if not self._safe_rows:
            return "no row was written"
        return f"{self._safe_rows} rows are safe in hidden part files beside it"


def merge(paths: OutputPaths, parts: Sequence[str], schema: pa.Schema, rows: int) -> None:
    """Write the rows of ``parts`` into the output in groups of ``rows``, and remove the parts.

    What is in its place may be the first part, under its other name, or the same rows, merged
    before a crash; and with ``paths.replace`` anything. Raises OSError for a file of others there,
    and for a part that cannot be read.
    """
    batches = (batch for part in parts for batch in read_batches(part, part, rows, schema))
    out = AtomicFile(paths.temporary(), paths.final)
    try:
        with parquet_writer(out.file, schema) as writer:
            for group in row_groups(batches, schema, rows):
                writer.write_table(group, row_group_size=len(group))
        out.sync()
        replaced = paths.replace or is_replaced(paths)
        ours = not out.replaces or replaced or _equal(paths.final, parts[0])
        if not ours and not _equal(paths.final, out.temporary):
            raise FileExistsError(errno.EEXIST, "a file that is not made of them is in its place")
        out.commit()
    except BaseException:
        out.abort()
        raise
    forget_replaced(paths)
    remove_parts(paths)


def _equal(path: str, other: str) -> bool:
    if not os.path.exists(path):
        return False
    return os.path.samefile(path, other) or filecmp.cmp(path, other, shallow=False)


def remove_parts(paths: OutputPaths) -> None:
    """Remove all parts durably, the first one before the others."""
    durable.remove(paths.part(0))
    durable.remove(*paths.every_part())
