"""Embeddings as a NumPy array, ``name.npy``, with the other columns in ``name.keys.jsonl``.

Row i of the array belongs to line i of the keys. Rows without a vector are left out of both. A
hidden file beside them tells whether the two are of one conversion (``file_set``).
"""

from __future__ import annotations

import os
import tokenize
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as kinds

from blip2cli.convert.arrow import Array, pc
from blip2cli.convert.base import (
    BATCH_BYTES,
    Reader,
    Schemas,
    Writer,
    read_errors,
    require_column,
)
from blip2cli.convert.column_types import EMBEDDING
from blip2cli.convert.examples import LeftOut
from blip2cli.convert.file_set import record_files, record_path, strangers
from blip2cli.convert.files import new_file
from blip2cli.convert.formats.jsonl import JsonlReader, JsonlWriter
from blip2cli.convert.formats.parquet import ParquetReader
from blip2cli.convert.images import without_nulls
from blip2cli.errors import OutputError, SourceError, option
from blip2cli.options import ConvertOptions
from blip2cli.sinks.row_groups import vector_type
from blip2cli.sinks.settings import Settings

Vectors = np.ndarray[Any, np.dtype[Any]]  # [rows, size]


def open_writer(options: ConvertOptions, reader: Reader) -> VectorsWriter:
    """A writer for rows like those of ``reader``. Raises UserError, OSError."""
    keys = keys_path(options.destination)
    if os.path.lexists(keys) and not options.overwrite:
        raise OutputError(
            "destination",
            f"The file {keys!r} for the keys exists already",
            f"add {option('overwrite')} to replace it, or choose another name",
        )
    vectors = NpyFile(options.destination, vector_size(reader), np.dtype("<f4"))
    try:
        names = JsonlWriter(keys, key_schema(reader), reader.settings)
        return VectorsWriter(vectors, names, (options.destination, keys))
    except BaseException:
        vectors.out.abort()
        raise


def open_reader(path: str, options: ConvertOptions, schemas: Schemas) -> VectorsReader:
    """The vectors of ``path`` and the keys beside it. Raises SourceError."""
    keys = keys_path(path)
    if not os.path.exists(keys):
        raise SourceError(
            "sources",
            f"The keys of {path!r} are missing",
            f"put {os.path.basename(keys)!r} beside it, a line such as "
            '{"file_name": "a.jpg"} for each vector',
        )
    with read_errors(path):
        found = strangers(path, (path, keys))
    if found:
        raise SourceError(
            "sources",
            f"{path!r} and {keys!r} do not belong together: {found[0]}",
            f"make both anew, or remove {record_path(path)!r} if you know better",
        )
    return VectorsReader(path, JsonlReader(keys, schemas.get(keys)))


def keys_path(path: str) -> str:
    """Where the keys of an array are."""
    return os.path.splitext(path)[0] + ".keys.jsonl"


def vector_size(reader: Reader) -> int:
    """The numbers of a vector. Raises SourceError for rows without vectors."""
    require_column(reader.schema, EMBEDDING, "an array", "it takes the results of blip2cli embed")
    kind = reader.schema.field(EMBEDDING).type
    if kinds.is_fixed_size_list(kind):
        return int(kind.list_size)
    for batch in reader.batches():  # lists of other tools: the first one tells
        column = pc.drop_null(batch.column(EMBEDDING))
        if len(column):
            return len(column[0])
    raise SourceError("sources", "No row has a vector")


def key_schema(reader: Reader) -> pa.Schema:
    """The columns apart from the vectors."""
    return reader.schema.remove(reader.schema.get_field_index(EMBEDDING))


def vectors_of(batch: pa.RecordBatch, size: int) -> Vectors:
    """The vectors, ``[rows, size]`` float32; none is null. Raises SourceError."""
    column: Array = batch.column(EMBEDDING)
    flat: Array = column.flatten()
    if len(flat) != size * batch.num_rows or flat.null_count:
        problem = f"A vector does not have {size} numbers as the first one"
        raise SourceError("sources", problem, "convert apart")
    return np.asarray(flat.to_numpy(zero_copy_only=False), np.float32).reshape(-1, size)


class NpyFile:
    """A .npy file that grows; the number of rows is filled in at the end."""

    def __init__(self, path: str, size: int, dtype: np.dtype[Any]) -> None:
        """Raises OSError."""
        self.size, self._dtype = size, dtype
        self.rows = 0
        self.out = new_file(path)
        self._write_header()

    def add(self, vectors: Vectors) -> None:
        """Append ``[rows, size]``. Raises OSError."""
        self.out.file.write(np.ascontiguousarray(vectors, self._dtype).data)
        self.rows += len(vectors)

    def complete(self) -> None:
        """Complete and fsync the file, without putting it in its place. Raises OSError."""
        self.out.file.seek(0)
        self._write_header()
        self.out.sync()

    def _write_header(self) -> None:
        # Of the same length for any number of rows.
        about = {"descr": self._dtype.str, "fortran_order": False, "shape": (self.rows, self.size)}
        np.lib.format.write_array_header_1_0(self.out.file, about)


class VectorsWriter:
    """Writes an array and its keys."""

    def __init__(self, vectors: NpyFile, keys: Writer, files: tuple[str, str]) -> None:
        self._vectors, self._keys, self._files = vectors, keys, files
        self._left_out = LeftOut()
        self.notes: list[str] = []

    def write(self, batch: pa.RecordBatch) -> None:
        batch = without_nulls(batch, EMBEDDING, self._left_out)
        self._vectors.add(vectors_of(batch, self._vectors.size))
        self._keys.write(batch.drop_columns([EMBEDDING]))

    def finish(self) -> None:
        self._vectors.complete()
        self._keys.finish()
        self._vectors.out.commit()
        record_files(self._files[0], self._files)
        self.notes += self._left_out.notes("a vector")

    def abort(self) -> None:
        self._vectors.out.abort()
        self._keys.abort()


class VectorsReader:
    """Vectors and keys together; float16 becomes float32."""

    def __init__(self, path: str, keys: JsonlReader | ParquetReader) -> None:
        self.path = path
        self.settings: Settings | None = keys.settings
        self.notes: list[str] = []
        self._keys = keys
        with read_errors(path):
            self.size = os.path.getsize(path)
            try:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
            except (ValueError, SyntaxError, EOFError, tokenize.TokenError) as error:
                problem = f"{path!r} is no array of numbers ({str(error).splitlines()[0]})"
                raise SourceError("sources", problem) from None
        if array.ndim != 2 or array.dtype.kind != "f":
            raise SourceError(
                "sources",
                f"{path!r} holds {array.dtype} of shape {array.shape}, not vectors",
                "it needs rows of floating-point numbers",
            )
        self._array = array
        kind = pa.field(EMBEDDING, vector_type(array.shape[1]))
        if EMBEDDING in keys.schema.names:
            problem = f"{keys.path!r} has a column embedding already"
            raise SourceError("sources", problem, "remove it")
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
                "sources",
                f"{self.path!r} has {len(self._array)} vectors, but {self._keys.path!r} another "
                "number of rows",
                "they do not belong together",
            )
