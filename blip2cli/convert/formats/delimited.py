"""CSV and TSV (csv, tsv): UTF-8, a header, every text in quotes.

* Null is an empty cell, the empty text is ``""``.
* Lists (``candidates``, ``probabilities``, ``choice_scores``, ``embedding``) are JSON text.
* A text that a spreadsheet would take for a formula, because it begins with ``=``, ``+``, ``-``,
  ``@``, a tab or a line end, gets an apostrophe before it; so does one that begins with
  apostrophes before one of these. Reading takes one apostrophe away from such cells, so that
  files written here come back exactly.
* Text that is not UTF-8 (bytes of a file name) is stored as ``storage.text_encoding`` says.

CSV has no types: our own columns are read in their types, all others as text.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.types as kinds

from blip2cli.convert.arrow import Array, pc
from blip2cli.convert.arrow_json import plain_text
from blip2cli.convert.base import Reader, Schemas, read_errors, slices
from blip2cli.convert.column_types import (
    EMBEDDING,
    KNOWN,
    LONGER,
    SameCommand,
    is_number,
    known_type,
)
from blip2cli.convert.files import new_file
from blip2cli.errors import OutputError, SourceError
from blip2cli.options import ConvertOptions
from blip2cli.sinks.row_groups import vector_type
from blip2cli.sinks.settings import Settings
from blip2cli.sources.csv_rows import csv_dialect, csv_records
from blip2cli.sources.records import BadRow, broken
from blip2cli.storage.text_encoding import to_utf8

_FORMULA = r"^('*[=+\-@\t\r\n])"
_GUARDED = r"^'('*[=+\-@\t\r\n])"
_BLOCK_BYTES = 8 << 20


class CsvReader:
    """The rows of one file."""

    def __init__(self, path: str, delimiter: str) -> None:
        """Raises SourceError."""
        self.path = path
        self.settings: Settings | None = None
        self.notes: list[str] = []
        with read_errors(path):
            self.size = os.path.getsize(path)
            self._dialect = csv_dialect(path, delimiter)
        self._raw = list(self._dialect.columns)
        self._checked = False
        stored = pa.array([to_utf8(name) for name in self._raw], pa.string())
        self._names: list[str] = pc.replace_substring_regex(stored, _GUARDED, r"\1").to_pylist()
        for name in self._names:
            if self._names.count(name) > 1:
                problem = f"{path!r} has two columns called {name!r}"
                raise SourceError("sources", problem, "rename one")
        SameCommand().check(self._names, repr(path))
        self._done = 0
        self.schema = pa.schema([(name, KNOWN.get(name, pa.string())) for name in self._names])
        for name in (EMBEDDING, *LONGER):
            if name in self._names:
                self.schema = self._typed_by_value(self._names.index(name))

    def position(self) -> int:
        return self._done

    def batches(self) -> Iterator[pa.RecordBatch]:
        number = 2
        for batch in self._texts():
            columns = []
            for field, column in zip(self.schema, batch.columns, strict=True):
                try:
                    columns.append(_typed(column, field.type))
                except (pa.ArrowException, ValueError, TypeError, RecursionError) as error:
                    raise SourceError(
                        "sources",
                        f"{self.path!r}, rows from {number} on: {field.name} is not what a column "
                        f"of that name holds ({str(error).splitlines()[0]})",
                        "correct or rename it",
                    ) from None
            number += batch.num_rows
            yield from slices(pa.RecordBatch.from_arrays(columns, schema=self.schema))

    def _texts(self) -> Iterator[pa.RecordBatch]:
        """Batches in which every column is text."""
        self._done = 0
        if not self._raw:
            return
        if not self._checked:
            self._check()
        with read_errors(self.path), open(self.path, "rb") as file:
            reader = pcsv.open_csv(
                file,
                read_options=pcsv.ReadOptions(
                    block_size=_BLOCK_BYTES, use_threads=False, skip_rows=self._dialect.skipped
                ),
                parse_options=pcsv.ParseOptions(
                    delimiter=self._dialect.delimiter, newlines_in_values=True
                ),
                convert_options=pcsv.ConvertOptions(
                    check_utf8=False,
                    column_types=dict.fromkeys((to_utf8(name) for name in self._raw), pa.binary()),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                    null_values=[""],
                ),
            )
            for batch in reader:
                self._done = min(self.size, file.tell())
                texts = [_text(column) for column in batch.columns[: len(self._names)]]
                found = reduce(pc.or_, (column.is_valid() for column in texts))
                yield pa.RecordBatch.from_arrays(texts, names=self._names).filter(found)

    def _check(self) -> None:
        """Raise SourceError for a row that is not written as a row of a table: Arrow's reader takes
        a quote that is never closed for a cell of all that follows."""
        with read_errors(self.path):
            for number, row in csv_records(self.path, self._dialect, row_lines=sys.maxsize):
                if isinstance(row, BadRow):
                    raise broken(self.path, number, row.problem, row.remedy)
        self._checked = True

    def _typed_by_value(self, index: int) -> pa.Schema:
        """The schema with the type of one column by its first value: the size of vectors, the
        fields of candidates."""
        name = self._names[index]
        kind = KNOWN.get(name, pa.list_(pa.float32()))
        cells = (cell for batch in self._texts() for cell in pc.drop_null(batch.column(index)))
        try:
            value = next(filter(None, (json.loads(cell.as_py()) for cell in cells)), None)
            if value is not None:
                known = known_type(name, [value])
                kind = vector_type(len(value)) if known is None else known
        except (ValueError, TypeError):
            if name == EMBEDDING:
                problem = f"{self.path!r}: embedding is not a list of numbers in JSON"
                raise SourceError("sources", problem) from None
        return self.schema.set(index, pa.field(name, kind))


def _text(raw: Array) -> Array:
    """Cells as text; bytes that are not UTF-8 escaped, apostrophes before formulas removed."""
    if kinds.is_null(raw.type):
        return pa.nulls(len(raw), pa.string())
    try:
        text = raw.cast(pa.string())
    except pa.ArrowException:
        values = [
            None if cell is None else to_utf8(cell.decode("utf-8", "surrogateescape"))
            for cell in raw.to_pylist()
        ]
        text = pa.array(values, pa.string())
    return pc.replace_substring_regex(text, _GUARDED, r"\1")


def _typed(text: Array, kind: pa.DataType) -> Array:
    if kinds.is_string(kind):
        return text
    text = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
    if not kinds.is_nested(kind):
        return text.cast(kind)
    values: list[Any] = [None if cell is None else json.loads(cell) for cell in text.to_pylist()]
    return pa.array(values, kind)


class CsvWriter:
    """Writes one CSV or TSV file."""

    def __init__(self, path: str, schema: pa.Schema, delimiter: str) -> None:
        """Raises OutputError for columns of bytes, OSError."""
        self.notes: list[str] = []
        try:
            for field in schema:
                _cell(pa.array([], field.type))
        except TypeError as error:
            raise OutputError(
                "destination",
                f"CSV cannot hold these rows ({error})",
                "convert into .parquet instead",
            ) from None
        names = _cell(pa.array(schema.names, pa.string())).to_pylist()
        types = [f.type if _is_plain(f.type) else pa.string() for f in schema]
        self._schema = pa.schema(list(zip(names, types, strict=True)))
        self._out = new_file(path)
        options = pcsv.WriteOptions(delimiter=delimiter, quoting_style="needed")
        self._writer = pcsv.CSVWriter(self._out.file, self._schema, write_options=options)

    def write(self, batch: pa.RecordBatch) -> None:
        for piece in slices(batch, 4 << 20):
            cells = [_cell(column) for column in piece.columns]
            self._writer.write_batch(pa.RecordBatch.from_arrays(cells, schema=self._schema))

    def finish(self) -> None:
        self._writer.close()
        self._out.commit()

    def abort(self) -> None:
        with contextlib.suppress(Exception):  # else it would try to write when it is collected
            self._writer.close()
        self._out.abort()


def _cell(values: Array) -> Array:
    if kinds.is_string(values.type):
        return pc.replace_substring_regex(values, _FORMULA, r"'\1")
    if _is_plain(values.type):
        return values
    return plain_text(values)


def _is_plain(kind: pa.DataType) -> bool:
    return kinds.is_string(kind) or kinds.is_boolean(kind) or is_number(kind)


def open_reader(path: str, options: ConvertOptions, schemas: Schemas) -> CsvReader:
    """The rows of ``path``. Raises SourceError."""
    return CsvReader(path, _delimiter(path, options.read_as))


def open_writer(options: ConvertOptions, reader: Reader) -> CsvWriter:
    """A writer for rows like those of ``reader``. Raises OutputError, OSError."""
    out = options.destination
    return CsvWriter(out, reader.schema, _delimiter(out, options.write_as))


def _delimiter(path: str, kind: str | None) -> str:
    tabs = kind == "tsv" if kind is not None else path.lower().endswith(".tsv")
    return "\t" if tabs else ","
