"""Parquet: tables that hold the images themselves, and manifests in Parquet.

A column holds images when it is the ``Image`` feature of a Hugging Face data set or has its shape,
``struct<bytes: binary, path: string>``, when it is binary and called ``image``, or when it is
binary and named with the option ``image_column``. A file without such a column is a manifest if it
has a column of paths.

An image is named by its ``path`` in the struct, else by the column ``file_name`` or ``path``, else
``<parquet name>/<row, 8 digits>``. Where the bytes are null, the file at ``path`` is read.

Listing reads only the columns that are needed for names and carried columns. Whoever loads the
image reads its bytes.

``error_type`` names raised here: ``missing`` (a row without an image), ``outside_source``,
``too_large``, ``read_error``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from blip2cli.errors import ImageError, OptionError, SourceError, option
from blip2cli.sources.base import (
    FailedRef,
    ImageRef,
    Source,
    opening_errors,
    reading_errors,
)
from blip2cli.sources.carried_columns import CarriedColumn, ColumnedSource, missing_column
from blip2cli.sources.file_size import MAX_FILE_BYTES, check_size
from blip2cli.sources.manifest_paths import OUTSIDE, file_location, locate, normal_path
from blip2cli.sources.members import MemberNames, safe_name
from blip2cli.sources.open_file_cache import cached_open
from blip2cli.sources.parquet_file import ParquetTable, TableRow, arrow_errors, table_rows
from blip2cli.sources.parquet_schema import carried_column, image_column, is_text, path_in_struct
from blip2cli.sources.path_columns import NAME_COLUMNS, PATH_COLUMNS_LISTED, path_column
from blip2cli.sources.readers.manifest import ManifestSource
from blip2cli.sources.records import BadRow, Record
from blip2cli.sources.remote_ref import ref_at
from blip2cli.sources.url_names import public_name
from blip2cli.storage.text_encoding import from_utf8

if TYPE_CHECKING:
    import pyarrow as pa

    from blip2cli.options import SourceOptions


@dataclass(frozen=True)
class CellRef(ImageRef):
    """An image in a cell of a Parquet file."""

    location: str
    column: str
    group: int  # the row group
    row: int  # in the group
    absolute_paths: bool

    def read(self, most: int = MAX_FILE_BYTES) -> bytes:
        """Return the cell's bytes, or the file the cell names. Raises ImageError."""
        with reading_errors("table"):
            table = cached_open(ParquetTable, self.location)
            data, path = table.cell(self.column, self.group, self.row)
        if data is not None:
            check_size(len(data), most=most)
            return data
        if not path:
            raise ImageError("missing", "The row holds no image.")
        name = normal_path(from_utf8(path))
        folder = self.location.rpartition("/")[0]
        location = locate(folder, name, self.absolute_paths)
        if location is None:
            raise ImageError("outside_source", OUTSIDE)
        return ref_at(name, location).read()


@dataclass(frozen=True)
class TableSource(ColumnedSource):
    """The images in the cells of one Parquet file.

    The table counts as a folder and is the ``root``; when rows have no names of their own, the
    folder it lies in is.
    """

    location: str
    column: str  # of the images
    in_struct: bool  # the column has paths beside the bytes
    name_column: str | None  # of the table
    absolute_paths: bool

    @property
    def namespace(self) -> str:
        """The table, whatever the root is."""
        return self.location

    def refs(self, base: str) -> Iterator[ImageRef]:
        names = MemberNames(self.location, base)
        with opening_errors(self.text), arrow_errors(self.text):
            for name, carried, found in self.rows():
                file_name, path = names.unique(name, found.number)
                if found.error is not None:
                    yield FailedRef(file_name, path, "read_error", found.error, carried=carried)
                    continue
                cell = (self.location, self.column, found.group, found.row)
                yield CellRef(file_name, path, *cell, self.absolute_paths, carried=carried)

    def content_files(self) -> tuple[str]:
        return (self.location,)

    def no_images(self) -> SourceError:
        return SourceError("sources", f"The table {self.text!r} has no rows")

    def rows(self) -> Iterator[tuple[str, tuple[object, ...], TableRow]]:
        """Each row's name (empty when it has none), its carried values, and where it is."""
        columns = [f"{self.column}.path"] if self.in_struct else []
        columns += [self.name_column] if self.name_column else []
        columns += [column.name for column in self.columns]
        for found in table_rows(self.location, list(dict.fromkeys(columns))):
            cells = found.cells
            path = (cells.get(self.column) or {}).get("path") if self.in_struct else None
            name = path or (cells.get(self.name_column) if self.name_column else None)
            carried = tuple([cells.get(column.name) for column in self.columns])
            yield public_name(from_utf8(name or "")), carried, found


def open_source(text: str, options: SourceOptions) -> Source:
    """The ``.parquet`` file ``text``, as a table of images or as a manifest.

    Raises SourceError for what is no Parquet or has no images, OptionError for a column that an
    option names and the file does not have.
    """
    location = file_location(text)
    with opening_errors(text), arrow_errors(text):
        table = ParquetTable(location)
        schema = table.file.schema_arrow
        table.close()
        columns = tuple(_carried(text, schema, name) for name in options.keep)
        column = image_column(schema, options.image_column, text)
        names = [name for name in schema.names if is_text(schema.field(name).type)]
        if column is None:
            return _manifest(text, location, names, schema, columns, options)
        source = TableSource(
            text,
            location,
            location,
            column,
            path_in_struct(schema.field(column).type),
            next((name for name in NAME_COLUMNS if name in names), None),
            options.absolute_paths,
            columns=columns,
        )
        first = next(source.rows(), None)
        if first is not None and safe_name(first[0]):
            return source
        return replace(source, root=location.rpartition("/")[0])


def _manifest(
    text: str,
    location: str,
    names: list[str],
    schema: pa.Schema,
    columns: tuple[CarriedColumn, ...],
    options: SourceOptions,
) -> ManifestSource:
    column = options.image_column
    if column not in names:
        if column is not None and column in schema.names:
            raise OptionError(
                "image_column",
                f"{option('image_column')} {column}: in {text!r} it holds "
                f"{schema.field(column).type}, neither images nor paths",
            )
        try:
            column = path_column(text, names, column)
        except SourceError:
            raise SourceError(
                "image_column",
                f"The Parquet file {text!r} has neither a column of images nor one of paths "
                f"called {PATH_COLUMNS_LISTED}",
                f"it has {', '.join(schema.names)}. Name the column with {option('image_column')}",
            ) from None
    needed = list(dict.fromkeys([column, *(c.name for c in columns)]))
    records = partial(_records, location, needed)
    return ManifestSource.of(text, location, column, records, columns, options)


def _records(location: str, columns: list[str]) -> Iterator[Record]:
    for found in table_rows(location, columns):
        yield found.number + 1, found.cells if found.error is None else BadRow(found.error)


def _carried(text: str, schema: pa.Schema, name: str) -> CarriedColumn:
    if name not in schema.names:
        raise missing_column(f"the table {text!r}", name, schema.names)
    return carried_column(schema.field(name))
