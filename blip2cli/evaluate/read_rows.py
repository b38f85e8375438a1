"""Rows and tables, read in batches: what runs write, what ``convert`` reads, results in JSON.

Several files are one table. Only the columns that are asked for become Python values.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

import pyarrow as pa

from blip2cli.convert.base import Reader, SchemaWidened
from blip2cli.convert.concat import expand_sources
from blip2cli.convert.detect_format import read_format
from blip2cli.errors import SourceError, option
from blip2cli.options import ConvertOptions
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings import Settings
from blip2cli.sources.json_elements import json_elements
from blip2cli.storage.opening import is_remote
from blip2cli.storage.text_encoding import deep_from_utf8

Columns = Mapping[str, list[Any]]  # values by column; lists of one length
_JSON_ROWS = 16384


@dataclass(frozen=True)
class Table:
    """Rows of one or several files, in order. ``field`` is the option that names them."""

    field: str
    paths: tuple[str, ...]

    @classmethod
    def of(cls, field: str, texts: Sequence[str]) -> Table:
        """The table that files and patterns mean. Raises SourceError for what is not there."""
        with _blaming(field):
            paths, _ = expand_sources(texts)
        for path in paths:
            if is_remote(path):
                raise SourceError(field, f"{path!r} is on another machine", "copy it here first")
            if not os.path.exists(path):
                raise SourceError(field, f"There is no file or folder {path!r}", "check the path")
        return cls(field, tuple(paths))

    def __str__(self) -> str:
        return self.paths[0] if len(self.paths) == 1 else f"{self.paths[0]} and others"

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns of all files. Raises SourceError."""
        return tuple(dict.fromkeys(name for schema in self._schemas for name in schema.names))

    @cached_property
    def settings(self) -> Settings | None:
        """What the first file says of its making, if it is an output of a run."""
        with _blaming(self.field):
            return None if _is_json(self.paths[0]) else self._open(self.paths[0], {}).settings

    @property
    def failures(self) -> tuple[str, ...]:
        """The lists of failed images beside the files."""
        beside = (OutputPaths.of(path).errors for path in self.paths)
        return tuple(path for path in beside if os.path.isfile(path))

    def batches(self, wanted: Sequence[str]) -> Iterator[tuple[int, Columns]]:
        """Yield batches of rows: their number, and of the ``wanted`` columns the values.

        A column that a file does not have is null there. Raises SourceError.
        """
        with _blaming(self.field):
            for path in self.paths:
                if _is_json(path):
                    yield from _json_batches(path, wanted)
                else:
                    yield from self._arrow_batches(path, wanted)

    def arrow_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows as Arrow batches. Raises SourceError."""
        with _blaming(self.field):
            for path in self.paths:
                yield from self._widening(path)

    @cached_property
    def _schemas(self) -> list[pa.Schema]:
        with _blaming(self.field):
            return [
                pa.schema([(name, pa.null()) for name in _json_columns(path)])
                if _is_json(path)
                else self._open(path, {}).schema
                for path in self.paths
            ]

    def _open(self, path: str, schemas: Mapping[str, pa.Schema]) -> Reader:
        one = read_format(path, None)
        options = replace(ConvertOptions((path,)), read_as=one.name)
        reader: Reader = one.load("open_reader")(path, options, schemas)
        return reader

    def _widening(self, path: str) -> Iterator[pa.RecordBatch]:
        """The rows; where a later one needs a wider schema, those behind the ones that are done."""
        schemas: dict[str, pa.Schema] = {}
        done = 0
        while True:
            passed = 0
            try:
                for batch in self._open(path, schemas).batches():
                    new = batch.slice(max(0, done - passed))
                    passed += batch.num_rows
                    if new.num_rows:
                        done += new.num_rows
                        yield new
                return
            except SchemaWidened as wider:
                schemas[wider.path] = wider.schema

    def _arrow_batches(self, path: str, wanted: Sequence[str]) -> Iterator[tuple[int, Columns]]:
        for batch in self._widening(path):
            yield (
                batch.num_rows,
                {
                    name: deep_from_utf8(batch.column(name).to_pylist())
                    if name in batch.schema.names
                    else [None] * batch.num_rows
                    for name in wanted
                },
            )


def _is_json(path: str) -> bool:
    return path.lower().endswith((".json", ".json.gz")) and os.path.isfile(path)


def _json_rows(path: str) -> Iterator[dict[str, Any]]:
    for name, row in json_elements("rows", path):
        if name in ("images", "annotations", "questions"):
            raise SourceError(
                "rows",
                f"{path!r} holds annotations, which are references, and not results",
                f"the rows come first, and the references behind {option('against')}",
            )
        if name or not isinstance(row, dict):
            raise SourceError("rows", f"{path!r} is no list of results", "give a list of objects")
        yield row


def _json_columns(path: str) -> list[str]:
    return list(dict.fromkeys(name for row in _json_rows(path) for name in row))


def _json_batches(path: str, wanted: Sequence[str]) -> Iterator[tuple[int, Columns]]:
    rows = _json_rows(path)
    while some := list(islice(rows, _JSON_ROWS)):
        yield len(some), {name: [row.get(name) for row in some] for name in wanted}


@contextmanager
def _blaming(field: str) -> Iterator[None]:
    """Blame the option ``field`` for what readers of conversions blame their source for."""
    try:
        yield
    except SourceError as error:
        raise SourceError(field, error.problem, error.remedy) from None
