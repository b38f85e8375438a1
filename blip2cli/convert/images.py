"""Rows as images: their text column, and the image files they are about."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Container
from itertools import groupby
from typing import Any

import pyarrow as pa

from blip2cli.convert.arrow import pc
from blip2cli.convert.arrow_json import json_rows
from blip2cli.convert.base import Reader, require_column
from blip2cli.convert.examples import LeftOut
from blip2cli.errors import ImageError, OptionError, SourceError, option
from blip2cli.options import ColumnOptions, ConvertOptions
from blip2cli.sources.base import ImageRef
from blip2cli.sources.members import safe_name
from blip2cli.storage.text_encoding import deep_from_utf8, from_utf8

Row = dict[str, Any]
_BREAKS = re.compile(r"[\x00-\x20\x7f\x85\u2028\u2029]+")
NAME_TEXTS = f"name the column of texts with {option('text_column')}"


def one_line(text: str) -> str:
    """``text`` on one line: line ends of all kinds, control characters and runs of blanks become
    a blank each."""
    return _BREAKS.sub(" ", text).strip(" ")


def text_column(options: ColumnOptions, schema: pa.Schema, what: str) -> str:
    """The column of texts: that of ``options.text_column``, else ``caption``, else ``answer``.

    Raises SourceError when it is not there.
    """
    if options.text_column is not None:
        remedy = f"name another one with {option('text_column')}"
        require_column(schema, options.text_column, what, remedy)
        return options.text_column
    column = default_text_column(schema.names)
    require_column(schema, column, what, NAME_TEXTS)
    return column


def default_text_column(names: Container[str]) -> str:
    """The column of texts among those of rows: ``caption``, else ``answer``."""
    return "answer" if "caption" not in names and "answer" in names else "caption"


def require_file_names(reader: Reader, what: str) -> None:
    """Raise SourceError when the rows do not say which image they are about."""
    require_column(reader.schema, "file_name", what, "rename the column that holds the paths")


def local_name(stored: object) -> str:
    """``file_name`` as a path below a folder. Raises SourceError for one that leads out of it."""
    name = from_utf8(str(stored))
    if not name or safe_name(name) != name or "\0" in name:
        raise SourceError(
            "sources",
            f"The file_name {name!r} is no path below a folder",
            "make it relative, without '..'",
        )
    return name


def image_root(options: ConvertOptions, what: str) -> str:
    """The folder of the images. Raises OptionError when it is not given or not there."""
    if options.image_root is None:
        raise OptionError(
            "image_root",
            f"{what} takes the images along",
            f"say with {option('image_root')} DIR which folder file_name is relative to",
        )
    if not os.path.isdir(options.image_root):
        raise OptionError(
            "image_root",
            f"{option('image_root')} {options.image_root} is not a folder",
            "check the path",
        )
    return options.image_root


def image_path(root: str, name: str) -> str:
    """Where the image lies. Raises SourceError when it is not there."""
    path = os.path.join(root, name)
    if not os.path.isfile(path):
        raise SourceError(
            "image_root",
            f"There is no image {name!r} in {option('image_root')} {root}",
            "check the folder, or leave the row out",
        )
    return path


def image_bytes(root: str, name: str) -> bytes:
    """The image's file. Raises SourceError when it cannot be read."""
    try:
        return ImageRef(name, os.path.abspath(image_path(root, name))).read()
    except ImageError as error:
        raise SourceError("image_root", f"The image {name!r} cannot be read: {error}") from None


class ImageGroups:
    """Groups the consecutive rows of one image, across batches."""

    def __init__(self, take: Callable[[str, list[Row]], None]) -> None:
        """``take`` gets the name and all rows of every image that is complete; text is decoded."""
        self._take = take
        self._name: str | None = None
        self._rows: list[Row] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Take more rows."""
        for name, rows in groupby(json_rows(batch), key=lambda row: row["file_name"]):
            if name != self._name:
                self.end()
                self._name = name
            self._rows += [deep_from_utf8(row) for row in rows]

    def end(self) -> None:
        """The last image is complete."""
        rows, self._rows = self._rows, []
        if rows:
            self._take(from_utf8(str(self._name)), rows)


def without_nulls(batch: pa.RecordBatch, column: str, left_out: LeftOut) -> pa.RecordBatch:
    """The rows with a value in ``column``; the names of the others go to ``left_out``."""
    valid = pc.is_valid(batch.column(column))
    if pc.all(valid).as_py() is not False:
        return batch
    for row in batch.filter(pc.invert(valid)).drop_columns([column]).to_pylist():
        left_out.add(row.get("file_name"))
    return batch.filter(valid)
