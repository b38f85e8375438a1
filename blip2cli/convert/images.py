"""Rows that stand for images: their text, and where the images lie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import pyarrow as pa

from blip2cli.convert.formats.base import Reader, need
from blip2cli.convert.options import ConvertOptions
from blip2cli.errors import ImageError, OptionError, SourceError
from blip2cli.sources.base import ImageRef
from blip2cli.sources.members import safe_name
from blip2cli.storage.text_encoding import from_utf8

Row = dict[str, Any]


def text_column(options: ConvertOptions, schema: pa.Schema, what: str) -> str:
    """The column of texts: the one asked for, else ``caption``, else ``answer``.

    Raises SourceError when it is not there.
    """
    if options.text_column is not None:
        need(schema, options.text_column, what, "Name another one with --text-column.")
        return options.text_column
    if "caption" not in schema.names and "answer" in schema.names:
        return "answer"
    need(schema, "caption", what, "Name the column of texts with --text-column.")
    return "caption"


def need_names(reader: Reader, what: str) -> None:
    """Raise SourceError when the rows do not say which image they are about."""
    need(reader.schema, "file_name", what, "Rename the column that holds the paths.")


def local_name(stored: object) -> str:
    """``file_name`` as a path below a folder. Raises SourceError for one that leads out of it."""
    name = from_utf8(str(stored))
    if not name or safe_name(name) != name or "\0" in name:
        raise SourceError(
            f"The file_name {name!r} is no path below a folder; make it relative, without '..'."
        )
    return name


def image_root(options: ConvertOptions, what: str) -> str:
    """The folder of the images. Raises OptionError when it is not given or not there."""
    if options.image_root is None:
        raise OptionError(
            f"{what} takes the images along; say with --image-root DIR which folder file_name is "
            "relative to."
        )
    if not os.path.isdir(options.image_root):
        raise OptionError(f"--image-root {options.image_root} is not a folder; check the path.")
    return options.image_root


def image_path(root: str, name: str) -> str:
    """Where the image lies. Raises SourceError when it is not there."""
    path = os.path.join(root, name)
    if not os.path.isfile(path):
        raise SourceError(
            f"There is no image {name!r} in --image-root {root}; check the folder, or leave the "
            "row out."
        )
    return path


def image_bytes(root: str, name: str) -> bytes:
    """The image's file. Raises SourceError when it cannot be read."""
    try:
        return ImageRef(name, os.path.abspath(image_path(root, name))).read()
    except ImageError as error:
        raise SourceError(f"The image {name!r} cannot be read: {error}") from None


class Images:
    """Groups the rows of one image, which follow one another, across batches."""

    def __init__(self) -> None:
        self._name: str | None = None
        self._rows: list[Row] = []

    def add(self, batch: pa.RecordBatch) -> Iterator[tuple[str, list[Row]]]:
        """Yield the images that are complete, with all their rows; text as it is meant."""
        for name, rows in groupby(batch.to_pylist(), key=lambda row: row["file_name"]):
            if name != self._name:
                yield from self.end()
                self._name = name
            self._rows += [decoded(row) for row in rows]

    def end(self) -> Iterator[tuple[str, list[Row]]]:
        """Yield the last image."""
        if self._rows:
            yield from_utf8(str(self._name)), self._rows
        self._name, self._rows = None, []


def decoded(value: Any) -> Any:
    """A value with its text turned back (see ``blip2cli.storage.text_encoding``)."""
    if isinstance(value, str):
        return from_utf8(value)
    if isinstance(value, list):
        return [decoded(item) for item in value]
    if isinstance(value, dict):
        return {key: decoded(item) for key, item in value.items()}
    return value
