"""Parquet made of shares: the bytes that a run without shares writes."""

from __future__ import annotations

import contextlib

import pyarrow as pa

from blip2cli.convert.column_types import with_embedding_dtype
from blip2cli.convert.files import new_file
from blip2cli.convert.merge import MergedReader
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.row_groups import group_rows, parquet_writer, row_groups
from blip2cli.sinks.settings import Settings, parquet_metadata, write_settings


class PartWriter:
    """Writes one Parquet file with row groups as ``sinks.row_groups`` makes them."""

    def __init__(self, path: str, schema: pa.Schema, settings: Settings) -> None:
        """Raises OSError."""
        self.notes: list[str] = []
        self._schema = with_embedding_dtype(schema, settings).with_metadata(
            parquet_metadata(settings)
        )
        self._group_rows = group_rows(self._schema)
        self._waiting: list[pa.RecordBatch] = []  # rows of the next group
        self._out = new_file(path)
        self._writer = parquet_writer(self._out.file, self._schema)

    def write(self, batch: pa.RecordBatch) -> None:
        self._waiting.append(batch.cast(self._schema))
        if sum(one.num_rows for one in self._waiting) >= self._group_rows:
            self._write_groups()

    def finish(self) -> None:
        self._write_groups(end=True)
        self._writer.close()
        self._out.commit()

    def abort(self) -> None:
        with contextlib.suppress(Exception):  # else it would try to write when it is collected
            self._writer.close()
        self._out.abort()

    def _write_groups(self, end: bool = False) -> None:
        groups = list(row_groups(self._waiting, self._schema, self._group_rows))
        self._waiting = []
        for group in groups:
            if end or len(group) == self._group_rows:
                self._writer.write_table(group, row_group_size=len(group))
            else:
                self._waiting = group.to_batches()


class MergedParquetWriter(PartWriter):
    """Writes one Parquet output, with its settings beside it."""

    def __init__(self, path: str, reader: MergedReader) -> None:
        """Raises OSError."""
        super().__init__(path, reader.schema, reader.merged)
        self._paths, self._settings = OutputPaths.of(path), reader.merged.as_copy()

    def finish(self) -> None:
        self._write_groups(end=True)
        self._writer.close()
        self._out.sync()
        with write_settings(self._paths, self._settings, self._out.inode):
            self._out.commit()
