"""Writer of Parquet: durable part files during the run, merged into one file at its end.

A Parquet file can be read only when its last byte is written, so rows first go to numbered part
files beside the output, small complete Parquet files under hidden names that no reader picks up.
Each is committed durably. ``close`` merges them row group by row group into one file and renames
it into place: the output is absent or complete. An output that is overwritten stays until then.

A run that resumes appends behind the last part. An output that is complete becomes the first part,
by a hard link, and stays in place until the new one replaces it. So where there are parts, they are
the rows; a merge that was interrupted is done again. The first part is removed before the others:
without it, they are known to be left over.

Types: strings as ``storage.text_encoding`` stores them, int64, float64, embeddings
``fixed_size_list`` of float32 or float16, texts and choices as lists of structs.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from blip2cli.errors import RunError, option
from blip2cli.sinks.base import LIST_FIELDS, Column, DiskGuard, EmbeddingDtype, RowSchema
from blip2cli.sinks.journal import Journal
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings import (
    Settings,
    forget_replaced,
    is_replaced,
    parquet_metadata,
    write_settings,
)
from blip2cli.storage import durable
from blip2cli.storage.atomic import AtomicFile
from blip2cli.storage.text_encoding import deep_to_utf8

# A part is committed when it holds this much or is this old, whichever comes first.
PART_BYTES = 32 << 20
PART_SECONDS = 30.0
# Row groups of the finished file: large enough to read fast, small enough to read singly. Those of
# conversions: ``convert/formats/parquet``.
GROUP_ROWS = 16384
GROUP_BYTES = 64 << 20
# What reading a damaged file may raise.
ARROW_ERRORS = (pa.ArrowException, KeyError, TypeError, IndexError, UnicodeDecodeError, OSError)


class ParquetSink:
    """Writes one Parquet file."""

    def __init__(
        self,
        paths: OutputPaths,
        schema: RowSchema,
        settings: Settings,
        journal: Journal | None = None,
    ) -> None:
        """``journal`` is that of the output to append to, when a run resumes."""
        self._paths = paths
        self._rows_schema = schema
        self._settings = settings
        self._schema = arrow_schema(schema, settings)
        self._batches: list[pa.RecordBatch] = []  # not yet in a part
        self._since = 0.0  # when the first of them came, on the monotonic clock
        self._journal = journal
        self._safe_rows = journal.rows if journal else 0
        self._disk = DiskGuard(paths.final, self._safe)

    def write(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Take rows; a part is committed when they are many or old enough."""
        if not rows:
            self._begin()
            return
        if not self._batches:
            self._since = time.monotonic()
        complete = [self._rows_schema.complete(row) for row in rows]
        self._batches.append(to_batch(complete, self._rows_schema, self._schema))
        size = sum(batch.nbytes for batch in self._batches)
        if size >= PART_BYTES or time.monotonic() - self._since >= PART_SECONDS:
            self.commit()

    def commit(self) -> None:
        if not self._batches:
            return
        with self._disk.errors():
            self._check_parts()
        table = pa.Table.from_batches(self._batches, self._schema)
        with self._disk.errors():
            self._write_part(table)
        self._batches.clear()
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
        with _writer(buffer, schema) as writer:
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
            merge(self._paths, self._parts, self._schema)

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


def merge(paths: OutputPaths, parts: Sequence[str], schema: pa.Schema) -> None:
    """Write the rows of ``parts`` into the output, and remove the parts.

    What is in its place may be the first part, under its other name, or the same rows, merged
    before a crash; and with ``paths.replace`` anything. Raises OSError for a file of others there,
    and for a part that cannot be read.
    """
    out = AtomicFile(paths.temporary(), paths.final)
    try:
        with _writer(out.file, schema) as writer:
            for group in _groups(parts, schema, _group_rows(schema)):
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


def arrow_schema(schema: RowSchema, settings: Settings) -> pa.Schema:
    """The Arrow schema of a file, settings included."""
    fields = [pa.field(column.name, _arrow_type(column)) for column in schema.columns]
    return pa.schema(fields).with_metadata(parquet_metadata(settings))


_SCALARS: dict[str, pa.DataType] = {
    "string": pa.string(), "int": pa.int64(), "float": pa.float64(),
}  # fmt: skip
_NUMBERS: dict[EmbeddingDtype, pa.DataType] = {"float32": pa.float32(), "float16": pa.float16()}


def _arrow_type(column: Column) -> pa.DataType:
    if column.type == "embedding":
        assert column.size is not None  # as RowSchema.of checks
        return pa.list_(_NUMBERS[column.numbers], column.size)
    if column.type in LIST_FIELDS:
        fields = [(field.name, _SCALARS[field.type]) for field in LIST_FIELDS[column.type]]
        return pa.list_(pa.struct(fields))
    return _SCALARS[column.type]


def to_batch(rows: list[dict[str, Any]], schema: RowSchema, arrow: pa.Schema) -> pa.RecordBatch:
    """Complete rows as an Arrow record batch."""
    arrays = []
    for column, field in zip(schema.columns, arrow, strict=True):
        values = [row[column.name] for row in rows]
        if column.type != "embedding":
            values = deep_to_utf8(values)
        arrays.append(pa.array(values, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=arrow)


def _writer(where: Any, schema: pa.Schema) -> pq.ParquetWriter:
    # Embeddings hardly repeat, and file names never: a dictionary would only cost time.
    plain = any(pa.types.is_fixed_size_list(field.type) for field in schema)
    return pq.ParquetWriter(
        where, schema, compression="zstd", use_dictionary=not plain, write_page_checksum=True
    )


def _group_rows(schema: pa.Schema) -> int:
    """Rows per group, from the schema alone: the file does not depend on where parts ended."""
    row_bytes: int = 256 + sum(
        field.type.list_size * field.type.value_type.bit_width // 8
        for field in schema
        if pa.types.is_fixed_size_list(field.type)
    )
    return max(1, min(GROUP_ROWS, GROUP_BYTES // row_bytes))


def _groups(parts: Sequence[str], schema: pa.Schema, rows: int) -> Iterator[pa.Table]:
    """Yield the rows of all parts in tables of exactly ``rows`` rows, the last one shorter; each is
    one chunk, since pages end where chunks do: the bytes must not tell where parts ended."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in _batches(parts, rows, schema):
        while count + batch.num_rows >= rows:
            head = batch.slice(0, rows - count)
            yield pa.Table.from_batches([*waiting, head], schema).combine_chunks()
            batch = batch.slice(head.num_rows)
            waiting, count = [], 0
        if batch.num_rows:
            waiting.append(batch)
            count += batch.num_rows
    if waiting:
        yield pa.Table.from_batches(waiting, schema).combine_chunks()


def _batches(parts: Sequence[str], rows: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows of all parts; carried columns of older ones may have had narrower types."""
    for part in parts:
        try:
            with pq.ParquetFile(part, page_checksum_verification=True) as file:
                for batch in file.iter_batches(batch_size=rows):
                    yield batch.cast(schema, safe=False)
        except ARROW_ERRORS as error:
            reason = f"the part {part!r} is damaged, {first_line(error)}; see 'blip2cli verify'"
            raise OSError(errno.EIO, reason) from error


def first_line(error: Exception) -> str:
    """The first line of an error of Arrow's, which may quote the data behind it."""
    return next(iter(str(error).splitlines()), type(error).__name__)
