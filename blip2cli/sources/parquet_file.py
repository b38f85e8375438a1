"""Parquet files read in pieces: rows without their images, and single images by row group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import repeat
from typing import Any, NamedTuple

import pyarrow as pa  # noqa: TID253 - readers are imported when they are used
import pyarrow.parquet as pq  # noqa: TID253

from blip2cli.errors import ImageError, SourceError
from blip2cli.sources.parquet_values import plain_values
from blip2cli.storage.opening import open_binary

_ROWS = 4096  # rows of names and carried values read together
_BATCH_BYTES = 8 << 20  # images read together: a handful of photographs
_BUFFER_BYTES = 1 << 20  # columns stream through so much instead of being read whole


class ParquetTable:
    """An open Parquet file, and the place it was last read at."""

    def __init__(self, location: str) -> None:
        self._raw = open_binary(location)
        try:
            # Without pre-buffering and with a buffer of its own, a column streams through memory.
            self.file = pq.ParquetFile(self._raw, pre_buffer=False, buffer_size=_BUFFER_BYTES)
        except BaseException:
            self._raw.close()
            raise
        self._place: tuple[str, int] | None = None  # column and row group being read
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._cells: Any = ()  # of the current batch
        self._start = 0  # the row of the first of them

    def close(self) -> None:
        self._batches = iter(())
        self.file.close()
        self._raw.close()

    def cell(self, column: str, group: int, row: int) -> tuple[bytes | None, str | None]:
        """The bytes and the path of one image, by row group and row in it.

        Reads forward through the row group batch by batch, so images in order are read once.
        Raises ImageError, OSError or ValueError.
        """
        try:
            if self._place != (column, group) or row < self._start:
                self._go_to(column, group)
            while row >= self._start + len(self._cells):
                self._start += len(self._cells)
                self._cells = next(self._batches).column(0)
        except (pa.ArrowException, OSError, StopIteration) as error:
            self._place = None
            raise ImageError("read_error", f"The table is damaged here ({error}).") from None
        value = self._cells[row - self._start].as_py()
        if isinstance(value, dict):
            return value.get("bytes"), value.get("path")
        return value, None

    def _go_to(self, column: str, group: int) -> None:
        about = self.file.metadata.row_group(group)
        row_bytes = about.total_byte_size // max(1, about.num_rows) + 1
        self._batches = self.file.iter_batches(
            batch_size=max(1, min(_ROWS, _BATCH_BYTES // row_bytes)),
            row_groups=[group],
            columns=[column],
            use_threads=False,
        )
        self._place, self._cells, self._start = (column, group), (), 0


class TableRow(NamedTuple):
    """One row of a table, without the images; or, with ``error``, all that follow in its group."""

    number: int  # in the table, from 0
    group: int  # the row group
    row: int  # in the group
    cells: Mapping[str, Any]
    error: str | None = None


def table_rows(location: str, columns: list[str]) -> Iterator[TableRow]:
    """Yield every row, or why the rest of a row group cannot be read."""
    start = 0
    with closing(ParquetTable(location)) as table:
        about = table.file.metadata
        for group in range(about.num_row_groups):
            rows = about.row_group(group).num_rows
            row = 0
            try:
                for cells in _cells(table.file, group, columns) if columns else repeat({}, rows):
                    yield TableRow(start + row, group, row, cells)
                    row += 1
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                what = f"The table is damaged here ({error}); {rows - row} rows are lost."
                yield TableRow(start + row, group, row, {}, what)
            start += rows


def _cells(file: pq.ParquetFile, group: int, columns: list[str]) -> Iterator[Mapping[str, Any]]:
    """The rows of one group as dictionaries."""
    about = file.metadata.row_group(group)
    prefixes = tuple(f"{name}." for name in columns)
    chunks = (about.column(number) for number in range(about.num_columns))
    size = sum(
        chunk.total_uncompressed_size
        for chunk in chunks
        if f"{chunk.path_in_schema}.".startswith(prefixes)
    )
    batch_size = max(1, min(_ROWS, _BATCH_BYTES * about.num_rows // (size + 1)))
    for batch in file.iter_batches(
        batch_size=batch_size, row_groups=[group], columns=columns, use_threads=False
    ):
        names = batch.schema.names
        if not names:  # none of the columns is in this file
            yield from repeat({}, batch.num_rows)
        for values in zip(*map(plain_values, batch.columns), strict=True):
            yield dict(zip(names, values, strict=True))


@contextmanager
def arrow_errors(text: str) -> Iterator[None]:
    """Turn what Arrow raises for the source ``text`` into a SourceError."""
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SourceError(
            "sources", f"{text!r} is no Parquet file, or a damaged one ({first})"
        ) from None
