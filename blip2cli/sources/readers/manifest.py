"""Manifests: lists and tables of image paths.

The column is ``file_name``, ``path`` or ``image``, whichever comes first in this order, or the one
named with the option ``image_column``. Paths are relative to the manifest's folder and stay within
it: one that is absolute or leads out through ``..`` is a failed image (``outside_source``) unless
``absolute_paths`` allows it. Rows are read as they are needed.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from blip2cli.errors import SourceError, option
from blip2cli.sources.base import FailedRef, ImageRef, name_below, opening_errors
from blip2cli.sources.carried_columns import (
    SAMPLED_ROWS,
    CarriedColumn,
    ColumnedSource,
    infer_columns,
    missing_column,
)
from blip2cli.sources.manifest_paths import OUTSIDE, file_location, locate, normal_path
from blip2cli.sources.records import Record, csv_columns, csv_records, json_records, text_records
from blip2cli.sources.remote_ref import ref_at
from blip2cli.storage.hash_set import HashSet
from blip2cli.storage.opening import is_remote
from blip2cli.storage.text_encoding import from_utf8

if TYPE_CHECKING:
    from blip2cli.options import SourceOptions

PATH_COLUMNS = ("file_name", "path", "image")
# The column of paths, the rows, and the columns that are carried into the output.
_Opened = tuple[str, Callable[[], Iterator[Record]], tuple[CarriedColumn, ...]]


@dataclass(frozen=True)
class ManifestSource(ColumnedSource):
    """The images a manifest names. ``records`` gives its rows with their numbers, from 1."""

    location: str
    column: str  # the column that holds the paths
    records: Callable[[], Iterator[Record]]
    absolute_paths: bool
    unit: str  # what a record's number counts: lines or rows

    @classmethod
    def of(
        cls,
        text: str,
        location: str,
        column: str,
        rows: Callable[[], Iterator[Record]],
        columns: tuple[CarriedColumn, ...],
        options: SourceOptions,
        unit: str = "line",
    ) -> ManifestSource:
        """The manifest at ``location``; ``root`` is the folder it lies in.

        Images come once. Paths from elsewhere may clash with names here: left to the caller.
        """
        root, outside = posixpath.dirname(location), options.absolute_paths
        return cls(
            text, root, location, column, rows, outside, unit, unique=not outside, columns=columns
        )

    def refs(self, base: str, seen: HashSet | None = None) -> Iterator[ImageRef]:
        """Yield the images, each once; ``seen`` holds names that came before in other manifests.

        Raises SourceError for a row that is not what it should be.
        """
        seen = HashSet() if seen is None else seen
        with opening_errors(self.text):
            for number, record in self.records():
                written = record.get(self.column)
                if not isinstance(written, str) or not written:
                    what = "is no text" if written else "is missing or empty"
                    raise SourceError(
                        "sources", f"{self.location!r}, {self.unit} {number}: {self.column} {what}"
                    )
                carried = tuple(record.get(column.name) for column in self.columns)
                ref = self._ref(written, base, carried)
                if self.absolute_paths or seen.add(ref.file_name):
                    yield ref

    def no_images(self) -> SourceError:
        return SourceError(
            "sources", f"The manifest {self.text!r} names no image", "write a path a line or row"
        )

    def _ref(self, written: str, base: str, carried: tuple[object, ...]) -> ImageRef:
        if not self.location.lower().endswith(".txt"):  # a list has paths as they are on disk
            written = from_utf8(written)
        name = normal_path(written)
        location = locate(self.root, name, self.absolute_paths)
        if location is None:
            return FailedRef(name, name, "outside_source", OUTSIDE, carried=carried)
        name = name_below(location, base)
        return ref_at(name.partition("://")[2] if is_remote(name) else name, location, carried)


def open_source(text: str, options: SourceOptions) -> ManifestSource:
    """The manifest ``text``; by its suffix a list of paths, a table, or else JSON Lines.

    Raises SourceError when it cannot be read or has no column of paths, OptionError for a carried
    column that it does not have.
    """
    location = file_location(text)
    with opening_errors(text):
        match location[-4:].lower():
            case ".txt":
                opened = _open_list(text, location, options)
            case ".csv":
                opened = _open_table(text, location, options, ",")
            case ".tsv":
                opened = _open_table(text, location, options, "\t")
            case _:
                opened = _open_json(text, location, options)
        return ManifestSource.of(text, location, *opened, options)


def _open_list(text: str, location: str, options: SourceOptions) -> _Opened:
    for name in options.keep:
        raise missing_column(f"the manifest {text!r}, a plain list of paths,", name, ())
    next(text_records(location), None)  # can it be read at all?
    return "file_name", partial(text_records, location), ()


def _open_table(text: str, location: str, options: SourceOptions, delimiter: str) -> _Opened:
    columns = csv_columns(location, delimiter)
    _check_carried(text, options.keep, columns)
    column = path_column(text, columns, options.image_column) if columns else ""
    carried = tuple(CarriedColumn(name, "string") for name in options.keep)
    return column, partial(csv_records, location, delimiter), carried


def _open_json(text: str, location: str, options: SourceOptions) -> _Opened:
    count = SAMPLED_ROWS if options.keep else 1
    first = [row for _, row in islice(json_records(location), count)]
    if first:
        _check_carried(text, options.keep, dict.fromkeys(name for row in first for name in row))
    column = path_column(text, list(first[0]), options.image_column) if first else ""
    return column, partial(json_records, location), infer_columns(first, options.keep)


def path_column(text: str, columns: Iterable[str], chosen: str | None) -> str:
    """The column that holds paths. Raises SourceError that names the existing columns."""
    existing = list(columns)
    for name in (chosen,) if chosen is not None else PATH_COLUMNS:
        if name in existing:
            return name
    needed = chosen if chosen is not None else "file_name, path or image"
    raise SourceError(
        "image_column",
        f"The manifest {text!r} has no column {needed}",
        f"it has {', '.join(existing)}. Name the column of paths with {option('image_column')}",
    )


def _check_carried(text: str, keep: Iterable[str], columns: Iterable[str]) -> None:
    existing = list(columns)
    for name in keep:
        if name not in existing:
            raise missing_column(f"the manifest {text!r}", name, existing)
