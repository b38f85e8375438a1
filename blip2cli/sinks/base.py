"""Columns, the schema of a row, and the protocol of a writer of rows (a sink)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from blip2cli.errors import RunError

ColumnType = Literal["string", "int", "float", "embedding", "texts", "choices"]
EmbeddingDtype = Literal["float32", "float16"]


@dataclass(frozen=True)
class Column:
    """One column of the output. Every value may be null."""

    name: str
    # "texts": list of {"text": str, "logprob": float}; "choices": list of {"choice": str,
    # "probability": float}; "embedding": `size` numbers (list, array or tensor).
    type: ColumnType
    size: int | None = None  # the dimension of an embedding
    numbers: EmbeddingDtype = "float32"  # the dtype an embedding is stored in


# The fields of the two list types, in order, with their own types.
LIST_FIELDS: dict[str, tuple[tuple[str, Literal["string", "float"]], ...]] = {
    "texts": (("text", "string"), ("logprob", "float")),
    "choices": (("choice", "string"), ("probability", "float")),
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
    if value is None:
        return None
    if column.type == "float":
        return _finite(value)
    if column.type == "embedding":
        numbers = value.tolist() if hasattr(value, "tolist") else value
        if len(numbers) != column.size:
            raise ValueError(f"{column.name} has {len(numbers)} numbers, not {column.size}")
        return [_finite(number) for number in numbers]
    fields = LIST_FIELDS.get(column.type)
    if fields is None:
        return value
    return [
        {name: _finite(item[name]) if kind == "float" else item[name] for name, kind in fields}
        for item in value
    ]


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


class Sink(Protocol):
    """Writer of rows, in order and durably.

    Call ``write`` once a batch: it has a timer of its own for fsync. Call ``commit`` only when the
    rows must be safe now (a signal, the end of the time allowed), not after each batch. End with
    ``close`` or ``abort``. All but ``abort`` raise RunError when the disk is full or failing, after
    which nothing more is written; a closed pipe raises BrokenPipeError.
    """

    def write(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Write the rows of a batch; keys as in the schema."""

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

    def check(self) -> None:
        """Raise RunError after a failed write."""
        if self.failed:
            raise RunError(None, f"Writing {self._path!r} failed before", "nothing was added")

    @contextmanager
    def errors(self) -> Iterator[None]:
        """As ``disk_errors``; whatever is raised counts as a failed write."""
        try:
            with disk_errors(self._path, self._safe()):
                yield
        except BaseException:
            self.failed = True
            raise


@contextmanager
def disk_errors(path: str, safe: str) -> Iterator[None]:
    """Turn a failed write into a RunError that names the file and the cause; ``safe`` says which
    rows are on disk."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(None, f"Writing {path!r} failed ({reason})", safe) from error
