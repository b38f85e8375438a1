"""Rows of delimited tables (``.csv``, ``.tsv``), read one by one; a bad row costs one row.

A table whose header has one column by the delimiter of its suffix, and several by a semicolon, a
tab, a comma or a vertical bar, is read by that one: so spreadsheets save them in many countries.
Blank lines before it, and the line ``sep=;`` that some put first, are passed over.
"""

from __future__ import annotations

import csv
import io
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from blip2cli.sources.records import (
    MAX_LINE_BYTES,
    BadRow,
    LineReader,
    Record,
    broken,
    open_text,
)

MAX_ROW_LINES = 1000  # that the quoted cells of one row may span
_DELIMITERS = ",;\t|"
csv.field_size_limit(max(MAX_LINE_BYTES, csv.field_size_limit()))
_SEPARATOR_LINE = re.compile(rb'sep=([^\r\n"\w ])\r?\n?\Z')


@dataclass(frozen=True)
class Dialect:
    """How a table is written."""

    delimiter: str
    skipped: int  # lines before the header
    columns: tuple[str, ...]


def csv_dialect(location: str, delimiter: str) -> Dialect:
    """How the table at ``location`` is written; ``delimiter`` is that of its suffix.

    No columns for an empty file. Raises SourceError for a header that cannot be read.
    """
    with open_text(location) as file:
        reader = LineReader(file)
        skipped, line = 0, reader.next()
        while isinstance(line, bytes) and line and not line.strip():
            skipped, line = skipped + 1, reader.next()
        if isinstance(line, bytes) and (found := _SEPARATOR_LINE.match(line)):
            delimiter, skipped = found[1].decode("latin-1"), skipped + 1
        elif isinstance(line, bytes):
            delimiter = _sniffed(line.decode("utf-8", "surrogateescape"), delimiter)
    number, header = next(_rows(location, delimiter, skipped), (1, []))
    if isinstance(header, BadRow):
        raise broken(location, number, header.problem, header.remedy)
    while header and not header[-1].strip():  # columns that a spreadsheet left empty
        header.pop()
    for name in header:
        if header.count(name) > 1:
            raise broken(location, number, f"two columns are called {name!r}")
    return Dialect(delimiter, skipped, tuple(header))


def csv_records(
    location: str, dialect: Dialect, row_lines: int = MAX_ROW_LINES
) -> Iterator[Record]:
    """The rows below the header; quoted cells may hold newlines, a row at most ``row_lines``.
    Rows of empty cells are passed over, as blank lines are."""
    columns = dialect.columns
    rows = _rows(location, dialect.delimiter, dialect.skipped, row_lines)
    next(rows, None)  # the header
    for number, cells in rows:
        if isinstance(cells, BadRow):
            yield number, cells
            continue
        if not any(cells):
            continue
        if not any(cells[len(columns) :]):
            del cells[len(columns) :]
        if len(cells) == len(columns):
            yield number, dict(zip(columns, cells, strict=True))
        else:
            problem = f"{len(cells)} cells for {len(columns)} columns"
            yield number, BadRow(problem, "put text that holds a separator in double quotes")


class _Lines:
    """Lines for ``csv.reader``; those of a row that failed are read again, from its second on."""

    def __init__(self, reader: LineReader, row_lines: int) -> None:
        self._reader = reader
        self._row_lines = row_lines
        self._waiting: deque[str | BadRow] = deque()
        self._row: list[str] = []
        self._size = 0

    def __iter__(self) -> Iterator[str]:
        while line := self._waiting.popleft() if self._waiting else self._next():
            if isinstance(line, BadRow) or self._size + len(line) > MAX_LINE_BYTES:
                if self._row:
                    self._waiting.appendleft(line)
                raise csv.Error(line.problem if isinstance(line, BadRow) else "over 16 MiB")
            if len(self._row) == self._row_lines:
                self._waiting.appendleft(line)
                raise csv.Error(f"a quoted cell of over {self._row_lines} lines")
            self._row.append(line)
            self._size += len(line)
            yield line

    def end_row(self, failed: bool = False) -> int:
        """Begin a new row; returns the number of lines of the last one."""
        count = 1 if failed else len(self._row)
        if failed:
            self._waiting.extendleft(reversed(self._row[1:]))
        self._row.clear()
        self._size = 0
        return count

    def _next(self) -> str | BadRow:
        line = self._reader.next()
        if isinstance(line, BadRow):
            return line
        text = line.decode("utf-8", "surrogateescape")
        if "\r" not in text[:-2]:
            return text
        first, *others = io.StringIO(text, newline="")  # lines that end in a carriage return
        self._waiting.extend(others)
        return first


def _rows(
    location: str, delimiter: str, skipped: int, row_lines: int = MAX_ROW_LINES
) -> Iterator[tuple[int, list[str] | BadRow]]:
    with open_text(location) as file:
        reader = LineReader(file)
        number = 1
        for _ in range(skipped):
            reader.next()
            number += 1
        lines = _Lines(reader, row_lines)
        rows = csv.reader(iter(lines), delimiter=delimiter, strict=True)
        while True:
            try:
                cells = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                problem = str(error).replace(
                    "unexpected end of data", "a quote that is never closed"
                )
                yield number, BadRow(problem)
                number += lines.end_row(failed=True)
                rows = csv.reader(iter(lines), delimiter=delimiter, strict=True)
                continue
            if cells:
                yield number, cells
            number += lines.end_row()


def _sniffed(line: str, delimiter: str) -> str:
    header = line.lstrip("\r").partition("\r")[0]
    found = {d: len(next(csv.reader([header], delimiter=d), ())) for d in delimiter + _DELIMITERS}
    return delimiter if found[delimiter] > 1 else max(found, key=lambda d: found[d])
