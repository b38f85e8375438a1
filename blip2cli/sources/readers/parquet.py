"""Parquet: tables that hold the images themselves, and manifests in Parquet.

A column holds images when it is the ``Image`` feature of a Hugging Face data set or has its shape,
``struct<bytes: binary, path: string>``, when it is binary and called ``image``, or when it is
binary and named with ``--image-column``. A file without such a column is a manifest if it has a
column of paths.

An image is named by its ``path`` in the struct, else by the column ``file_name`` or ``path``, else
``<parquet name>/<row, 8 digits>``. Where the bytes are null, the file at ``path`` is read.

Listing reads only the columns that are needed for names and ``--keep``. Whoever loads the image
reads its bytes, moving forward through the row group batch by batch.

``error_type`` names raised here: ``missing`` (a row without an image), ``outside_source``,
``too_large``, ``read_error``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from blip2cli.errors import ImageError, OptionError, SourceError
from blip2cli.options import SourceOptions
from blip2cli.sources.base import ImageRef, Source
from blip2cli.sources.carried_columns import CarriedColumn, absent
from blip2cli.sources.members import Names, safe_name
from blip2cli.sources.open_file_cache import check_size, held, reading, ref_at
from blip2cli.sources.readers.manifest import (
    OUTSIDE,
    ManifestSource,
    container,
    located,
    normal,
    opening_errors,
    path_column,
    place,
)
from blip2cli.sources.records import Record
from blip2cli.sources.schema import carried_column, image_column, is_text
from blip2cli.storage.opening import open_binary
from blip2cli.storage.text_encoding import from_utf8

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 4096  # rows of names and carried values read together
_BATCH_BYTES = 8 << 20  # images read together: a handful of photographs
_BUFFER_BYTES = 1 << 20  # columns stream through so much instead of being read whole


def claim_parquet(text: str, options: SourceOptions) -> Source | None:
    """Take a ``.parquet`` file, as a table of images or as a manifest.

    Raises SourceError for what is no Parquet or has no images, OptionError for a column that is
    asked for and is not there.
    """
    location = container(text, (".parquet",))
    if location is None:
        return None
    with opening_errors(text), _arrow_errors(text):
        table = _Table(location)
        schema = table.file.schema_arrow
        table.close()
        carried = tuple(_kept(text, schema, name) for name in options.keep)
        column = image_column(schema, options.image_column, text)
        names = [name for name in schema.names if is_text(schema.field(name).type)]
        if column is None:
            return _manifest(text, location, names, schema, carried, options)
        in_struct, of_table = _name_columns(schema, column, names)
        source = TableSource(
            text, location, column, in_struct, of_table, carried, options.absolute_paths
        )
        first = next(source.rows(), None)
        named = first is not None and bool(safe_name(first.name))
        return TableSource(
            text, location, column, in_struct, of_table, carried, options.absolute_paths, named
        )


@dataclass(frozen=True)
class CellRef(ImageRef):
    """An image in a cell of a Parquet file."""

    location: str
    column: str
    group: int  # the row group
    row: int  # in the group
    absolute_paths: bool

    def read(self) -> bytes:
        """Return the cell's bytes, or the file the cell names. Raises ImageError."""
        with reading("table"):
            data, path = held(_Table, self.location).cell(self.column, self.group, self.row)
        if data is not None:
            check_size(len(data))
            return data
        if not path:
            raise ImageError("missing", "The row holds no image.")
        name = normal(from_utf8(path))
        folder = self.location.rpartition("/")[0]
        where = place(folder, name)
        if where is None and not self.absolute_paths:
            raise ImageError("outside_source", OUTSIDE)
        return ref_at(name, where or located(folder, name)).read()


@dataclass(frozen=True)
class _Row:
    name: str  # empty when the row has none
    number: int  # in the table
    group: int
    row: int  # in the group
    carried: tuple[object, ...]


@dataclass(frozen=True)
class TableSource:
    """The images in the cells of one Parquet file."""

    text: str
    location: str
    column: str  # of the images
    in_struct: bool  # the column has paths beside the bytes
    name_column: str | None  # of the table
    carried: tuple[CarriedColumn, ...] = ()
    absolute_paths: bool = False
    named: bool = True  # rows have names of their own
    unique: bool = True

    @property
    def root(self) -> str:
        """The table itself, which counts as a folder; that folder's own when rows have no names."""
        return self.location if self.named else self.location.rpartition("/")[0]

    @property
    def space(self) -> str:
        """No other source has names below this."""
        return self.location

    def carried_columns(self) -> tuple[CarriedColumn, ...]:
        """The columns carried into the rows."""
        return self.carried

    def refs(self, base: str) -> Iterator[ImageRef]:
        """Yield an image for each row."""
        names = Names(self.location, base)
        with opening_errors(self.text), _arrow_errors(self.text):
            for row in self.rows():
                name, where = names.of(row.name, row.number)
                yield CellRef(
                    name,
                    where,
                    self.location,
                    self.column,
                    row.group,
                    row.row,
                    self.absolute_paths,
                    carried=row.carried,
                )

    def nothing(self) -> str:
        """The sentence for a table without rows."""
        return f"The table {self.text!r} has no rows."

    def rows(self) -> Iterator[_Row]:
        """What is known of each row without reading its image."""
        leaf = f"{self.column}.path"
        columns = dict.fromkeys(
            [*([leaf] if self.in_struct else []), *([self.name_column] if self.name_column else [])]
            + [column.name for column in self.carried]
        )
        for number, group, row, cells in _rows(self.location, list(columns)):
            path = (cells.get(self.column) or {}).get("path") if self.in_struct else None
            name = path or (cells[self.name_column] if self.name_column else None)
            carried = tuple(cells[column.name] for column in self.carried)
            yield _Row(from_utf8(name or ""), number, group, row, carried)


def _manifest(
    text: str,
    location: str,
    names: list[str],
    schema: pa.Schema,
    carried: tuple[CarriedColumn, ...],
    options: SourceOptions,
) -> ManifestSource:
    column = options.image_column
    if column not in names:
        if column is not None and column in schema.names:
            raise OptionError(
                f"--image-column {column}: in {text!r} it holds {schema.field(column).type}, "
                "neither images nor paths."
            )
        try:
            column = path_column(text, names, column)
        except SourceError:
            raise SourceError(
                f"The Parquet file {text!r} has neither a column of images nor one of paths "
                f"called file_name, path or image; it has {', '.join(schema.names)}. Name the "
                "column with --image-column."
            ) from None
    wanted = list(dict.fromkeys([column, *(c.name for c in carried)]))
    records = partial(_records, location, column, wanted)
    return ManifestSource(text, location, column, records, carried, options.absolute_paths, "row")


def _records(location: str, path: str, columns: list[str]) -> Iterator[Record]:
    for number, _, _, cells in _rows(location, columns):
        if isinstance(cells[path], str):
            cells = {**cells, path: from_utf8(cells[path])}
        yield number + 1, cells


def _name_columns(schema: pa.Schema, column: str, names: list[str]) -> tuple[bool, str | None]:
    """Whether the struct holds paths, and the column of the table that holds names."""
    import pyarrow as pa

    kind = schema.field(column).type
    in_struct = pa.types.is_struct(kind) and any(
        field.name == "path" and is_text(field.type) for field in kind
    )
    return in_struct, next((n for n in ("file_name", "path") if n in names), None)


def _kept(text: str, schema: pa.Schema, name: str) -> CarriedColumn:
    if name not in schema.names:
        raise absent(f"the table {text!r}", name, schema.names)
    return carried_column(schema.field(name))


class _Table:
    """An open Parquet file, and the place it was last read at."""

    def __init__(self, location: str) -> None:
        import pyarrow.parquet as pq

        self._below = open_binary(location)
        try:
            # Without pre-buffering and with a buffer of its own, a column streams through memory.
            self.file = pq.ParquetFile(self._below, pre_buffer=False, buffer_size=_BUFFER_BYTES)
        except BaseException:
            self._below.close()
            raise
        self._place: tuple[str, int] | None = None  # column and row group being read
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._cells: Any = ()  # of the current batch
        self._start = 0  # the row of the first of them

    def close(self) -> None:
        self._batches = iter(())
        self.file.close()
        self._below.close()

    def cell(self, column: str, group: int, row: int) -> tuple[bytes | None, str | None]:
        """The bytes and the path of one image. Raises ImageError, OSError or ValueError."""
        import pyarrow as pa

        try:
            if self._place != (column, group) or row < self._start:
                self._go_to(column, group)
            while row >= self._start + len(self._cells):
                self._start += len(self._cells)
                self._cells = next(self._batches).column(0)
        except (pa.ArrowException, StopIteration) as error:
            self._place = None
            raise ImageError("read_error", f"The table is damaged here ({error}).") from None
        value = self._cells[row - self._start].as_py()
        if isinstance(value, dict):
            return value.get("bytes"), value.get("path")
        return value, None

    def _go_to(self, column: str, group: int) -> None:
        about = self.file.metadata.row_group(group)
        row_bytes = about.total_byte_size // max(1, about.num_rows) + 1
        self._batches = self.file.iter_batches(
            batch_size=max(1, min(_ROWS, _BATCH_BYTES // row_bytes)),
            row_groups=[group],
            columns=[column],
            use_threads=False,
        )
        self._place, self._cells, self._start = (column, group), (), 0


def _rows(location: str, columns: list[str]) -> Iterator[tuple[int, int, int, Mapping[str, Any]]]:
    """Yield (row in the table, row group, row in the group, cells) for every row."""
    table = _Table(location)
    try:
        number = 0
        for group in range(table.file.metadata.num_row_groups):
            if not columns:
                for row in range(table.file.metadata.row_group(group).num_rows):
                    yield number, group, row, {}
                    number += 1
                continue
            row = 0
            for batch in table.file.iter_batches(
                batch_size=_ROWS, row_groups=[group], columns=columns, use_threads=False
            ):
                for cells in batch.to_pylist():
                    yield number, group, row, cells
                    number, row = number + 1, row + 1
    finally:
        table.close()


@contextmanager
def _arrow_errors(text: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except pa.ArrowException as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SourceError(f"{text!r} is no Parquet file, or a damaged one ({first}).") from None
