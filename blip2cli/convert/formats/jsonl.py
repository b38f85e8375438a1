"""JSON Lines, plain and gzipped.

Blocks of lines are parsed by Arrow. What Arrow's parser has no place for (names that are not
UTF-8, a column that comes later, a value of another type) is parsed again line by line, which says
what is wrong where something is.
"""

from __future__ import annotations

import io
import os
import re
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.json as pj
import pyarrow.types as kinds

from blip2cli.convert.files import new_file
from blip2cli.convert.formats.base import Reader, Told, Widened, pieces, reading
from blip2cli.convert.jsontext import json_lines
from blip2cli.convert.kernels import Column
from blip2cli.convert.lines import Block, Blocks, objects
from blip2cli.convert.options import ConvertOptions
from blip2cli.convert.types import Kinds, exact, inferred, stored, union, without_nulls
from blip2cli.errors import OutputError, SourceError
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings import Settings, read_settings, write_settings

_LOOKED_AT = 1000  # rows whose values tell the types of all
_LOOKED_AT_BYTES = 1 << 20
# Escapes of surrogates, and text that looks like our own escape of one (see ``names``).
_UNUSUAL = re.compile(rb"\\(?:u[dD][89a-fA-F]|\\u[dD0])")


class JsonlReader:
    """The rows of one file."""

    def __init__(self, path: str, schema: pa.Schema | None = None) -> None:
        """``schema`` is that of a ``Widened``. Raises SourceError."""
        self.path = path
        with reading(path):
            self.size = os.path.getsize(path)
        self.notes: list[str] = []
        self._kinds = Kinds()
        self._blocks: Blocks | None = None
        self._told = schema if schema is not None else self._look()
        self.schema = without_nulls(self._told)
        self.settings: Settings | None = read_settings(OutputPaths.of(path))

    def position(self) -> int:
        return self._blocks.position if self._blocks is not None else 0

    def batches(self) -> Iterator[pa.RecordBatch]:
        self._blocks = Blocks(self.path)
        for block in self._blocks:
            batch = self._quick(block)
            yield from pieces(self._thorough(block) if batch is None else batch)

    def _look(self) -> pa.Schema:
        rows: list[dict[str, Any]] = []
        for block in Blocks(self.path, _LOOKED_AT_BYTES):
            for number, row in islice(objects(block, self.path), _LOOKED_AT):
                self._kinds.check(row, f"{self.path!r}, line {number},")
                rows.append(stored(row))
            if rows:
                break
        return self._schema_of(rows, f"{self.path!r}, lines 1 to {len(rows)}")

    def _schema_of(self, rows: list[dict[str, Any]], where: str) -> pa.Schema:
        fields = []
        for name in dict.fromkeys(name for row in rows for name in row):
            try:
                fields.append(pa.field(name, inferred(name, [row.get(name) for row in rows])))
            except SourceError as error:
                raise SourceError(f"{where}: {error}.") from None
        return pa.schema(fields)

    def _quick(self, block: Block) -> pa.RecordBatch | None:
        """The rows as Arrow reads them; None when it does not."""
        if not block.data.strip() or not len(self.schema) or _UNUSUAL.search(block.data):
            return None
        parse = pj.ParseOptions(
            explicit_schema=pa.schema([(f.name, _variable(f.type)) for f in self.schema]),
            newlines_in_values=False,
            unexpected_field_behavior="error",
        )
        try:
            if not block.data.isascii():
                block.data.decode()  # the parser itself does not look
            table = pj.read_json(io.BytesIO(block.data), parse_options=parse)
            table = table.select(self.schema.names).cast(self.schema)
        except (pa.ArrowException, UnicodeDecodeError, KeyError):
            return None
        return table.combine_chunks().to_batches()[0]

    def _thorough(self, block: Block) -> pa.RecordBatch:
        rows: list[dict[str, Any]] = []
        first = block.line
        for number, row in objects(block, self.path):
            self._kinds.check(row, f"{self.path!r}, line {number},")
            first = number if not rows else first
            rows.append(stored(row))
        names = dict.fromkeys(name for row in rows for name in row)
        arrays = []
        for field in self.schema:
            try:
                values = [exact(row.get(field.name), field.type) for row in rows]
                arrays.append(pa.array(values, field.type))
            except (pa.ArrowException, TypeError, ValueError, OverflowError):
                self._widen(rows, first)
        if names.keys() - set(self.schema.names):
            self._widen(rows, first)
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _widen(self, rows: list[dict[str, Any]], first: int) -> None:
        where = f"{self.path!r}, from line {first} on"
        try:
            wider = union(self._told, self._schema_of(rows, where))
        except SourceError as error:
            text = str(error)
            raise SourceError(text if text.startswith(where) else f"{where}: {text}.") from None
        if wider.equals(self._told):
            raise SourceError(f"{where}: values of one column are not of one kind; make them so.")
        raise Widened(self.path, wider)


def _variable(kind: pa.DataType) -> pa.DataType:
    """Arrow's JSON parser knows no lists of a fixed size."""
    return pa.list_(kind.value_type) if kinds.is_fixed_size_list(kind) else kind


class JsonlWriter:
    """Writes one JSON object a line."""

    def __init__(self, path: str, schema: pa.Schema, settings: Settings | None) -> None:
        """Raises OutputError for a column without a form in JSON, OSError."""
        self.notes: list[str] = []
        self._settings = settings
        for field in schema:
            if not _writable(field.type):
                raise OutputError(
                    f"The column {field.name} holds {field.type}, which JSON cannot; convert into "
                    ".parquet instead."
                )
        self._paths = OutputPaths.of(path)
        self._out = new_file(path)
        # 31: a gzip header without a time, so that equal rows give equal files.
        self._packer = zlib.compressobj(wbits=31) if path.lower().endswith(".gz") else None

    def write(self, batch: pa.RecordBatch) -> None:
        for piece in pieces(batch, 4 << 20):
            lines = json_lines(piece)
            if not len(lines):
                continue
            self._put(_bytes_of(lines))

    def finish(self) -> None:
        if self._packer is not None:
            self._out.file.write(self._packer.flush())
        self._out.sync()
        with write_settings(self._paths, self._settings, self._out.inode):
            self._out.commit()

    def abort(self) -> None:
        self._out.abort()

    def _put(self, data: memoryview) -> None:
        self._out.file.write(self._packer.compress(data) if self._packer is not None else data)


def _bytes_of(lines: Column) -> memoryview:
    """The text of a fresh (never sliced) array of strings, one string after the other."""
    ends, data = lines.buffers()[1:]
    return memoryview(data)[: memoryview(ends).cast("i")[len(lines)]]


def _writable(kind: pa.DataType) -> bool:
    if kinds.is_nested(kind):
        return all(_writable(kind.field(i).type) for i in range(kind.num_fields))
    return not (
        kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_fixed_size_binary(kind)
    )


def read(path: str, options: ConvertOptions, told: Told) -> JsonlReader:
    """The rows of ``path``. Raises SourceError."""
    return JsonlReader(path, told.get(path))


def write(options: ConvertOptions, reader: Reader) -> JsonlWriter:
    """A writer for rows like those of ``reader``. Raises OutputError, OSError."""
    return JsonlWriter(options.destination, reader.schema, reader.settings)
