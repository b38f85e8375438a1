"""Columns, the schema of a row, and the protocol of a writer of rows (a sink)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from blip2cli.errors import RunError

ColumnType = Literal["string", "int", "float", "embedding", "texts", "ranked", "choices", "scores"]
EmbeddingDtype = Literal["float32", "float16"]


@dataclass(frozen=True)
class Column:
    """One column of the output. Every value may be null."""

    name: str
    # Those of ``LIST_FIELDS`` are lists of dictionaries; "embedding": `size` numbers (list, array
    # or tensor).
    type: ColumnType
    size: int | None = None  # the dimension of an embedding
    numbers: EmbeddingDtype = "float32"  # the dtype an embedding is stored in


# The fields of the list types, in order.
LIST_FIELDS = {
    "texts": (Column("text", "string"), Column("logprob", "float")),
    "ranked": (Column("text", "string"), Column("logprob", "float"), Column("match", "float")),
    "choices": (Column("choice", "string"), Column("probability", "float")),
    "scores": (
        Column("choice", "string"),
        Column("logprob", "float"),
        Column("tokens", "int"),
        Column("blank_logprob", "float"),
    ),
}

IDENTITY = (Column("file_name", "string"), Column("width", "int"), Column("height", "int"))
_ERROR = Column("error", "string")


@dataclass(frozen=True)
class RowSchema:
    """All columns of a file in order: file_name, width, height (rows of images), the task's own,
    and ``error`` when failed images are rows (the option ``errors`` is ``inline``)."""

    columns: tuple[Column, ...]

    @classmethod
    def of(
        cls,
        columns: Sequence[Column],
        inline_errors: bool,
        identity: Sequence[Column] = IDENTITY,
    ) -> RowSchema:
        """Put the task's columns between the common ones. Raises ValueError on a wrong column.

        ``columns`` may end in the error column already; ``identity`` says what a row is about.
        """
        error = (_ERROR,) if inline_errors and _ERROR not in columns else ()
        every = (*identity, *columns, *error)
        if len({column.name for column in every}) < len(every):
            raise ValueError(f"two columns share a name: {[c.name for c in every]}")
        for column in every:
            if (column.type == "embedding") != (column.size is not None):
                raise ValueError(f"an embedding, and nothing else, has a size: {column}")
        return cls(every)

    def complete(self, row: Mapping[str, object]) -> dict[str, Any]:
        """Return the row with all columns in order and plain Python values.

        Only ``error`` may be missing. Numbers that are not finite become null, because JSON has
        no word for them. Raises ValueError for a key too many or too few, or a wrong dimension.
        """
        unknown = row.keys() - {column.name for column in self.columns}
        missing = {column.name for column in self.columns} - row.keys() - {"error"}
        if unknown or missing:
            raise ValueError(f"the row lacks {sorted(missing)} and has unknown {sorted(unknown)}")
        return {column.name: _plain(column, row.get(column.name)) for column in self.columns}


def _plain(column: Column, value: Any) -> Any:
    if value is None or column.type in ("string", "int"):
        return value
    if column.type == "float":
        number = float(value)
        return number if math.isfinite(number) else None
    if column.type == "embedding":
        numbers = value.tolist() if hasattr(value, "tolist") else value
        if len(numbers) != column.size:
            raise ValueError(f"{column.name} has {len(numbers)} numbers, not {column.size}")
        return [number if math.isfinite(number) else None for number in map(float, numbers)]
    fields = LIST_FIELDS[column.type]
    return [{field.name: _plain(field, item[field.name]) for field in fields} for item in value]


class Sink(Protocol):
    """Writer of rows, in order and durably.

    Call ``write`` once a batch: it has a timer of its own for fsync. Call ``commit`` only when the
    rows must be safe now (a signal, the end of the time allowed), not after each batch. End with
    ``close`` or ``abort``. All but ``abort`` raise RunError when the disk is full or failing, after
    which nothing more is written; a closed pipe raises BrokenPipeError.
    """

    def write(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Write the rows of a batch; keys as in the schema.

        No rows put a new output in place, where none is that would be replaced.
        """

    def commit(self) -> None:
        """Return when all rows so far would survive a power cut."""

    def close(self) -> None:
        """Commit, and complete the output."""

    def abort(self) -> None:
        """Leave what is committed, remove temporary files. Never raises."""


class DiskGuard:
    """Reports failed writes of the file ``path``; after one, nothing more may be written.

    ``safe()`` says which rows are on disk.
    """

    def __init__(self, path: str, safe: Callable[[], str]) -> None:
        self.failed = False
        self._path = path
        self._safe = safe

    @contextmanager
    def errors(self) -> Iterator[None]:
        """As ``disk_errors``; whatever is raised counts as a failed write. Raises RunError at once
        after one."""
        if self.failed:
            raise RunError(None, f"Writing {self._path!r} failed before", "nothing was added")
        try:
            yield
        except BaseException as error:
            self.failed = True
            if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
                raise write_error(self._path, error, self._safe()) from error
            raise


@contextmanager
def disk_errors(path: str, safe: str) -> Iterator[None]:
    """Turn a failed write into a RunError; ``safe`` says which rows are on disk."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise write_error(path, error, safe) from error


def write_error(path: str, error: OSError, safe: str) -> RunError:
    """The error that names the file, the cause, and by ``safe`` what is on disk."""
    return RunError(None, f"Writing {path!r} failed ({error.strerror or error})", safe)
