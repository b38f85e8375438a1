"""The JSON Schema of each kind of row, made from the columns that tasks declare.

Columns that only some runs have are properties that are not required; columns carried from a source
are further properties: texts, numbers or null.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

from blip2cli.options import EmbedOptions, RankOptions, RowKind
from blip2cli.sinks.base import IDENTITY, LIST_FIELDS, Column
from blip2cli.storage.hash_set import OCCURRENCE, ORDINAL
from blip2cli.tasks.ask import CHOICE_COLUMNS, AskTask
from blip2cli.tasks.base import ABSTAINED
from blip2cli.tasks.caption import CaptionTask
from blip2cli.tasks.degenerate import Flag
from blip2cli.tasks.embed import EmbedTask
from blip2cli.tasks.embed_texts import EmbedTextsTask
from blip2cli.tasks.questions import from_texts
from blip2cli.tasks.ranking import ranking_columns

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_CARRIED = {"type": ["string", "number", "null"]}
_TYPES = {"string": "string", "int": "integer", "float": "number"}
_SURE = (Column("confidence", "float"), Column("guess", "string"))
_OF_IMAGES = (Column(OCCURRENCE, "int"), Column(ORDINAL, "int"), Column("error", "string"))


def row_schema(kind: RowKind) -> dict[str, Any]:
    """The JSON Schema of a row of this kind."""
    if kind == "errors":
        names = ("file_name", "error_type", "message")
        found = {name: {"type": "string"} for name in names}
        return _schema("An image that failed", found | _properties(_OF_IMAGES[:1]), names)
    if kind == "caption":
        always = (*IDENTITY, *CaptionTask().columns)
        ranked = ranking_columns(RankOptions("a model", min_match=0.0), several=True)
        sometimes = (*ranked, *_SURE, *_OF_IMAGES)
        title = "A caption of an image"
    elif kind == "ask":
        always = (*IDENTITY, *AskTask(from_texts(["?"])).columns)
        sometimes = (*CHOICE_COLUMNS, *_SURE, *_OF_IMAGES)
        title = "An answer to a question about an image"
    elif kind == "embed":
        always = (*IDENTITY, *EmbedTask().columns)
        sometimes = (Column("text", "string"), *_OF_IMAGES)
        title = "A vector of an image"
    else:
        return _schema("A vector of a text", *_all(EmbedTextsTask(EmbedOptions()).columns))
    properties = _properties(sometimes) | _properties(always)
    properties["file_name"] = {"type": "string"}
    return _schema(title, properties, [column.name for column in always])


def _all(columns: Iterable[Column]) -> tuple[dict[str, Any], list[str]]:
    properties = _properties(columns)
    return properties, [*properties]


def _schema(title: str, properties: dict[str, Any], required: Iterable[str]) -> dict[str, Any]:
    return {
        "$schema": _DIALECT,
        "title": title,
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": _CARRIED,
    }


def _properties(columns: Iterable[Column]) -> dict[str, Any]:
    return {column.name: _property(column) for column in columns}


def _property(column: Column) -> dict[str, Any]:
    """A column; every value may be null."""
    if column.name == "flag":
        return {"enum": [*get_args(Flag), ABSTAINED, None]}
    if column.type in _TYPES:
        return {"type": [_TYPES[column.type], "null"]}
    if column.type == "embedding":
        return {"type": ["array", "null"], "items": {"type": ["number", "null"]}}
    fields = LIST_FIELDS[column.type]
    # Captions that are not ranked have no score of their match.
    required = [field.name for field in fields if field.name != "match"]
    items = {
        "type": "object",
        "properties": _properties(fields),
        "required": required,
        "additionalProperties": False,
    }
    return {"type": ["array", "null"], "items": items}
