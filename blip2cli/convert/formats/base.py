"""What formats have in common: readers give Arrow record batches, writers take them.

Within a conversion text is as ``storage.text_encoding`` stores it where UTF-8 is demanded: lone
surrogates (bytes of file names that are not UTF-8) are the six characters ``\\udcXX``. Writers
of formats that can hold the text itself turn it back with ``from_utf8``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from blip2cli.errors import SourceError
from blip2cli.sinks.settings import Settings

# Rows handed on together: enough to make the cost of a call small, little enough for memory.
BATCH_ROWS = 16384
BATCH_BYTES = 16 << 20


class Reader(Protocol):
    """The rows of one source."""

    path: str
    schema: pa.Schema
    settings: Settings | None  # what shaped the rows, where the file says so
    size: int  # bytes to be read, for the progress bar

    @property
    def notes(self) -> list[str]:
        """What the user has to know, once all was read."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield all rows in order, in the types of ``schema``; may be called again.

        Raises SourceError for what cannot be read, and Widened for a value that ``schema`` has
        no place for but another schema would.
        """

    def position(self) -> int:
        """How many bytes of ``size`` were read so far."""


class Writer(Protocol):
    """Takes rows and puts the output in place at the end."""

    notes: list[str]  # what the user has to know: rows left out, and why

    def write(self, batch: pa.RecordBatch) -> None:
        """Take rows. Raises UserError for rows the format cannot hold, OSError of the disk."""

    def finish(self) -> None:
        """Make the output appear, complete and lasting. Raises as ``write`` does."""

    def abort(self) -> None:
        """Remove what is temporary. Never raises; after ``finish`` it does nothing."""


# Schemas by path, where the first rows told the wrong one (see ``Widened``).
Told = Mapping[str, pa.Schema]


class Renamed:
    """The rows of another reader, some columns under other names."""

    def __init__(self, below: Reader, names: Mapping[str, str]) -> None:
        self._below = below
        self._names = [names.get(name, name) for name in below.schema.names]
        self.path, self.size, self.settings = below.path, below.size, below.settings
        self.position = below.position
        fields = zip(below.schema, self._names, strict=True)
        self.schema = pa.schema([field.with_name(name) for field, name in fields])

    @property
    def notes(self) -> list[str]:
        return self._below.notes

    def batches(self) -> Iterator[pa.RecordBatch]:
        for batch in self._below.batches():
            yield batch.rename_columns(self._names)


class Widened(Exception):  # noqa: N818 - not an error: the conversion starts anew with it
    """The source needs another schema than its first rows told."""

    def __init__(self, path: str, schema: pa.Schema) -> None:
        super().__init__(path)
        self.path = path
        self.schema = schema


@dataclass
class Examples:
    """Counts something, and remembers the first few."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, name: object) -> None:
        self.count += 1
        if len(self.first) < 3:
            self.first.append(str(name))

    def __str__(self) -> str:
        """``a, b and 5 more``."""
        return listed(self.first, self.count)


def listed(names: Sequence[object], count: int | None = None) -> str:
    """The first three names, and how many more there are."""
    shown = [str(name) for name in names[:3]]
    more = (len(names) if count is None else count) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def rows_of(batch: pa.RecordBatch) -> Iterable[dict[str, Any]]:
    """The rows as dictionaries of Python values."""
    return batch.to_pylist()


def pieces(batch: pa.RecordBatch, most_bytes: int = BATCH_BYTES) -> Iterator[pa.RecordBatch]:
    """The batch in slices of about so many bytes at most: what is made of them is larger."""
    per_row = batch.nbytes // max(1, batch.num_rows) + 1
    rows = max(1, most_bytes // per_row)
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def need(schema: pa.Schema, column: str, what: str, mend: str) -> None:
    """Raise SourceError when ``column`` is not there: ``what`` needs it."""
    if column not in schema.names:
        raise SourceError(
            f"The rows have no column {column}, which {what} needs; they have "
            f"{', '.join(schema.names) or 'none'}. {mend}"
        )


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn what goes wrong while ``path`` is read into a SourceError."""
    try:
        yield
    except pa.ArrowException as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SourceError(f"{path!r} is damaged, or not what its suffix says ({first}).") from None
    except OSError as error:
        raise SourceError(f"{path!r} cannot be read: {error.strerror or error}.") from None
