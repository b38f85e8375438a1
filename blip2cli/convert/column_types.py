"""Arrow types of columns: those of our own rows by name, those of others from their values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

import pyarrow as pa
import pyarrow.types as kinds

from blip2cli.convert.arrow import Array
from blip2cli.convert.arrow_json import json_text, plain_text
from blip2cli.errors import SourceError
from blip2cli.sinks.base import Column, EmbeddingDtype, RowSchema
from blip2cli.sinks.row_groups import arrow_schema, vector_type
from blip2cli.sinks.settings import Settings

_OWN = (
    *(Column(name, "string") for name in ("caption", "question", "question_id", "answer")),
    *(Column(name, "string") for name in ("kind", "error", "flag", "guess")),
    *(Column(name, "float") for name in ("logprob", "match", "confidence")),
    Column("candidates", "texts"), Column("probabilities", "choices"),
    Column("choice_mass", "float"), Column("choice_scores", "scores"),
)  # fmt: skip
KNOWN: dict[str, pa.DataType] = {
    field.name: field.type
    for field in arrow_schema(RowSchema.of(_OWN, inline_errors=False), Settings({}))
}
_RANKED = arrow_schema(RowSchema.of((Column("candidates", "ranked"),), False), Settings({}))
# Columns of our own that have one more field in some outputs: that field, and the type with it.
LONGER: dict[str, tuple[str, pa.DataType]] = {"candidates": ("match", _RANKED.field(-1).type)}
EMBEDDING = "embedding"
_infer_type: Any = pa.infer_type  # the stubs demand a mask
# The column that tells which command a row is of; a file has the rows of one command.
_COMMANDS = {"caption": "caption", "answer": "ask", "embedding": "embed"}


def with_embedding_dtype(schema: pa.Schema, settings: Settings | None) -> pa.Schema:
    """The schema with embeddings as a run stores them, in the precision they were made in: JSON
    lacks it."""
    index = schema.get_field_index(EMBEDDING)
    if index < 0:
        return schema
    field = schema.field(index)
    numbers: Any = (settings.rows if settings else {}).get("embedding_dtype")
    if numbers not in get_args(EmbeddingDtype) or not kinds.is_fixed_size_list(field.type):
        return schema
    return schema.set(index, field.with_type(vector_type(field.type.list_size, numbers)))


def infer_type(name: str, values: Sequence[Any]) -> pa.DataType:
    """The type that holds ``values``, null where all are; text where no other does.

    Raises SourceError for vectors of different sizes, and for columns of our own, which are never
    made text.
    """
    known = known_type(name, values)
    if known is not None:
        try:
            pa.array(values, known)
        except (pa.ArrowException, TypeError, OverflowError):
            pass
        else:
            return known
    if name == EMBEDDING:
        return _embedding(values)
    for kind in (_infer_type, lambda values: pa.uint64()):
        try:
            found: pa.DataType = kind(values)
            pa.array([check_exact(value, found) for value in values], found)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            continue
        return found
    if known is not None:
        raise SourceError(None, f"the values of {name} are not of one kind", "make them so")
    return pa.string()


def known_type(name: str, values: Sequence[Any]) -> pa.DataType | None:
    """The type of a column of our own, by the fields that it has in ``values``; null where these do
    not tell."""
    known = KNOWN.get(name)
    if name not in LONGER:
        return known
    lists = [value for value in values if value is not None]
    if not lists:
        return pa.null()
    last, longer = LONGER[name]
    items = (item for value in lists if isinstance(value, list) for item in value)
    return longer if any(isinstance(item, dict) and last in item for item in items) else known


def as_text(value: Any) -> str | None:
    """A JSON value as text: text as it is, all else as JSON."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def check_exact(value: Any, kind: pa.DataType) -> Any:
    """``value``; raises TypeError where Arrow would silently store it as something else."""
    if value is None:
        return value
    if isinstance(value, bool) != kinds.is_boolean(kind):
        raise TypeError(value)
    if isinstance(value, float) and kinds.is_integer(kind):
        raise TypeError(value)
    if isinstance(value, list) and kinds.is_list(kind):
        for item in value:
            check_exact(item, kind.value_type)
    if isinstance(value, dict) and kinds.is_struct(kind):
        types = {field.name: field.type for field in kind}
        for name, item in value.items():
            check_exact(item, types.get(name, pa.null()))
    if kinds.is_null(kind):
        raise TypeError(value)
    return value


def _embedding(values: Sequence[Any]) -> pa.DataType:
    sizes = {len(value) for value in values if isinstance(value, list)}
    if len(sizes) > 1:
        one, two = sorted(sizes)[:2]
        raise SourceError(
            None,
            f"its vectors have {one} and {two} numbers",
            "convert the vectors of each model apart",
        )
    if not sizes:
        return pa.null()
    try:
        return pa.array(values, vector_type(sizes.pop())).type
    except (pa.ArrowException, TypeError, ValueError):
        raise SourceError(None, "its embedding is not a list of numbers") from None


def common_type(name: str, one: pa.DataType, two: pa.DataType) -> pa.DataType:
    """The type that holds the values of both: as Arrow widens them, or text.

    Raises SourceError for vectors of different sizes, and for columns of our own, which are never
    made text.
    """
    if one == two:
        return one
    clash = SourceError(None, f"{name} holds {two} here and {one} before", "convert the two apart")
    if name == EMBEDDING and not (kinds.is_null(one) or kinds.is_null(two)):
        raise clash
    if is_number(one) and is_number(two) and (kinds.is_floating(one) or kinds.is_floating(two)):
        return pa.float64()
    if pa.uint64() in (one, two) and {one, two} & {pa.int8(), pa.int16(), pa.int32(), pa.int64()}:
        return pa.string()  # Arrow takes int64, which does not hold them
    schemas = [pa.schema([(name, kind)]) for kind in (one, two)]
    try:
        kind: pa.DataType = pa.unify_schemas(schemas, promote_options="permissive").field(0).type
        return kind
    except pa.ArrowException:
        if name in KNOWN:
            raise clash from None
        return pa.string()


def union_schema(one: pa.Schema, two: pa.Schema) -> pa.Schema:
    """All columns of both, in order. Raises SourceError when types clash."""
    fields = {field.name: field.type for field in one}
    for field in two:
        kind = common_type(field.name, fields.get(field.name, pa.null()), field.type)
        fields[field.name] = kind
    return pa.schema(list(fields.items()))


def resolve_nulls(schema: pa.Schema) -> pa.Schema:
    """Columns that are null in every row become text (embeddings: lists): files need a type."""
    return pa.schema([pa.field(f.name, _without_null(f.type, f.name)) for f in schema])


def _without_null(kind: pa.DataType, name: str = "") -> pa.DataType:
    if kinds.is_null(kind):
        return pa.list_(pa.float32()) if name == EMBEDDING else KNOWN.get(name, pa.string())
    if kinds.is_list(kind):
        return pa.list_(_without_null(kind.value_type))
    if kinds.is_struct(kind):
        return pa.struct([(field.name, _without_null(field.type)) for field in kind])
    return kind


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with the columns and types of ``schema``; missing columns are null."""
    if batch.schema.equals(schema):
        return batch
    columns = []
    for field in schema:
        index = batch.schema.get_field_index(field.name)
        if index < 0:
            columns.append(pa.nulls(batch.num_rows, field.type))
        else:
            column = batch.column(index)
            columns.append(as_type(column, field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema.remove_metadata())


def as_type(values: Array, kind: pa.DataType) -> Array:
    """The values as another type that holds them (``common_type``)."""
    if values.type == kind:
        return values
    if kinds.is_string(kind) and not is_text(values.type):
        return plain_text(values)
    if "list_view" in str(values.type):  # Arrow casts those with nulls wrongly
        return pa.array(values.to_pylist(), kind)
    for safe in (True, False):  # large numbers become floats as JSON has them
        try:
            return values.cast(kind, safe=safe)
        except pa.ArrowException:
            pass
    return pa.array([json.loads(text) for text in json_text(values).to_pylist()], kind)


def is_text(kind: Any) -> bool:
    """Whether it is one of the types of text, encoded by a dictionary or not."""
    if kinds.is_dictionary(kind):
        return is_text(kind.value_type)
    return kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind)


def is_number(kind: pa.DataType) -> bool:
    """Whether it is an integer or a floating-point type."""
    return kinds.is_integer(kind) or kinds.is_floating(kind)


class SameCommand:
    """Checks that all rows are of one command, by the columns they have."""

    def __init__(self) -> None:
        self._seen: list[frozenset[str]] = []

    def check(self, names: Iterable[str] | Mapping[str, Any], where: str) -> None:
        """Raise SourceError when a row with these columns is of another command than before."""
        columns = frozenset(name for name in _COMMANDS if name in names)
        if not columns or columns in self._seen:
            return
        for before in self._seen:
            if not columns & before:
                here, there = (_COMMANDS[min(one)] for one in (columns, before))
                raise SourceError(
                    "sources",
                    f"{where} has rows of {here}, while those before are rows of {there}",
                    "convert the two apart, each into a file of its own",
                )
        self._seen.append(columns)
