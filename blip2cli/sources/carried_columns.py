"""Columns of a source that are carried into the rows (option ``keep``): types and values.

A value that the output has no type for (a list, an object, true and false, a date, a whole number
beyond 64 bits) is carried as a string, JSON where it has a form in JSON. "Not a number" is null.

Where a format does not state the types they are those of its first rows. A later value is brought
into that type if nothing is lost by it, else it is the failure of its image (``bad_metadata``).

Several rows of a manifest may be about one image. Where columns are carried from one, the last
column is ``occurrence``, the number of the row among those, which tells them apart in the output
and in the list of failures. It is there whether an image comes twice or not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from blip2cli.errors import OptionError, option
from blip2cli.sources.base import FailedRef, ImageRef, Source
from blip2cli.storage.hash_set import OCCURRENCE, HashSet
from blip2cli.storage.text_encoding import from_utf8

ColumnType = Literal["string", "int", "float"]

SAMPLED_ROWS = 100_000  # rows that types are inferred from where a format does not state them
MAX_VALUE = 1 << 20  # characters of one value; hundreds of images wait with theirs at once
_INT64 = range(-(1 << 63), 1 << 63)


@dataclass(frozen=True)
class CarriedColumn:
    """One column that is carried into the rows; every value may be null."""

    name: str
    type: ColumnType

    def widened(self, other: str | None) -> CarriedColumn:
        """This column with a type that holds values of the type ``other``, too."""
        if other is None or other == self.type:
            return self
        return replace(self, type="float" if {self.type, other} == {"int", "float"} else "string")


ROW_NUMBER = CarriedColumn(OCCURRENCE, "int")


@dataclass(frozen=True)
class ColumnedSource(Source):
    """A source whose images have columns; ``columns`` are those carried into the rows."""

    columns: tuple[CarriedColumn, ...] = field(default=(), kw_only=True)

    def carried_columns(self) -> tuple[CarriedColumn, ...]:
        """The carried columns in the order of the option, and ``ROW_NUMBER`` where several rows
        may be about one image. Raises OptionError for a missing one."""
        return self.columns


def columns_of(sources: Sequence[Source], keep: tuple[str, ...]) -> tuple[CarriedColumn, ...]:
    """The columns named ``keep``, with types that hold the values of all ``sources``, and
    ``ROW_NUMBER`` where one of these has it.

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
    chosen = (
        CarriedColumn(name, _common(columns[i].type for columns in found))
        for i, name in enumerate(keep)
    )
    return (*chosen, *([ROW_NUMBER] if any(ROW_NUMBER in columns for columns in found) else []))


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
            if not _is_null(value := row.get(name)):
                types.add(_type_of(value))
    return tuple(
        CarriedColumn(name, _common(types)) for name, types in zip(keep, seen, strict=True)
    )


def with_columns(refs: Iterable[ImageRef], columns: Sequence[CarriedColumn]) -> Iterator[ImageRef]:
    """``refs`` with their values in the types of ``columns``; failures where one does not fit."""
    numbered = ROW_NUMBER in columns
    chosen = columns[:-1] if numbered else columns
    seen = HashSet()
    for ref in refs:
        if not numbered:
            yield _fitted(ref, chosen, 0)
        elif not ref.occurrence:
            yield _fitted(ref, chosen, seen.add_next(ref.file_name))
        elif seen.add(ref.key):  # a list of failures has a row twice where a retry was stopped
            yield _fitted(ref, chosen, ref.occurrence)


def _fitted(ref: ImageRef, columns: Sequence[CarriedColumn], occurrence: int) -> ImageRef:
    """With the values of ``columns``, and behind them ``occurrence`` if it is not 0."""
    carried: list[object] = []
    problem = None
    # What stands for a whole folder or archive has no values.
    for value, column in zip(ref.carried or (None,) * len(columns), columns, strict=True):
        try:
            carried.append(None if _is_null(value) else _fit(value, column.type))
        except (ValueError, OverflowError, RecursionError) as error:
            carried.append(None)
            what = (
                str(error) if isinstance(error, ValueError) else "it is out of range, or too deep"
            )
            problem = f"{option('keep')} {column.name}: {what}."
    values = (*carried, occurrence) if occurrence else tuple(carried)
    if problem is not None and not isinstance(ref, FailedRef):
        about = (ref.file_name, ref.path, "bad_metadata", problem)
        return FailedRef(*about, carried=values, occurrence=occurrence)
    if values == ref.carried:
        return ref
    return replace(ref, carried=values, occurrence=occurrence)


def _fit(value: object, kind: ColumnType) -> object:
    """``value`` as ``kind``. Raises ValueError where something would be lost, OverflowError,
    RecursionError for JSON that is nested too deep."""
    if kind == "string":
        text = from_utf8(value) if isinstance(value, str) else _as_json(value)
        if len(text) > MAX_VALUE:
            raise ValueError(f"a value of {len(text)} characters, over {MAX_VALUE}")
        return text
    if isinstance(value, int | float) and not isinstance(value, bool):
        if kind == "float":
            return float(value)
        if value == int(value) and int(value) in _INT64:
            return int(value)
    number = "a whole number" if kind == "int" else "a number"
    shown = f"{value[:40]!r}" if isinstance(value, str) else _as_json(value)[:40]
    raise ValueError(
        f"{shown} is not {number}, which the first rows have there; write all its values alike"
    )


def _is_null(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


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
    if not isinstance(value, bool | int | float | list | dict):
        return str(value)  # decimals of Parquet
    try:
        return json.dumps(value, ensure_ascii=False, default=str, allow_nan=False)
    except ValueError:
        return json.dumps(_without_nan(value), ensure_ascii=False, default=str)


def _without_nan(value: object) -> object:
    """``value`` with null for numbers that are not finite, which JSON has no words for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return value
