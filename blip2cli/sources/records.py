"""The rows of text manifests, read one by one: ``.txt``, ``.csv``, ``.tsv`` and ``.jsonl``.

Text is UTF-8, with or without a byte order mark; bytes that are not UTF-8 are held as lone
surrogates, as in all file names. Every reader yields the number of a row's first line, counted
from 1, and the row. They raise SourceError that names the file and the line, and OSError.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, BinaryIO

from blip2cli.errors import SourceError
from blip2cli.storage.opening import open_binary

Record = tuple[int, Mapping[str, object]]

MAX_LINE_BYTES = 1 << 26  # a longer line is no line of a table, and would fill the memory
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def text_records(location: str) -> Iterator[Record]:
    """A list of paths, one a line, taken as they come: the column is called ``file_name``.

    Lines may end in CR LF; empty ones are passed over.
    """
    for number, line in _lines(location):
        if "\0" in line:
            raise broken(
                location, number, "it holds a NUL byte", "a .txt manifest has a path a line"
            )
        if line:
            yield number, {"file_name": line}


def json_records(location: str) -> Iterator[Record]:
    """JSON Lines: an object a line; empty lines are passed over."""
    for number, line in _lines(location):
        if not line.strip():
            continue
        try:
            value = json_object(line)
        except ValueError as error:
            raise broken(location, number, str(error)) from None
        yield number, value


def json_object(line: str) -> dict[str, Any]:
    """The object in a line of JSON Lines. Raises ValueError that says what is wrong with it."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # a number of too many digits, deep nesting
        raise ValueError(f"not to be read as JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, found {line.strip()[:40]}")
    return value


def csv_records(location: str, delimiter: str) -> Iterator[Record]:
    """A table whose first line names the columns; quoted fields may hold newlines."""
    rows = _csv_rows(location, delimiter)
    first, columns = next(rows, (1, []))
    for name in columns:
        if columns.count(name) > 1:
            raise broken(location, first, f"two columns are called {name!r}")
    for number, cells in rows:
        if len(cells) != len(columns):
            raise broken(
                location,
                number,
                f"{len(cells)} cells for {len(columns)} columns",
                "put text that holds a separator in double quotes",
            )
        yield number, dict(zip(columns, cells, strict=True))


def csv_columns(location: str, delimiter: str) -> list[str]:
    """The columns a table's first line names; empty for an empty file."""
    return next(_csv_rows(location, delimiter), (1, []))[1]


def _csv_rows(location: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    before = 0  # the last line of the row before: an error is in the one that follows
    with closing(open_binary(location)) as file:
        _check_start(location, file)
        text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        try:
            for cells in reader:
                number, before = before + 1, reader.line_num
                if cells:
                    yield number, cells
        except csv.Error as error:
            raise broken(location, before + 1, str(error)) from None


def broken(location: str, line: int, what: str, remedy: str = "") -> SourceError:
    """The error for a line that cannot be read."""
    return SourceError(None, f"{location!r}, line {line}: {what}", remedy)


def _lines(location: str) -> Iterator[tuple[int, str]]:
    with closing(open_binary(location)) as file:
        _check_start(location, file)
        number = 0
        while line := file.readline(MAX_LINE_BYTES):
            number += 1
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if len(line) >= MAX_LINE_BYTES:
                raise broken(location, number, f"it is over {MAX_LINE_BYTES} bytes long")
            line = line.removesuffix(b"\n").removesuffix(b"\r")
            yield number, line.decode("utf-8", "surrogateescape")


def _check_start(location: str, file: BinaryIO) -> None:
    if file.read(2) in _UTF16:
        raise SourceError(None, f"The manifest {location!r} is UTF-16 text", "save it as UTF-8")
    file.seek(0)
