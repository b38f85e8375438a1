"""JSON Lines, plain and gzipped.

Blocks of lines are parsed by Arrow. What Arrow's parser does not take (names that are not UTF-8, a
column that comes later, a value of another type) is parsed again line by line, which also tells
what is wrong with a line.
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

from blip2cli.convert.arrow import Array
from blip2cli.convert.arrow_json import json_lines, json_text
from blip2cli.convert.base import Reader, Schemas, SchemaWidened, errors_at, read_errors, slices
from blip2cli.convert.column_types import (
    KNOWN,
    SameCommand,
    as_text,
    check_exact,
    infer_type,
    resolve_nulls,
    union_schema,
)
from blip2cli.convert.files import new_file
from blip2cli.convert.line_blocks import BLOCK_BYTES, LineBlock, LineBlocks, parse_rows
from blip2cli.convert.salvage import DamagedPlaces, SoundBlocks, whole_images
from blip2cli.errors import OutputError, SourceError
from blip2cli.options import ConvertOptions
from blip2cli.sinks.jsonl import MEMBER_BYTES
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings import Settings, read_settings, write_settings
from blip2cli.storage.text_encoding import deep_to_utf8, without_surrogates

_GZIP = 31  # a gzip header without a time, so that equal rows give equal files
SAMPLE_ROWS = 1000  # whose values tell the types of all rows
_SAMPLE_BYTES = 1 << 20
_LEAST_BYTES = 1 << 16  # of a block, however many files are read
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")  # an escape that Arrow takes in pairs only


class JsonlReader:
    """The rows of one file."""

    shared_by = 1  # readers that read at the same time, and have the memory for batches together

    def __init__(
        self,
        path: str,
        schema: pa.Schema | None = None,
        salvage: bool = False,
        ours: bool | None = None,
    ) -> None:
        """``schema`` is that of a ``SchemaWidened``; rows of ``ours`` all have the same columns,
        by default those that have settings. Raises SourceError."""
        self.path = path
        with read_errors(path):
            self.settings: Settings | None = read_settings(OutputPaths.of(path))
        self._salvage = salvage
        self._ours = self.settings is not None if ours is None else ours
        with read_errors(path):
            self.size = os.path.getsize(path)
        self._command = SameCommand()
        self._blocks: LineBlocks | SoundBlocks | None = None
        # Columns that are null so far have the type null here.
        self._narrow = schema if schema is not None else self._sample()
        self.schema = resolve_nulls(self._narrow)

    @property
    def damage(self) -> DamagedPlaces:
        """What was left out to salvage the rest."""
        return self._blocks.damage if isinstance(self._blocks, SoundBlocks) else DamagedPlaces()

    @property
    def notes(self) -> list[str]:
        return self.damage.notes()

    def position(self) -> int:
        return self._blocks.position if self._blocks is not None else 0

    def batches(self) -> Iterator[pa.RecordBatch]:
        for batch in whole_images(self.pieces()) if self._salvage else self._all():
            yield from slices(batch)

    def _all(self) -> Iterator[pa.RecordBatch]:
        size = max(_LEAST_BYTES, BLOCK_BYTES // self.shared_by)
        self._blocks = blocks = LineBlocks(self.path, size)
        return map(self._parsed, blocks)

    def pieces(self) -> Iterator[pa.RecordBatch | None]:
        """The sound rows; None stands for damage between them."""
        self._blocks = blocks = self._sound_blocks()
        return (None if block is None else self._parsed(block) for block in blocks)

    def _sound_blocks(self) -> SoundBlocks:
        return SoundBlocks(self.path, self._ours)

    def _parsed(self, block: LineBlock) -> pa.RecordBatch:
        batch = self._parse(block)
        return self._parse_lines(block) if batch is None else batch

    def _sample(self) -> pa.Schema:
        rows: list[dict[str, Any]] = []
        blocks: Any = (
            self._sound_blocks() if self._salvage else LineBlocks(self.path, _SAMPLE_BYTES)
        )
        for block in filter(None, blocks):
            for number, row in islice(parse_rows(block, self.path), SAMPLE_ROWS):
                self._command.check(row, f"{self.path!r}, line {number},")
                rows.append(deep_to_utf8(row, without_surrogates))
            if rows:
                break
        return self._schema_of(rows, f"{self.path!r}, lines 1 to {len(rows)}")

    def _schema_of(self, rows: list[dict[str, Any]], where: str) -> pa.Schema:
        names = dict.fromkeys(name for row in rows for name in row)
        with errors_at(where):
            return pa.schema([(n, infer_type(n, [row.get(n) for row in rows])) for n in names])

    def _parse(self, block: LineBlock) -> pa.RecordBatch | None:
        """The rows as Arrow's parser reads them; None when it does not take them."""
        if not block.data.strip() or not len(self.schema) or _SURROGATE.search(block.data):
            return None
        parse = pj.ParseOptions(
            explicit_schema=pa.schema([(f.name, _variable(f.type)) for f in self.schema]),
            newlines_in_values=False,
            unexpected_field_behavior="error",
        )
        try:
            if not block.data.isascii():
                block.data.decode()  # the parser itself does not check
            table = pj.read_json(io.BytesIO(block.data), parse_options=parse)
            table = table.select(self.schema.names).cast(self.schema)
        except (pa.ArrowException, UnicodeDecodeError, KeyError):
            return None
        return table.combine_chunks().to_batches()[0]

    def _parse_lines(self, block: LineBlock) -> pa.RecordBatch:
        rows: list[dict[str, Any]] = []
        first = block.line
        for number, row in parse_rows(block, self.path):
            self._command.check(row, f"{self.path!r}, line {number},")
            first = number if not rows else first
            rows.append(deep_to_utf8(row, without_surrogates))
        names = dict.fromkeys(name for row in rows for name in row)
        arrays = []
        for field in self.schema:
            try:
                values = [row.get(field.name) for row in rows]
                if kinds.is_string(field.type) and field.name not in KNOWN:
                    values = [as_text(value) for value in values]
                for value in values:
                    check_exact(value, field.type)
                arrays.append(pa.array(values, field.type))
            except (pa.ArrowException, TypeError, ValueError, OverflowError):
                self._widen(rows, first)
        if names.keys() - set(self.schema.names):
            self._widen(rows, first)
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _widen(self, rows: list[dict[str, Any]], first: int) -> None:
        where = f"{self.path!r}, from line {first} on"
        found = self._schema_of(rows, where)
        with errors_at(where):
            wider = union_schema(self._narrow, found)
        if wider.equals(self._narrow):
            problem = f"{where}: values of one column are not of one kind"
            raise SourceError("sources", problem, "make them so")
        raise SchemaWidened(self.path, wider)


def _variable(kind: pa.DataType) -> pa.DataType:
    """Arrow's JSON parser knows no lists of a fixed size."""
    return pa.list_(kind.value_type) if kinds.is_fixed_size_list(kind) else kind


class JsonlWriter:
    """Writes one JSON object a line."""

    def __init__(self, path: str, schema: pa.Schema, settings: Settings | None) -> None:
        """Raises OutputError for a column without a form in JSON, OSError."""
        self.notes: list[str] = []
        self._settings = settings.as_copy() if settings is not None else None
        for field in schema:
            try:
                json_text(pa.array([], field.type))
            except TypeError:
                raise OutputError(
                    "destination",
                    f"The column {field.name} holds {field.type}, which JSON cannot",
                    "convert into .parquet instead",
                ) from None
        self._paths = OutputPaths.of(path)
        self._out = new_file(path)
        self._compressed = path.lower().endswith(".gz")
        self._waiting = b""  # lines of the next gzip member

    def write(self, batch: pa.RecordBatch) -> None:
        for piece in slices(batch, 4 << 20):
            data = _bytes_of(json_lines(piece))
            if self._compressed:
                self._waiting += data
                self._write_members()
            else:
                self._out.file.write(data)

    def finish(self) -> None:
        if self._compressed:
            self._out.file.write(zlib.compress(self._waiting, wbits=_GZIP))
        self._out.sync()
        with write_settings(self._paths, self._settings, self._out.inode):
            self._out.commit()

    def abort(self) -> None:
        self._out.abort()

    def _write_members(self) -> None:
        """Members of whole lines, each with a CRC: what one damaged byte can cost."""
        start = 0
        while len(self._waiting) - start >= MEMBER_BYTES:
            end = self._waiting.index(b"\n", start + MEMBER_BYTES - 1) + 1
            self._out.file.write(zlib.compress(self._waiting[start:end], wbits=_GZIP))
            start = end
        self._waiting = self._waiting[start:]


def _bytes_of(lines: Array) -> memoryview:
    """The text of a fresh (never sliced) array of strings, one string after the other."""
    ends, data = lines.buffers()[1:]
    return memoryview(data)[: memoryview(ends).cast("i")[len(lines)]]


def open_reader(path: str, options: ConvertOptions, schemas: Schemas) -> JsonlReader:
    """The rows of ``path``. Raises SourceError."""
    return JsonlReader(path, schemas.get(path), options.salvage)


def open_writer(options: ConvertOptions, reader: Reader) -> JsonlWriter:
    """A writer for rows like those of ``reader``. Raises OutputError, OSError."""
    return JsonlWriter(options.destination, reader.schema, reader.settings)
