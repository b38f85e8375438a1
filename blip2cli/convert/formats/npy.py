"""Vectors as a NumPy array, ``name.npy``, with the other columns in ``name.keys.jsonl`` beside it.

Row i of the array belongs to line i of the keys. Rows without a vector are left out of both.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as kinds

from blip2cli.convert.files import new_file
from blip2cli.convert.formats.base import BATCH_BYTES, Examples, Reader, Told, Writer, need, reading
from blip2cli.convert.formats.jsonl import JsonlReader, JsonlWriter
from blip2cli.convert.formats.parquet import ParquetReader
from blip2cli.convert.kernels import Column, pc
from blip2cli.convert.options import ConvertOptions
from blip2cli.convert.types import EMBEDDING, embedding_type
from blip2cli.errors import OutputError, SourceError
from blip2cli.sinks.settings import Settings

Vectors = np.ndarray[Any, np.dtype[Any]]  # [rows, size]

_HEADER_BYTES = 128  # of a .npy file: room for any number of rows


def write(options: ConvertOptions, reader: Reader) -> VectorsWriter:
    """A writer for rows like those of ``reader``. Raises UserError, OSError."""
    keys = keys_path(options.destination)
    if os.path.lexists(keys) and not options.overwrite:
        raise OutputError(
            f"The file {keys!r} for the keys exists already; add --overwrite to replace it, or "
            "choose another name."
        )
    schema = key_schema(reader)
    vectors = NpyFile(options.destination, vector_size(reader), np.dtype("<f4"))
    try:
        return VectorsWriter(vectors, JsonlWriter(keys, schema, reader.settings))
    except BaseException:
        vectors.abort()
        raise


def read(path: str, options: ConvertOptions, told: Told) -> VectorsReader:
    """The vectors of ``path`` and the keys beside it. Raises SourceError."""
    keys = keys_path(path)
    if not os.path.exists(keys):
        raise SourceError(
            f"The keys of {path!r} are missing; put {os.path.basename(keys)!r} beside it, a line "
            'such as {"file_name": "a.jpg"} for each vector.'
        )
    return VectorsReader(path, JsonlReader(keys, told.get(keys)))


def keys_path(path: str) -> str:
    """Where the keys of an array are."""
    return os.path.splitext(path)[0] + ".keys.jsonl"


def vector_size(reader: Reader) -> int:
    """The numbers of a vector. Raises SourceError for rows without vectors."""
    need(reader.schema, EMBEDDING, "an array", "It takes the results of blip2cli embed.")
    kind = reader.schema.field(EMBEDDING).type
    if kinds.is_fixed_size_list(kind):
        return int(kind.list_size)
    for batch in reader.batches():  # lists of other tools: the first one tells
        column = pc.drop_null(batch.column(batch.schema.get_field_index(EMBEDDING)))
        if len(column):
            return len(column[0])
    raise SourceError("No row has a vector.")


def key_schema(reader: Reader) -> pa.Schema:
    """The columns apart from the vectors."""
    names = reader.schema.names
    return pa.schema([reader.schema.field(n) for n in names if n != EMBEDDING])


def vectors_of(batch: pa.RecordBatch, size: int) -> Vectors:
    """The vectors, ``[rows, size]`` float32; none is null. Raises SourceError."""
    column: Column = batch.column(batch.schema.get_field_index(EMBEDDING))
    flat: Column = column.flatten()
    if len(flat) != size * batch.num_rows or flat.null_count:
        raise SourceError(f"A vector does not have {size} numbers as the first one; convert apart.")
    return np.asarray(flat.to_numpy(zero_copy_only=False), np.float32).reshape(-1, size)


class NpyFile:
    """A .npy file that grows: how many rows it has is filled in at the end."""

    def __init__(self, path: str, size: int, dtype: np.dtype[Any]) -> None:
        """Raises OSError."""
        self._size, self._dtype = size, dtype
        self.rows = 0
        self.out = new_file(path)
        self.out.file.write(self._header())

    def add(self, vectors: Vectors) -> None:
        """Append ``[rows, size]``. Raises OSError."""
        self.out.file.write(np.ascontiguousarray(vectors, self._dtype).data)
        self.rows += len(vectors)

    def complete(self) -> None:
        """Complete the file, without putting it in its place. Raises OSError."""
        self.out.file.seek(0)
        self.out.file.write(self._header())
        self.out.sync()

    def abort(self) -> None:
        """Remove what was written."""
        self.out.abort()

    def _header(self) -> bytes:
        shape = f"({self.rows}, {self._size})"
        text = f"{{'descr': '{self._dtype.str}', 'fortran_order': False, 'shape': {shape}, }}"
        room = _HEADER_BYTES - 10
        body = text.ljust(room - 1).encode() + b"\n"
        return b"\x93NUMPY\x01\x00" + room.to_bytes(2, "little") + body


class VectorsWriter:
    """Writes an array and its keys."""

    def __init__(self, vectors: NpyFile, keys: Writer) -> None:
        self._vectors, self._keys = vectors, keys
        self._failed = Examples()
        self.notes: list[str] = []

    def write(self, batch: pa.RecordBatch) -> None:
        batch = with_vectors(batch, self._failed)
        self._vectors.add(vectors_of(batch, self._vectors._size))
        self._keys.write(batch.drop_columns([EMBEDDING]))

    def finish(self) -> None:
        self._vectors.complete()
        self._keys.finish()
        self._vectors.out.commit()
        if self._failed.count:
            self.notes.append(f"Left out {self._failed.count} without a vector: {self._failed}.")

    def abort(self) -> None:
        self._vectors.abort()
        self._keys.abort()


def with_vectors(batch: pa.RecordBatch, failed: Examples) -> pa.RecordBatch:
    """The rows that have a vector; the names of the others go to ``failed``."""
    good = pc.is_valid(batch.column(batch.schema.get_field_index(EMBEDDING)))
    if pc.all(good).as_py() is not False:
        return batch
    for row in batch.filter(pc.invert(good)).drop_columns([EMBEDDING]).to_pylist():
        failed.add(row.get("file_name"))
    return batch.filter(good)


class VectorsReader:
    """Vectors and keys together; float16 becomes float32."""

    def __init__(self, path: str, keys: JsonlReader | ParquetReader) -> None:
        self.path = path
        self.settings: Settings | None = keys.settings
        self.notes: list[str] = []
        self._keys = keys
        with reading(path):
            self.size = os.path.getsize(path)
            try:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
            except ValueError as error:
                raise SourceError(f"{path!r} is no array of numbers ({error}).") from None
        if array.ndim != 2 or array.dtype.kind != "f":
            raise SourceError(
                f"{path!r} holds {array.dtype} of shape {array.shape}, not vectors; it needs rows "
                "of floating-point numbers."
            )
        self._array = array
        kind = pa.field(EMBEDDING, embedding_type(array.shape[1]))
        if EMBEDDING in keys.schema.names:
            raise SourceError(f"{keys.path!r} has a column embedding already; remove it.")
        self.schema = keys.schema.append(kind)
        self._done = 0

    def position(self) -> int:
        return self.size * self._done // max(1, len(self._array))

    def batches(self) -> Iterator[pa.RecordBatch]:
        self._done = 0
        width = self._array.shape[1]
        rows = max(1, BATCH_BYTES // (4 * width + 1))
        for keys in self._keys.batches():
            for start in range(0, keys.num_rows, rows):
                part = keys.slice(start, rows)
                vectors = self._array[self._done : self._done + part.num_rows]
                self._done += part.num_rows
                if len(vectors) < part.num_rows:
                    break
                flat = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
                column = pa.FixedSizeListArray.from_arrays(flat, width)
                columns = [*part.columns, column.cast(self.schema.field(EMBEDDING).type)]
                yield pa.RecordBatch.from_arrays(columns, schema=self.schema)
        if self._done != len(self._array):
            raise SourceError(
                f"{self.path!r} has {len(self._array)} vectors, but {self._keys.path!r} another "
                "number of rows; they do not belong together."
            )
