"""Manifests: lists and tables of image paths.

The column is ``file_name``, ``path`` or ``image``, whichever comes first in this order, or the
one named with ``--image-column``. Paths are relative to the manifest's folder and stay within it:
one that is absolute or leads out through ``..`` is a failed image (``outside_source``) unless
``--absolute-paths`` allows it, so that a manifest from elsewhere cannot make the tool read
arbitrary files. ``..`` is taken out of a path as text, without looking at the disk. Links inside
the folder are followed, as in folders. Rows are read as they are needed.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from blip2cli.errors import SourceError
from blip2cli.options import SourceOptions
from blip2cli.sources.base import FailedRef, ImageRef, absolute, name_below
from blip2cli.sources.carried_columns import LOOKED_AT, CarriedColumn, absent, types_in
from blip2cli.sources.open_file_cache import ref_at
from blip2cli.sources.patterns import has_magic
from blip2cli.sources.records import (
    Record,
    csv_columns,
    csv_records,
    json_records,
    text_records,
)
from blip2cli.storage.hash_set import HashSet
from blip2cli.storage.opening import is_remote

PATH_COLUMNS = ("file_name", "path", "image")


@dataclass(frozen=True)
class ManifestSource:
    """The images a manifest names. ``records`` gives its rows with their numbers, from 1."""

    text: str
    location: str
    column: str  # the column that holds the paths
    records: Callable[[], Iterator[Record]]
    carried: tuple[CarriedColumn, ...] = ()
    absolute_paths: bool = False
    unit: str = "line"  # what a record's number counts

    @classmethod
    def claim(cls, text: str, options: SourceOptions) -> ManifestSource | None:
        """Take a file whose suffix is ``.txt``, ``.csv``, ``.tsv`` or ``.jsonl``.

        Raises SourceError when it cannot be read or has no column of paths, OptionError when a
        column that is asked for is not there.
        """
        location = container(text, (".txt", ".csv", ".tsv", ".jsonl"))
        if location is None:
            return None
        with opening_errors(text):
            match location[-4:].lower():
                case ".txt":
                    return cls._of_text(text, location, options)
                case ".csv":
                    return cls._of_table(text, location, options, ",")
                case ".tsv":
                    return cls._of_table(text, location, options, "\t")
                case _:
                    return cls._of_json(text, location, options)

    @classmethod
    def _of_text(cls, text: str, location: str, options: SourceOptions) -> ManifestSource:
        for name in options.keep:
            raise absent(f"the manifest {text!r}, a plain list of paths,", name, ())
        next(text_records(location), None)  # can it be read at all?
        return cls(
            text,
            location,
            "file_name",
            lambda: text_records(location),
            absolute_paths=options.absolute_paths,
        )

    @classmethod
    def _of_table(
        cls, text: str, location: str, options: SourceOptions, delimiter: str
    ) -> ManifestSource:
        columns = csv_columns(location, delimiter)
        check_kept(text, options.keep, columns)
        return cls(
            text,
            location,
            path_column(text, columns, options.image_column) if columns else "",
            lambda: csv_records(location, delimiter),
            tuple(CarriedColumn(name, "string") for name in options.keep),
            options.absolute_paths,
        )

    @classmethod
    def _of_json(cls, text: str, location: str, options: SourceOptions) -> ManifestSource:
        first = [row for _, row in islice(json_records(location), LOOKED_AT if options.keep else 1)]
        if first:
            check_kept(text, options.keep, dict.fromkeys(name for row in first for name in row))
        return cls(
            text,
            location,
            path_column(text, list(first[0]), options.image_column) if first else "",
            lambda: json_records(location),
            types_in(first, options.keep),
            options.absolute_paths,
        )

    @property
    def root(self) -> str:
        """The folder the manifest lies in."""
        return posixpath.dirname(self.location)

    @property
    def unique(self) -> bool:
        """Images come once. Paths from elsewhere may clash with names here: left to the caller."""
        return not self.absolute_paths

    def carried_columns(self) -> tuple[CarriedColumn, ...]:
        """The columns carried into the rows."""
        return self.carried

    def refs(self, base: str, seen: HashSet | None = None) -> Iterator[ImageRef]:
        """Yield the images, each once; ``seen`` holds names that came before in other manifests.

        Raises SourceError for a row that is not what it should be.
        """
        seen = HashSet() if seen is None else seen
        with opening_errors(self.text):
            for number, record in self.records():
                spelled = record.get(self.column)
                if not isinstance(spelled, str) or not spelled:
                    what = "is no text" if spelled else "is missing or empty"
                    raise SourceError(
                        f"{self.location!r}, {self.unit} {number}: {self.column} {what}."
                    )
                carried = tuple(record.get(column.name) for column in self.carried)
                ref = self._ref(spelled, base, carried)
                if self.absolute_paths or seen.add(ref.file_name):
                    yield ref

    def nothing(self) -> str:
        """The sentence for a manifest without a row."""
        return f"The manifest {self.text!r} names no image; write a path a line or row."

    def _ref(self, spelled: str, base: str, carried: tuple[object, ...]) -> ImageRef:
        name = normal(spelled)
        location = place(self.root, name)
        if location is None:
            if not self.absolute_paths:
                return FailedRef(name, name, "outside_source", OUTSIDE, carried=carried)
            location = located(self.root, name)
        name = name_below(location, base)
        return ref_at(name.partition("://")[2] if is_remote(name) else name, location, carried)


OUTSIDE = "Its path leads out of the manifest's folder; --absolute-paths allows that."


def normal(spelled: str) -> str:
    """A path as text without ``.``, doubled slashes and what ``..`` can take back; URLs stay."""
    if is_remote(spelled):
        return spelled
    name = posixpath.normpath(spelled)
    return "/" + name.lstrip("/") if name.startswith("/") else name


def place(folder: str, name: str) -> str | None:
    """Where the normal path ``name`` lies below ``folder``; ``None`` when it leads out of it."""
    if is_remote(name) or name == ".." or name.startswith(("/", "../")):
        return None
    return f"{folder.rstrip('/')}/{name}"


def located(folder: str, name: str) -> str:
    """Where the normal path ``name`` leads from ``folder``, be it out of it."""
    if is_remote(name) or name.startswith("/"):
        return name
    scheme, separator, rest = folder.rpartition("://")
    return scheme + separator + posixpath.normpath(f"{rest}/{name}")


def container(text: str, suffixes: Iterable[str]) -> str | None:
    """The location of ``text`` if it is a file, here or behind a URL, with one of ``suffixes``."""
    if not text.lower().endswith(tuple(suffixes)):
        return None
    if is_remote(text):
        return None if has_magic(text) else text
    return absolute(text) if os.path.isfile(text) else None


@contextmanager
def opening_errors(text: str) -> Iterator[None]:
    """Turn an OSError of the file behind the source ``text`` into a SourceError."""
    try:
        yield
    except SourceError:  # of a URL: an OSError as well, but one that names the mend
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise SourceError(f"The source {text!r} cannot be read: {reason}.") from None


def path_column(text: str, columns: Iterable[str], wanted: str | None) -> str:
    """The column that holds paths. Raises SourceError that names the columns there are."""
    there = list(columns)
    for name in (wanted,) if wanted is not None else PATH_COLUMNS:
        if name in there:
            return name
    needed = wanted if wanted is not None else "file_name, path or image"
    raise SourceError(
        f"The manifest {text!r} has no column {needed}; it has {', '.join(there)}. Name the "
        "column of paths with --image-column."
    )


def check_kept(text: str, keep: Iterable[str], columns: Iterable[str]) -> None:
    """Raise OptionError when a column of ``keep`` is not among ``columns``."""
    there = list(columns)
    for name in keep:
        if name not in there:
            raise absent(f"the manifest {text!r}", name, there)
