"""Rows as Arrow tables, and row groups whose bounds depend on the rows alone.

Types: strings as ``storage.text_encoding`` stores them, int64, float64, embeddings
``fixed_size_list`` of float32 or float16, texts, choices and their scores as lists of structs.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from blip2cli.sinks.base import LIST_FIELDS, Column, EmbeddingDtype, RowSchema
from blip2cli.sinks.settings import Settings, parquet_metadata
from blip2cli.sinks.settings_file import METADATA_KEY
from blip2cli.storage import durable
from blip2cli.storage.text_encoding import deep_to_utf8

# Rows are committed when they are this many bytes or the first is this old.
PART_BYTES = 32 << 20
PART_SECONDS = 30.0
# Row groups of the finished file: large enough to read fast, small enough to read singly. Those of
# conversions: ``convert/formats/parquet``.
GROUP_ROWS = 16384
GROUP_BYTES = 64 << 20
# What reading a damaged file may raise.
ARROW_ERRORS = (pa.ArrowException, KeyError, TypeError, IndexError, UnicodeDecodeError, OSError)


class UncommittedRows:
    """Rows in memory, until they are ``part_bytes`` or old enough to be committed."""

    def __init__(self, schema: RowSchema, arrow: pa.Schema, part_bytes: int = PART_BYTES) -> None:
        self._schema, self._arrow = schema, arrow
        self._part_bytes = part_bytes
        self._batches: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0
        self._since = 0.0  # when the first of them came, on the monotonic clock

    def add(self, rows: Sequence[Mapping[str, object]]) -> bool:
        """Take rows; whether all should be committed now."""
        if not self._batches:
            self._since = time.monotonic()
        complete = [self._schema.complete(row) for row in rows]
        batch = to_batch(complete, self._schema, self._arrow)
        self._batches.append(batch)
        self._rows += batch.num_rows
        self._bytes += batch.nbytes
        return self._bytes >= self._part_bytes or time.monotonic() - self._since >= PART_SECONDS

    def __len__(self) -> int:
        return self._rows

    def table(self) -> pa.Table:
        """All of them."""
        return pa.Table.from_batches(self._batches, self._arrow).combine_chunks()

    def clear(self) -> None:
        """They are committed."""
        self._batches.clear()
        self._rows = self._bytes = 0


def arrow_schema(schema: RowSchema, settings: Settings) -> pa.Schema:
    """The Arrow schema of a file, settings included."""
    fields = [pa.field(column.name, _arrow_type(column)) for column in schema.columns]
    return pa.schema(fields).with_metadata(parquet_metadata(settings))


_SCALARS: dict[str, pa.DataType] = {
    "string": pa.string(), "int": pa.int64(), "float": pa.float64(),
}  # fmt: skip
# What elements of a list are called in a Parquet file, and so in the schema that was read from one;
# Arrow alone says "item".
_ELEMENT = "element"
_NUMBERS: dict[EmbeddingDtype, pa.DataType] = {"float32": pa.float32(), "float16": pa.float16()}


def vector_type(size: int, numbers: EmbeddingDtype = "float32") -> pa.DataType:
    """``size`` numbers of this precision."""
    return pa.list_(pa.field(_ELEMENT, _NUMBERS[numbers]), size)


def _arrow_type(column: Column) -> pa.DataType:
    if column.type == "embedding":
        assert column.size is not None  # as RowSchema.of checks
        return vector_type(column.size, column.numbers)
    if column.type in LIST_FIELDS:
        fields = [(field.name, _SCALARS[field.type]) for field in LIST_FIELDS[column.type]]
        return pa.list_(pa.field(_ELEMENT, pa.struct(fields)))
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


def parquet_writer(where: Any, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer of our Parquet files: zstd, pages with checksums."""
    # Embeddings hardly repeat, and file names never: a dictionary would only cost time.
    plain = any(pa.types.is_fixed_size_list(field.type) for field in schema)
    return pq.ParquetWriter(
        where, schema, compression="zstd", use_dictionary=not plain, write_page_checksum=True
    )


def group_rows(schema: pa.Schema) -> int:
    """Rows in a group, from the schema alone: the file does not depend on where parts ended."""
    row_bytes: int = 256 + sum(
        field.type.list_size * field.type.value_type.bit_width // 8
        for field in schema
        if pa.types.is_fixed_size_list(field.type)
    )
    return max(1, min(GROUP_ROWS, GROUP_BYTES // row_bytes))


def row_groups(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, rows: int
) -> Iterator[pa.Table]:
    """The rows in tables of exactly ``rows`` rows, the last one shorter; each is one chunk, since
    pages end where chunks do: the bytes must not tell where parts ended."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
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


def read_batches(source: Any, name: str, rows: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows of a part, a path or an open file, which messages call ``name``.

    Carried columns of older parts may have narrower types. Raises OSError.
    """
    try:
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            for batch in file.iter_batches(batch_size=rows):
                yield batch.cast(schema, safe=False)
    except ARROW_ERRORS as error:
        reason = f"the part {name!r} is damaged, {first_line(error)}; see 'blip2cli verify'"
        raise OSError(errno.EIO, reason) from error


def first_line(error: Exception) -> str:
    """The first line of an error of Arrow's, which may quote the data behind it."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def is_ours(path: str, damaged: bool = False) -> bool:
    """Whether a file is Parquet that this tool wrote. ``damaged``: so is Parquet that is damaged.

    Raises OSError.
    """
    with open(durable.open_regular(path, os.O_RDONLY), "rb") as file:
        if file.read(4) not in (b"PAR1", b""):
            return False
        try:
            return METADATA_KEY in (pq.read_schema(file).metadata or {})
        except ARROW_ERRORS:
            return damaged
