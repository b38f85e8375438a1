"""Protocols of formats: readers yield Arrow record batches, writers take them.

Within a conversion text is as ``storage.text_encoding`` stores it where UTF-8 is demanded: lone
surrogates (bytes of file names that are not UTF-8) are the six characters ``\\udcXX``. Writers
of formats that can hold the text itself decode it with ``from_utf8``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import pyarrow as pa

from blip2cli.errors import SourceError, option
from blip2cli.sinks.settings import Settings

# Limits of a batch: large enough to make the cost of a call small, small enough for memory.
BATCH_ROWS = 16384
BATCH_BYTES = 16 << 20


class Reader(Protocol):
    """The rows of one source."""

    path: str
    schema: pa.Schema
    settings: Settings | None  # what shaped the rows, if the file has it
    size: int  # bytes to be read, for the progress bar

    @property
    def notes(self) -> list[str]:
        """Sentences for the user, once all was read."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield all rows in order, in the types of ``schema``; may be called again.

        Raises SourceError for what cannot be read, and SchemaWidened for a value that does not fit
        ``schema`` but would fit a wider one.
        """

    def position(self) -> int:
        """The bytes of ``size`` that were read so far."""


class Writer(Protocol):
    """Writer of one output, which appears at the end."""

    notes: list[str]  # sentences for the user: rows left out, and why

    def write(self, batch: pa.RecordBatch) -> None:
        """Take rows. Raises UserError for rows the format cannot hold, OSError of the disk."""

    def finish(self) -> None:
        """Put the complete output in its place, durably. Raises as ``write`` does."""

    def abort(self) -> None:
        """Remove temporary files. Never raises; after ``finish`` it does nothing."""


# Schemas by path, where that of the first rows is too narrow (see ``SchemaWidened``).
Schemas = Mapping[str, pa.Schema]


class RenamedColumns:
    """The rows of another reader, with other names of some columns."""

    def __init__(self, reader: Reader, names: Mapping[str, str]) -> None:
        self._reader = reader
        self._names = [names.get(name, name) for name in reader.schema.names]
        self.path, self.size, self.settings = reader.path, reader.size, reader.settings
        self.position = reader.position
        fields = zip(reader.schema, self._names, strict=True)
        self.schema = pa.schema([field.with_name(name) for field, name in fields])

    @property
    def notes(self) -> list[str]:
        return self._reader.notes

    def batches(self) -> Iterator[pa.RecordBatch]:
        for batch in self._reader.batches():
            yield batch.rename_columns(self._names)


class SchemaWidened(Exception):  # noqa: N818 - not an error: the conversion starts again with it
    """The source needs a wider schema than that of its first rows."""

    def __init__(self, path: str, schema: pa.Schema) -> None:
        super().__init__(path)
        self.path = path
        self.schema = schema


def slices(batch: pa.RecordBatch, most_bytes: int = BATCH_BYTES) -> Iterator[pa.RecordBatch]:
    """The batch in slices of about ``most_bytes`` at most, as what is made of them is larger."""
    per_row = batch.nbytes // max(1, batch.num_rows) + 1
    rows = max(1, most_bytes // per_row)
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def require_column(schema: pa.Schema, column: str, what: str, remedy: str) -> None:
    """Raise SourceError when ``column``, which ``what`` needs, is missing."""
    if column not in schema.names:
        raise SourceError(
            "sources",
            f"The rows have no column {column}, which {what} needs; they have "
            f"{', '.join(schema.names) or 'none'}",
            remedy,
        )


@contextmanager
def read_errors(path: str) -> Iterator[None]:
    """Turn errors of Arrow and of the disk while ``path`` is read into a SourceError."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            problem = f"{path!r} cannot be read: {error.strerror}"
            raise SourceError("sources", problem) from None
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, pa.ArrowNotImplementedError):  # such as integers of 128 bits
            problem = f"{path!r} holds what Arrow does not read ({first})"
            raise SourceError("sources", problem, "write it with another type") from None
        raise SourceError(
            "sources",
            f"{path!r} is damaged, or not what its suffix says ({first})",
            f"'blip2cli verify' says what is sound in it, and {option('salvage')} keeps that",
        ) from None


@contextmanager
def errors_at(where: str) -> Iterator[None]:
    """Put ``where`` before the problem of a SourceError."""
    try:
        yield
    except SourceError as error:
        raise SourceError("sources", f"{where}: {error.problem}", error.remedy) from None
