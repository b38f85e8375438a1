"""Concatenation of several sources: their rows in order, duplicates, and gaps in a series."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence

import pyarrow as pa

from blip2cli.convert.base import Reader, errors_at
from blip2cli.convert.column_types import SameCommand, conform, resolve_nulls, union_schema
from blip2cli.convert.examples import Examples, listed
from blip2cli.errors import SourceError
from blip2cli.sinks.settings import common_settings
from blip2cli.sources.patterns import has_magic
from blip2cli.storage.hash_set import OCCURRENCE, HashSet
from blip2cli.storage.text_encoding import from_utf8

_FAILURE = ["file_name", "error_type", "message"]  # how lists of failures begin
_NUMBER = re.compile(r"\d+")


class ConcatenatedReader:
    """The rows of several readers, in order, with the columns of all."""

    def __init__(self, readers: Sequence[Reader]) -> None:
        """Raises SourceError for rows of different commands, or types that clash."""
        self._readers = readers
        self._done = 0
        self._current: Reader | None = None
        self.path = readers[0].path
        self.size = sum(reader.size for reader in readers)
        schema, command = pa.schema([]), SameCommand()
        for reader in readers:
            names = reader.schema.names
            if names[: len(_FAILURE)] == _FAILURE:
                raise SourceError(
                    "sources",
                    f"{reader.path!r} is a list of images that failed, not of rows",
                    "leave it out of the pattern",
                )
            command.check(names, repr(reader.path))
            with errors_at(repr(reader.path)):
                schema = union_schema(schema, reader.schema)
        self.schema = resolve_nulls(schema)
        self.settings = common_settings([reader.settings for reader in readers])

    @property
    def notes(self) -> list[str]:
        """Those of all readers, each once."""
        notes = dict.fromkeys(note for reader in self._readers for note in reader.notes)
        if self.settings is None and any(reader.settings for reader in self._readers):
            notes["The files were made with different settings; none are kept."] = None
        return list(notes)

    def position(self) -> int:
        return self._done + (self._current.position() if self._current is not None else 0)

    def batches(self) -> Iterator[pa.RecordBatch]:
        self._done, self._current = 0, None
        for reader in self._readers:
            self._current = reader
            for batch in reader.batches():
                yield conform(batch, self.schema)
            self._done += reader.size
            self._current = None


class Duplicates:
    """Counts rows with the file name, and the question id, of an earlier row."""

    def __init__(self, schema: pa.Schema) -> None:
        identifying = ("file_name", OCCURRENCE, "question_id")
        self._columns = [name for name in identifying if name in schema.names]
        self._seen = HashSet()
        self.found = Examples()

    def add(self, batch: pa.RecordBatch) -> None:
        """Look at the rows of ``batch``."""
        if "file_name" not in self._columns:
            return
        columns = [batch.column(name).to_pylist() for name in self._columns]
        for key in zip(*columns, strict=True):
            if not self._seen.add("\0".join(map(str, key))):
                self.found.add(from_utf8(str(key[0])))

    def __str__(self) -> str:
        count = self.found.count
        return (
            f"{count} row{'s repeat rows' if count > 1 else ' repeats a row'} before, with the "
            f"same {' and '.join(self._columns)}: {self.found}."
        )


def expand_sources(texts: Sequence[str]) -> tuple[list[str], bool]:
    """The files, or folders, that the sources as typed mean, and whether there are several.

    Matches of a pattern come in the order of the numbers in their names (``part-2`` before
    ``part-10``). Raises SourceError for a pattern without a match.
    """
    found: list[str] = []
    for text in texts:
        if has_magic(text) and not os.path.lexists(text):
            kind = os.path.isdir if text.endswith("/") else os.path.isfile
            every = {path for path in glob.glob(text, recursive=True) if kind(path)}
            # The list of failures of another match is no output by itself.
            lists = {f"{path}.errors" for path in every}
            matches = every - lists
            if not matches:
                what = "folder" if text.endswith("/") else "file"
                raise SourceError("sources", f"No {what} matches the pattern {text!r}", "check it")
            found += sorted(matches, key=natural_key)
        else:
            found.append(text)
    return found, len(found) > 1


def natural_key(path: str) -> list[tuple[bool, int, str]]:
    """A key that sorts numbers in names by their value."""
    pieces = filter(None, re.split(r"(\d+)", path))
    return [(p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in pieces]


def gaps(paths: Sequence[str]) -> str | None:
    """The numbers that are missing in the names of shards, as a sentence; None when none is.

    Names are a series when they differ in one number only.
    """
    shapes = [_NUMBER.split(path) for path in paths]
    if len(paths) < 2 or any(shape != shapes[0] for shape in shapes):
        return None
    numbers = [[int(n) for n in _NUMBER.findall(path)] for path in paths]
    varying = [i for i in range(len(numbers[0])) if len({row[i] for row in numbers}) > 1]
    if len(varying) != 1:
        return None
    (index,) = varying
    found = sorted({row[index] for row in numbers})
    if found[-1] - found[0] > 100 * len(found):  # dates or sizes, not a series
        return None
    missing = sorted(set(range(found[0], found[-1])) - set(found))
    if not missing:
        return None
    number = list(_NUMBER.finditer(paths[0]))[index]
    width = len(number[0]) if number[0].startswith("0") else 0
    names = [
        paths[0][: number.start()] + str(n).zfill(width) + paths[0][number.end() :]
        for n in missing[:3]
    ]
    return f"The series of files has gaps: {listed(names, len(missing))}."
