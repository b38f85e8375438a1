"""Parquet: read batch by batch, written in row groups of bounded size."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as kinds

from blip2cli.convert.base import BATCH_ROWS, Reader, Schemas, Writer, read_errors, slices
from blip2cli.convert.column_types import SameCommand, conform, with_embedding_dtype
from blip2cli.convert.examples import listed
from blip2cli.convert.files import new_file
from blip2cli.convert.formats.merged_parquet import MergedParquetWriter
from blip2cli.convert.merge import MergedReader
from blip2cli.convert.salvage import DamagedPlaces, whole_images
from blip2cli.errors import OutputError
from blip2cli.options import ConvertOptions
from blip2cli.sinks.row_groups import ARROW_ERRORS, first_line
from blip2cli.sinks.settings import Settings, parquet_metadata, parquet_settings
from blip2cli.sources.parquet_schema import is_bytes

# Row groups of conversions, which may be of any width; those of runs: ``sinks/parquet``.
GROUP_ROWS = 1 << 16
GROUP_BYTES = 32 << 20
_BUFFER_BYTES = 1 << 20
_LISTS = (kinds.is_list, kinds.is_large_list, kinds.is_list_view, kinds.is_large_list_view)


class ParquetReader:
    """The rows of one file. Columns of bytes, such as images, are left out."""

    shared_by = 1  # readers that read at the same time, and have the memory for batches together

    def __init__(self, path: str, salvage: bool = False) -> None:
        """Raises SourceError."""
        self.path = path
        self._salvage = salvage
        self.damage = DamagedPlaces()
        with read_errors(path):
            self.size = os.path.getsize(path)
            with pq.ParquetFile(path) as file:
                found = file.schema_arrow
                self._rows = max(1, file.metadata.num_rows)
        self.settings: Settings | None = parquet_settings(found.metadata)
        taken = [i for i, field in enumerate(found) if not _has_bytes(_plain(field.type))]
        left_out = [name for i, name in enumerate(found.names) if i not in taken]
        self._notes = [f"Left out: {listed(left_out)}, which hold bytes."] if left_out else []
        names = _unlike(found.names)
        self._renamed = names != found.names
        # By number: names may come twice, or hold dots, which stand for fields.
        self._taken = taken if self._renamed or not left_out else list(range(len(taken)))
        self._read = None if self._renamed or not left_out else [found.names[i] for i in taken]
        self.schema = pa.schema([(names[i], _plain(found.field(i).type)) for i in taken])
        SameCommand().check(self.schema.names, repr(path))
        self._done = 0

    @property
    def notes(self) -> list[str]:
        return [*self._notes, *self.damage.notes()]

    def position(self) -> int:
        return self.size * self._done // self._rows

    def batches(self) -> Iterator[pa.RecordBatch]:
        self._done = 0
        with read_errors(self.path):
            pieces = self.pieces()
            for batch in whole_images(pieces) if self._salvage else filter(None, pieces):
                self._done += batch.num_rows
                yield batch

    def pieces(self) -> Iterator[pa.RecordBatch | None]:
        """The row groups as far as they can be read; None stands for what is left out.

        Raises Arrow's errors unless rows are salvaged.
        """
        self.damage = DamagedPlaces()
        done = 0
        with pq.ParquetFile(
            self.path,
            pre_buffer=False,
            buffer_size=_BUFFER_BYTES,
            page_checksum_verification=True,
        ) as file:
            rows = max(1, _rows_at_once(file.metadata) // self.shared_by)
            every = range(file.metadata.num_row_groups)
            for groups in [[number] for number in every] if self._salvage else [list(every)]:
                try:
                    for batch in file.iter_batches(rows, groups, self._read):
                        batch = batch.select(self._taken).rename_columns(self.schema.names)
                        yield conform(batch, self.schema)
                        done += batch.num_rows
                except ARROW_ERRORS as error:
                    if not self._salvage:
                        raise
                    self.damage.found(f"row group {groups[0]} ({first_line(error)})", done)
                    yield None


def _rows_at_once(about: pq.FileMetaData) -> int:
    """Rows of a batch of bounded size, estimated from the first row groups."""
    groups = [about.row_group(i) for i in range(min(8, about.num_row_groups))]
    rows = sum(group.num_rows for group in groups)
    per_row = sum(group.total_byte_size for group in groups) // max(1, rows) + 1
    return max(1, min(BATCH_ROWS, GROUP_BYTES // per_row))


class ParquetWriter:
    """Writes one Parquet file."""

    def __init__(self, path: str, schema: pa.Schema, settings: Settings | None) -> None:
        """Raises OutputError for a column that Parquet cannot hold, OSError."""
        self.notes: list[str] = []
        self._schema = with_embedding_dtype(schema, settings).with_metadata(
            {**(schema.metadata or {}), **parquet_metadata(settings)}
        )
        self._waiting: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0
        # A dictionary is worth its time only for values that repeat.
        once = {"caption", "logprob", "embedding"}
        once |= set() if "question" in schema.names else {"file_name"}
        repeated: Any = [
            f.name for f in schema if f.name not in once and not kinds.is_nested(f.type)
        ]
        self._out = new_file(path)
        try:
            self._writer = pq.ParquetWriter(
                self._out.file,
                self._schema,
                compression="zstd",
                use_dictionary=repeated or False,
                write_page_checksum=True,
            )
        except pa.ArrowException as error:
            self._out.abort()
            raise OutputError("destination", f"Parquet cannot hold these rows ({error})") from None

    def write(self, batch: pa.RecordBatch) -> None:
        for piece in slices(batch):
            self._waiting.append(piece)
            self._rows += piece.num_rows
            self._bytes += piece.nbytes
            if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
                self._flush()

    def finish(self) -> None:
        self._flush()
        self._writer.close()
        self._out.commit()

    def abort(self) -> None:
        with contextlib.suppress(Exception):  # else it would try to write when it is collected
            self._writer.close()
        self._out.abort()

    def _flush(self) -> None:
        if self._waiting:
            table = pa.Table.from_batches([b.cast(self._schema) for b in self._waiting])
            self._writer.write_table(table, row_group_size=self._rows)
        self._waiting, self._rows, self._bytes = [], 0, 0


def _has_bytes(kind: pa.DataType) -> bool:
    if kinds.is_nested(kind):
        return any(_has_bytes(kind.field(i).type) for i in range(kind.num_fields))
    return is_bytes(kind)


def _unlike(names: list[str]) -> list[str]:
    """The names, with a number behind those that come again."""
    found: dict[str, None] = {}
    for name in names:
        number = 0
        while (f"{name}_{number}" if number else name) in found:
            number += 1
        found[f"{name}_{number}" if number else name] = None
    return list(found)


def _plain(kind: Any) -> pa.DataType:
    """The type with one kind of text and one of lists, without dictionaries."""
    same: pa.DataType = kind
    if kinds.is_large_string(kind) or kinds.is_string_view(kind):
        return pa.string()
    value: Any = getattr(kind, "value_type", None)
    if kinds.is_dictionary(kind):
        return _plain(value)
    if kinds.is_fixed_size_list(kind):
        size: int = kind.list_size
        return pa.list_(_plain(value), size)
    if isinstance(kind, pa.BaseExtensionType):
        return pa.string() if kind.extension_name == "arrow.uuid" else _plain(kind.storage_type)
    if kinds.is_map(kind):
        return pa.map_(_plain(kind.key_type), _plain(kind.item_type))
    if any(is_list(kind) for is_list in _LISTS):
        return pa.list_(_plain(value))
    if kinds.is_struct(kind):
        return pa.struct([(field.name, _plain(field.type)) for field in kind])
    return same


def open_reader(path: str, options: ConvertOptions, schemas: Schemas) -> ParquetReader:
    """The rows of ``path``. Raises SourceError."""
    return ParquetReader(path, options.salvage)


def open_writer(options: ConvertOptions, reader: Reader) -> Writer:
    """A writer for rows like those of ``reader``. Raises OutputError, OSError."""
    if isinstance(reader, MergedReader):
        return MergedParquetWriter(options.destination, reader)
    return ParquetWriter(options.destination, reader.schema, reader.settings)
