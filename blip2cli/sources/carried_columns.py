"""Columns of a source that are carried into the rows (option ``keep``): types and values.

A value that the output has no type for (a list, an object, true and false, a date) is carried as
a string, JSON where it has a form in JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from blip2cli.errors import OptionError, SourceError, option
from blip2cli.sources.base import ImageRef, Source

ColumnType = Literal["string", "int", "float"]

SAMPLED_ROWS = 1000  # rows that types are inferred from where a format does not state them
_INT64 = range(-(1 << 63), 1 << 63)


@dataclass(frozen=True)
class CarriedColumn:
    """One column that is carried into the rows; every value may be null."""

    name: str
    type: ColumnType


@dataclass(frozen=True)
class ColumnedSource(Source):
    """A source whose images have columns; ``columns`` are those carried into the rows."""

    columns: tuple[CarriedColumn, ...] = field(default=(), kw_only=True)

    def carried_columns(self) -> tuple[CarriedColumn, ...]:
        """The carried columns in the order of the option. Raises OptionError for a missing one."""
        return self.columns


def columns_of(sources: Sequence[Source], keep: tuple[str, ...]) -> tuple[CarriedColumn, ...]:
    """The columns named ``keep``, with types that hold the values of all ``sources``.

    Raises OptionError for a column twice, one that is not there, or a source without columns.
    """
    if not keep:
        return ()
    for name in keep:
        if keep.count(name) > 1:
            raise OptionError("keep", f"{option('keep')} {name} is given twice", "give it once")
    found: list[tuple[CarriedColumn, ...]] = []
    for source in sources:
        if not isinstance(source, ColumnedSource):
            raise no_columns(source.text, keep[0])
        found.append(source.carried_columns())
    return tuple(
        CarriedColumn(name, _common(columns[i].type for columns in found))
        for i, name in enumerate(keep)
    )


def no_columns(source: str, name: str) -> OptionError:
    """The error for a source that is no table."""
    return OptionError(
        "keep",
        f"{option('keep')} {name}: the source {source!r} has no columns",
        "only manifests, Parquet tables and tar shards have. Leave it out, or run this source "
        "apart",
    )


def missing_column(what: str, name: str, columns: Iterable[str], hint: str = "") -> OptionError:
    """The error for a column that ``what``, which has ``columns``, does not have."""
    names = ", ".join(columns)
    problem = f"{option('keep')} {name}: {what} has no such column"
    if not names:
        return OptionError("keep", f"{problem}, nor any other", hint)
    return OptionError("keep", problem, f"it has {names}")


def infer_columns(
    rows: Iterable[Mapping[str, object]], keep: Sequence[str]
) -> tuple[CarriedColumn, ...]:
    """The columns ``keep``, types inferred from ``rows``; "string" where all are null."""
    seen: list[set[ColumnType]] = [set() for _ in keep]
    for row in rows:
        for types, name in zip(seen, keep, strict=True):
            if (value := row.get(name)) is not None:
                types.add(_type_of(value))
    return tuple(
        CarriedColumn(name, _common(types)) for name, types in zip(keep, seen, strict=True)
    )


def fitted(ref: ImageRef, columns: Sequence[CarriedColumn]) -> ImageRef:
    """``ref`` with its values in the types of ``columns``.

    Raises SourceError for a value that does not fit the type inferred from the first rows.
    """
    carried = tuple(_fit(ref, v, column) for v, column in zip(ref.carried, columns, strict=True))
    return ref if carried == ref.carried else replace(ref, carried=carried)


def _fit(ref: ImageRef, value: object, column: CarriedColumn) -> object:
    if value is None:
        return None
    if column.type == "string":
        return value if isinstance(value, str) else _as_json(value)
    kind = _type_of(value)
    if kind == column.type:
        return value
    if column.type == "float" and kind == "int":
        return float(value)  # type: ignore[arg-type]
    number = "whole numbers" if column.type == "int" else "numbers"
    raise SourceError(
        "keep",
        f"{option('keep')} {column.name}: {ref.file_name!r} has {_as_json(value)[:40]} there, "
        f"while the first rows have {number}",
        "write all its values in the same way",
    )


def _type_of(value: object) -> ColumnType:
    if isinstance(value, int) and not isinstance(value, bool) and value in _INT64:
        return "int"
    return "float" if isinstance(value, float) else "string"


def _common(types: Iterable[ColumnType]) -> ColumnType:
    kinds = set(types)
    if len(kinds) == 1:
        return kinds.pop()
    return "float" if kinds == {"int", "float"} else "string"


def _as_json(value: object) -> str:
    if isinstance(value, str | bool | int | float | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)  # dates and decimals of Parquet
