"""Columns of a Parquet schema: which one holds images, which can be carried into rows."""

from __future__ import annotations

import json

import pyarrow as pa  # noqa: TID253 - readers are imported when they are used
import pyarrow.types as kinds  # noqa: TID253

from blip2cli.errors import OptionError, option
from blip2cli.sources.carried_columns import CarriedColumn
from blip2cli.sources.path_columns import IMAGE_COLUMN


def image_column(schema: pa.Schema, chosen: str | None, text: str) -> str | None:
    """The column that holds images; ``None`` when no column does, or ``chosen`` holds paths.

    Raises OptionError when ``chosen`` does not exist, or when several columns hold images and none
    of them is called ``image``.
    """
    if chosen is not None:
        if chosen not in schema.names:
            raise OptionError(
                "image_column",
                f"{option('image_column')} {chosen}: {text!r} has no such column",
                f"it has {', '.join(schema.names)}",
            )
        kind = schema.field(chosen).type
        return chosen if is_bytes(kind) or _has_bytes(kind) else None
    features = _features(schema)
    found = [
        name
        for name in schema.names
        # Sounds have the same shape; a data set that describes itself says which is which.
        if _has_bytes(schema.field(name).type) and features.get(name, "Image") == "Image"
    ]
    found = found or [
        name
        for name in schema.names
        if is_bytes(schema.field(name).type)
        and (features.get(name) == "Image" or name == IMAGE_COLUMN)
    ]
    if len(found) > 1 and IMAGE_COLUMN not in found:
        raise OptionError(
            "image_column",
            f"{text!r} has several columns of images ({', '.join(found)})",
            f"choose one with {option('image_column')}",
        )
    return IMAGE_COLUMN if IMAGE_COLUMN in found else found[0] if found else None


def carried_column(field: pa.Field[pa.DataType]) -> CarriedColumn:
    """The column as it is carried into rows. Raises OptionError for bytes."""
    if is_bytes(field.type) or _has_bytes(field.type):
        raise OptionError(
            "keep", f"{option('keep')} {field.name}: this column holds bytes, which rows cannot"
        )
    kind = _values(field.type)
    if kinds.is_integer(kind) and not kinds.is_uint64(kind):  # there are larger ones
        return CarriedColumn(field.name, "int")
    return CarriedColumn(field.name, "float" if kinds.is_floating(kind) else "string")


def is_text(kind: pa.DataType) -> bool:
    """True for all types of strings, also dictionaries of them."""
    kind = _values(kind)
    return kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind)


def path_in_struct(kind: pa.DataType) -> bool:
    """True for a struct that has text called ``path``, beside the bytes of an image."""
    return kinds.is_struct(kind) and any(f.name == "path" and is_text(f.type) for f in kind)


def is_bytes(kind: pa.DataType) -> bool:
    """True for all types of byte strings, also dictionaries of them."""
    kind = _values(kind)
    return (
        kinds.is_binary(kind)
        or kinds.is_large_binary(kind)
        or kinds.is_binary_view(kind)
        or kinds.is_fixed_size_binary(kind)
    )


def _values(kind: pa.DataType) -> pa.DataType:
    """The type of the values themselves, where a dictionary holds them."""
    return kind.value_type if kinds.is_dictionary(kind) else kind


def _has_bytes(kind: pa.DataType) -> bool:
    return kinds.is_struct(kind) and any(f.name == "bytes" and is_bytes(f.type) for f in kind)


def _features(schema: pa.Schema) -> dict[str, str]:
    """The types of columns that the metadata of a Hugging Face data set states."""
    try:
        about = json.loads((schema.metadata or {})[b"huggingface"])
        features = about["info"]["features"]
        return {name: f["_type"] for name, f in features.items() if isinstance(f, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
