"""Manifests: lists and tables of image paths.

In JSON (``.json``) rows are the objects of a list, of COCO annotations those of ``images``.

The column is the first of ``PATH_COLUMNS`` (``file_name``, ``path``, ``image``) that there is, or
the one named with the option ``image_column``. Paths are relative to the manifest's folder, or to
``image_root``, and stay within it: one that is absolute or leads out through ``..`` is a failed
image (``outside_source``) unless ``absolute_paths`` allows it, or it is the URL of a web server, in
a list or in a column that was named. Rows are read as they are needed.

An image that is named twice comes once; where columns are carried into the rows (option ``keep``)
it comes for each row that names it. A row of a list of failures may say which of them it is.

``error_type`` names raised here: ``bad_row`` (a row that cannot be read), ``missing`` (one without
a path), ``outside_source``.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

from blip2cli.errors import SourceError
from blip2cli.sources.base import FailedRef, ImageRef, RefBlock, name_below, opening_errors
from blip2cli.sources.carried_columns import (
    ROW_NUMBER,
    SAMPLED_ROWS,
    CarriedColumn,
    ColumnedSource,
    infer_columns,
    missing_column,
)
from blip2cli.sources.csv_rows import csv_dialect, csv_records
from blip2cli.sources.json_rows import element_records
from blip2cli.sources.manifest_paths import OUTSIDE, file_location, locate, normal_path
from blip2cli.sources.members import MAX_NAME
from blip2cli.sources.path_columns import path_column
from blip2cli.sources.records import (
    BadRow,
    Record,
    broken,
    is_packed,
    json_records,
    text_blocks,
    text_records,
    unpacked_suffix,
)
from blip2cli.sources.remote_ref import ref_at
from blip2cli.sources.url_names import UrlNames, public_name, url_name
from blip2cli.storage.hash_set import OCCURRENCE, HashSet
from blip2cli.storage.opening import is_remote
from blip2cli.storage.text_encoding import from_utf8

if TYPE_CHECKING:
    from blip2cli.options import SourceOptions

FIRST_ROWS = 10  # rows of JSON Lines that tell which columns there are
# The column of paths, the rows, and the columns that are carried into the output.
_Opened = tuple[str, Callable[[], Iterator[Record]], tuple[CarriedColumn, ...]]


@dataclass(frozen=True)
class ManifestSource(ColumnedSource):
    """The images a manifest names. ``records`` gives its rows with the numbers of their lines (of
    the rows themselves in Parquet), from 1."""

    location: str
    column: str  # the column that holds the paths
    records: Callable[[], Iterator[Record]]
    absolute_paths: bool
    unescaped: bool = True  # paths are stored as ``text_encoding`` says
    web: bool = False  # the column was named, and may hold URLs of web servers
    # Of a list: its lines many together.
    read_blocks: Callable[[str], Iterator[tuple[list[str], list[Record]]]] = text_blocks

    has_rows: ClassVar[bool] = True

    @classmethod
    def of(
        cls,
        text: str,
        location: str,
        column: str,
        rows: Callable[[], Iterator[Record]],
        columns: tuple[CarriedColumn, ...],
        options: SourceOptions,
    ) -> ManifestSource:
        """The manifest at ``location``; ``root`` is the folder it lies in.

        Images come once. Paths from elsewhere may clash with names here: left to the caller.
        """
        root, outside = posixpath.dirname(location), options.absolute_paths
        if options.image_root is not None:
            root = file_location(options.image_root).rstrip("/") or "/"
        web = options.image_column is not None
        # A list has paths as they are on disk.
        unescaped = unpacked_suffix(location) != ".txt"
        return cls(
            text, root, location, column, rows, outside, unescaped, web,
            unique=not (outside or web), columns=columns,
        )  # fmt: skip

    def carried_columns(self) -> tuple[CarriedColumn, ...]:
        return (*self.columns, ROW_NUMBER)

    def refs(self, base: str, seen: HashSet | None = None) -> Iterator[ImageRef]:
        """Yield the images, each once; where columns are carried, for each row.

        ``seen`` holds names that came before in other manifests.
        """
        seen = HashSet() if seen is None else seen
        urls = UrlNames()
        with opening_errors(self.text):
            for number, record in self.records():
                ref = self._ref(number, record, base, urls)
                if self.columns or not self.unique or seen.add(ref.file_name):
                    yield ref

    def blocks(self, base: str) -> Iterator[RefBlock] | None:
        """Those of a list, whose names are mostly what stands in its lines."""
        if self.unescaped or self.absolute_paths or is_packed(self.location):
            return None
        if is_remote(self.root) or self.web:
            return None
        return self._blocks(base)

    def _blocks(self, base: str) -> Iterator[RefBlock]:
        where = self.root.rstrip("/") + "/"
        named = name_below(where, base)
        urls = UrlNames()
        with opening_errors(self.text):
            for names, records in self.read_blocks(self.location):
                if names:
                    yield RefBlock.of_files(names, named, where, unique=False)
                if records:
                    refs = [self._ref(*record, base, urls) for record in records]
                    yield RefBlock.of(refs, unique=False)

    def content_files(self) -> tuple[str, ...]:
        # Rows of a list of failures say themselves which they are.
        listed = self.location.lower().endswith(".errors")
        return (self.location,) if self.columns and not listed else ()

    def list_files(self) -> tuple[str, ...] | None:
        return None if is_remote(self.location) else (self.location,)

    def no_images(self) -> SourceError:
        return SourceError(
            "sources", f"The manifest {self.text!r} names no image", "write a path a line or row"
        )

    def _ref(
        self, number: int, record: Mapping[str, object] | BadRow, base: str, urls: UrlNames
    ) -> ImageRef:
        if isinstance(record, BadRow):
            message = SourceError(None, record.problem, record.remedy).sentence()
            return self._failed(number, base, "bad_row", f"{message[:1].upper()}{message[1:]}")
        carried = tuple([record.get(column.name) for column in self.columns])
        written = record.get(self.column)
        if not isinstance(written, str) or not written:
            what = "is no text" if written else "is missing or empty"
            message = f"Its {self.column} {what}."
            return self._failed(number, base, "missing", message, carried)
        if len(written) > MAX_NAME:
            message = f"Its {self.column} is over {MAX_NAME} characters long."
            return self._failed(number, base, "missing", message, carried)
        if self.unescaped:
            written = from_utf8(written)
        name = normal_path(written)
        occurrence = _stated_occurrence(record) if self.columns else 0
        web = (self.web or not self.unescaped) and name.startswith(("http://", "https://"))
        anywhere = self.absolute_paths or web
        location = locate(self.root, name, anywhere)
        if location is None:
            name = public_name(name)
            given = (name, name, "outside_source", OUTSIDE)
            return FailedRef(*given, carried=carried, occurrence=occurrence)
        if is_remote(location):
            name = urls.unique(url_name(location, base), location)
        else:
            name = name_below(location, base)
        return ref_at(name, location, carried, occurrence)

    def _failed(
        self,
        number: int,
        base: str,
        error_type: str,
        message: str,
        carried: tuple[object, ...] | None = None,
    ) -> FailedRef:
        """The failure of a row without an image, named by the manifest and its number."""
        path = f"{self.location}/{number:08d}"
        carried = (None,) * len(self.columns) if carried is None else carried
        return FailedRef(name_below(path, base), path, error_type, message, carried=carried)


def open_source(
    text: str, options: SourceOptions, sampled_rows: int = SAMPLED_ROWS
) -> ManifestSource:
    """The manifest ``text``; by its suffix a list of paths, a table, or else JSON Lines.

    The types of carried columns are those of the first ``sampled_rows`` rows of JSON Lines.

    Raises SourceError when it cannot be read or has no column of paths, OptionError for a carried
    column that it does not have.
    """
    location = file_location(text)
    with opening_errors(text):
        match unpacked_suffix(location):
            case ".txt":
                opened = _open_list(text, location, options)
            case ".csv":
                opened = _open_table(text, location, options, ",")
            case ".tsv":
                opened = _open_table(text, location, options, "\t")
            case ".json":
                opened = _open_json(text, location, options, sampled_rows, element_records)
            case _:
                opened = _open_json(text, location, options, sampled_rows, json_records)
        return ManifestSource.of(text, location, *opened, options)


def _open_list(text: str, location: str, options: SourceOptions) -> _Opened:
    for name in options.keep:
        raise missing_column(f"the manifest {text!r}, a plain list of paths,", name, ())
    first = next(text_records(location), None)
    if first is not None and isinstance(first[1], BadRow):
        raise broken(location, first[0], first[1].problem, first[1].remedy)
    return "file_name", partial(text_records, location), ()


def _open_table(text: str, location: str, options: SourceOptions, delimiter: str) -> _Opened:
    dialect = csv_dialect(location, delimiter)
    columns = dialect.columns
    _check_carried(text, options.keep, columns)
    column = path_column(text, columns, options.image_column) if columns else ""
    carried = tuple(CarriedColumn(name, "string") for name in options.keep)
    return column, partial(csv_records, location, dialect), carried


def _open_json(
    text: str,
    location: str,
    options: SourceOptions,
    sampled_rows: int,
    records: Callable[[str], Iterator[Record]],
) -> _Opened:
    names: dict[str, None] = {}  # rows themselves may be large
    bad: tuple[int, BadRow] | None = None
    for number, row in islice(records(location), FIRST_ROWS):
        if isinstance(row, BadRow):
            bad = bad or (number, row)
        else:
            names |= dict.fromkeys(row)
    if bad is not None and not names:
        problem = "a .jsonl file has a JSON object a line, a .json file a list of them"
        raise broken(location, bad[0], bad[1].problem, problem)
    column = path_column(text, names, options.image_column) if names else ""
    columns: tuple[CarriedColumn, ...] = ()
    if options.keep:
        sampled = islice(records(location), sampled_rows)
        objects = (row for _, row in sampled if not isinstance(row, BadRow))
        columns = infer_columns(_noting(names, objects), options.keep)
    if names:
        _check_carried(text, options.keep, names)
    return column, partial(records, location), columns


def _noting(
    names: dict[str, None], rows: Iterable[Mapping[str, object]]
) -> Iterator[Mapping[str, object]]:
    """``rows``, whose columns are added to ``names``."""
    for row in rows:
        names |= dict.fromkeys(row)
        yield row


def _stated_occurrence(row: Mapping[str, object]) -> int:
    """Which row about its image failed, as the row of a list of failures says; else 0."""
    stated = row.get(OCCURRENCE) if "error_type" in row else None
    return stated if type(stated) is int and 0 < stated < 1 << 32 else 0


def _check_carried(text: str, keep: Iterable[str], columns: Iterable[str]) -> None:
    existing = list(columns)
    for name in keep:
        if name not in existing:
            raise missing_column(f"the manifest {text!r}", name, existing)
