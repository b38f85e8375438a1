"""What every writer of rows has in common: columns, the schema of a row, the sink protocol."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from blip2cli.errors import ImageError, RunError

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
    numbers: EmbeddingDtype = "float32"  # what its numbers are stored as


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
    and ``error`` when failed images are kept inline."""

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

    def failed(self, file_name: str, error: ImageError) -> dict[str, Any]:
        """The inline row of an image that failed: its name, why, and null for all else."""
        row: dict[str, Any] = dict.fromkeys(column.name for column in self.columns)
        row["file_name"] = file_name
        row["error"] = f"{error.error_type}: {error}"
        return row


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
    """Takes rows in order and makes them last.

    Call ``write`` once a batch: it keeps its own timer for what is costly. Call ``commit`` only
    when the rows must be safe now (a signal, the end of the time allowed), not after each batch.
    End with ``close`` or ``abort``. All but ``abort`` raise RunError when the disk is full or
    failing, after which nothing more is written; a reader that went away raises BrokenPipeError.
    """

    def write(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Take the rows of a batch; keys as in the schema."""

    def commit(self) -> None:
        """Return when all rows so far would survive a power cut."""

    def close(self) -> None:
        """Commit, and complete the output."""

    def abort(self) -> None:
        """Keep what is committed, remove what is temporary. Never raises."""


@contextmanager
def disk_errors(path: str, safe: str) -> Iterator[None]:
    """Turn a failed write into a RunError that names the file, the cause and what is ``safe``."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(f"Writing {path!r} failed ({reason}); {safe}.") from error
