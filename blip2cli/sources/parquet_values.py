"""Values of an Arrow column as Python objects that have a form in JSON, whatever wrote them."""

from __future__ import annotations

from typing import Any, cast

import pyarrow as pa  # noqa: TID253 - readers are imported when they are used
import pyarrow.types as kinds  # noqa: TID253


def plain_values(column: pa.Array[Any]) -> list[Any]:
    """The values: text, numbers, decimals, lists, dictionaries; dates and times are text as Arrow
    writes it, in full. Raises ArrowException, UnicodeDecodeError."""
    kind = column.type
    if kinds.is_dictionary(kind):
        return plain_values(cast("pa.DictionaryArray[Any, Any]", column).dictionary_decode())
    wanted = _without_times(kind)
    if wanted != kind:
        column = _as_text(column, wanted)
    if kinds.is_string(wanted) or kinds.is_large_string(wanted) or kinds.is_string_view(wanted):
        try:
            return column.to_pylist()
        except UnicodeDecodeError:  # Arrow does not check what a file holds
            data = column.cast(pa.large_binary()).to_pylist()
            return [v if v is None else v.decode("utf-8", "surrogateescape") for v in data]
    return column.to_pylist()


def _without_times(kind: pa.DataType) -> pa.DataType:
    """``kind`` with text in place of dates, times and durations, also in nested types."""
    if kinds.is_temporal(kind):
        return pa.string()
    if kinds.is_fixed_size_list(kind):
        size: int = kind.list_size
        return pa.list_(_without_times(kind.value_type), size)
    if kinds.is_list(kind):
        return pa.list_(_without_times(kind.value_type))
    if kinds.is_large_list(kind):
        return pa.large_list(_without_times(kind.value_type))
    if kinds.is_struct(kind):
        return pa.struct([(field.name, _without_times(field.type)) for field in kind])
    return kind


def _as_text(column: pa.Array[Any], wanted: pa.DataType) -> pa.Array[Any]:
    try:
        return column.cast(wanted)
    except pa.ArrowInvalid:
        if not kinds.is_timestamp(column.type):
            raise
        # A time zone that is not known here: the time is UTC.
        utc = column.cast(pa.timestamp(column.type.unit, "UTC"))
        return utc.cast(wanted)
