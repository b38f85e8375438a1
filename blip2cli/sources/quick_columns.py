"""The columns of a table, found quickly: for a shell that completes their names.

Only the beginning of a local text file is read; for Parquet files pyarrow is imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice

from blip2cli.sources.csv_rows import csv_dialect
from blip2cli.sources.json_rows import element_records
from blip2cli.sources.records import BadRow, Record, json_records, unpacked_suffix

_ROWS = 10  # objects that tell which columns there are
_MOST_JSON = 8 << 20  # bytes of a JSON file; what its list begins with may be at its end
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_OBJECTS: dict[str, Callable[[str], Iterator[Record]]] = {
    ".json": element_records,
    ".jsonl": json_records,
    ".errors": json_records,
}


def quick_columns(path: str) -> list[str]:
    """The columns of a CSV, JSON Lines, JSON or Parquet file, or of a folder of the latter.

    None of anything else. Raises OSError, ValueError, SourceError for a file that cannot be read.
    """
    if os.path.isdir(path):
        with os.scandir(path) as entries:
            part = next((e.path for e in entries if e.name.endswith(".parquet")), None)
        return _parquet_columns(part) if part is not None else []
    if not os.path.isfile(path):
        return []
    suffix = unpacked_suffix(path)
    if suffix == ".parquet":
        return _parquet_columns(path)
    if suffix in _DELIMITERS:
        return [*csv_dialect(path, _DELIMITERS[suffix]).columns]
    if suffix not in _OBJECTS or (suffix == ".json" and os.path.getsize(path) > _MOST_JSON):
        return []
    rows = (row for _, row in islice(_OBJECTS[suffix](path), _ROWS))
    return [*dict.fromkeys(name for row in rows if not isinstance(row, BadRow) for name in row)]


def _parquet_columns(path: str) -> list[str]:
    from pyarrow.parquet import read_schema

    names: list[str] = read_schema(path).names
    return names
