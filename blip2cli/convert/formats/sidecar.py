"""Sidecars: a text file beside each image, ``a.txt`` or ``a.caption`` for ``a.jpg``.

UTF-8, one line, never empty, since trainers stop at an empty file. Files that exist already are
only replaced with the option ``overwrite``, which is checked before the first one is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pyarrow as pa

from blip2cli.convert.arrow_json import json_rows
from blip2cli.convert.base import BATCH_ROWS, Reader, Schemas, read_errors
from blip2cli.convert.column_types import as_text
from blip2cli.convert.examples import Examples
from blip2cli.convert.files import check_folder
from blip2cli.convert.images import local_name, one_line, require_file_names, text_column
from blip2cli.errors import OptionError, OutputError, SourceError, option
from blip2cli.options import ConvertOptions
from blip2cli.sinks.settings import Settings
from blip2cli.sources.image_suffixes import IMAGE_SUFFIXES
from blip2cli.storage import durable
from blip2cli.storage.hash_set import HashSet
from blip2cli.storage.text_encoding import to_utf8

SUFFIXES = (".txt", ".caption")


class SidecarWriter:
    """Writes a file for each row."""

    def __init__(self, options: ConvertOptions, reader: Reader) -> None:
        """Raises UserError, OSError."""
        require_file_names(reader, "a sidecar")
        for field, given in (("prefix", options.prefix), ("suffix", options.suffix)):
            if len(given.splitlines()) > 1 or given.endswith(("\n", "\r")):
                raise OptionError(
                    field, f"{option(field)} holds a line break", "a sidecar is one line"
                )
        self._options = options
        self._column = text_column(options, reader.schema, "a sidecar")
        self._suffix = options.sidecar_suffix or ".txt"
        self._root = os.path.realpath(options.destination)
        self.notes: list[str] = []
        self._without_text = Examples()
        self._folders: set[str] = set()
        check_folder(options.destination, overwrite=True)
        self._check(reader)

    def write(self, batch: pa.RecordBatch) -> None:
        for name, text in self._texts(batch):
            if not text:
                self._without_text.add(name)
                continue
            path = self._path(name)
            folder = os.path.dirname(path)
            if folder not in self._folders:
                os.makedirs(folder, exist_ok=True)
                self._folders.add(folder)
            data = text.encode("utf-8", "replace") + b"\n"
            replace = self._options.overwrite
            durable.replace_file(durable.temporary_name(path), path, data, False, replace)

    def finish(self) -> None:
        for folder in sorted(self._folders):
            durable.sync_folder(folder)
        found = self._without_text
        if found.count:
            self.notes.append(f"{found.count} without a text have no file: {found}.")

    def abort(self) -> None:
        """Files that are in place are complete, and stay."""

    def _check(self, reader: Reader) -> None:
        """Raises UserError for files that exist, and for two images with one file."""
        existing, seen = Examples(), HashSet()
        for batch in reader.batches():
            for name, text in self._texts(batch):
                path = self._path(name)
                if not text:
                    continue
                if not seen.add(path):
                    raise SourceError(
                        "sources",
                        f"{name!r} would share {os.path.basename(path)!r} with a row before",
                        "a sidecar holds one text of one image, so convert those rows apart",
                    )
                if os.path.isdir(path):
                    problem = f"{path!r}, the sidecar of {name!r}, is a folder"
                    raise OutputError("destination", problem, "choose another folder")
                if os.path.lexists(path):
                    existing.add(os.path.relpath(path, self._root))
        if existing.count and not self._options.overwrite:
            raise OutputError(
                "destination",
                f"{existing.count} of the files are there already: {existing}",
                f"add {option('overwrite')} to replace them, or choose another folder or "
                f"{option('sidecar_suffix')}",
            )

    def _texts(self, batch: pa.RecordBatch) -> Iterator[tuple[str, str]]:
        """Names and texts on one line, with prefix and suffix; empty for a row without a text."""
        rows = json_rows(batch.select(["file_name", self._column]))
        for stored, value in (tuple(row.values()) for row in rows):
            line = one_line(as_text(value) or "")
            options = self._options
            yield local_name(stored), options.prefix + line + options.suffix if line else ""

    def _path(self, name: str) -> str:
        return os.path.join(self._root, os.path.splitext(name)[0] + self._suffix)


class SidecarReader:
    """``file_name`` and ``caption`` of every text file, in the order of their paths.

    The name is that of the image beside it (or below ``options.image_root``); without an image it
    is the file's own without its suffix.
    """

    def __init__(self, path: str, options: ConvertOptions, schemas: Schemas) -> None:
        """Raises SourceError."""
        self.path = path
        self.schema = pa.schema([("file_name", pa.string()), ("caption", pa.string())])
        self.settings: Settings | None = None
        self.notes: list[str] = []
        self._options = options
        self._suffixes = (options.sidecar_suffix,) if options.sidecar_suffix else SUFFIXES
        if not os.path.isdir(path):
            remedy = "name the one that holds the sidecars"
            raise SourceError("sources", f"{path!r} is no folder", remedy)
        with read_errors(path):
            self.size = sum(1 for _ in self._files())
        if not self.size:
            problem = f"The folder {path!r} holds no file that ends in "
            raise SourceError("sources", problem + " or ".join(self._suffixes))
        self._done = 0

    def position(self) -> int:
        return self._done

    def batches(self) -> Iterator[pa.RecordBatch]:
        self._done = 0
        without_image = Examples()
        rows: list[dict[str, str]] = []
        with read_errors(self.path):
            for stem, file, images in self._files():
                if not images:
                    without_image.add(stem)
                text = self._text(file)
                rows += [
                    {"file_name": to_utf8(n), "caption": to_utf8(text)} for n in images or [stem]
                ]
                self._done += 1
                if len(rows) >= BATCH_ROWS:
                    yield pa.RecordBatch.from_pylist(rows, self.schema)
                    rows = []
        if rows:
            yield pa.RecordBatch.from_pylist(rows, self.schema)
        self.notes = []
        if without_image.count:
            self.notes.append(
                f"{without_image.count} have no image beside them: {without_image}; name the "
                f"folder of the images with {option('image_root')}."
            )

    def _files(self) -> Iterator[tuple[str, str, list[str]]]:
        """(name without suffix, path, names of its images) of every sidecar."""
        for folder, below, names in os.walk(self.path):
            below.sort()
            inside = os.path.relpath(folder, self.path)
            inside = "" if inside == "." else inside.replace(os.sep, "/") + "/"
            texts = sorted(n for n in names if n.endswith(self._suffixes) and n[0] != ".")
            if not texts:
                continue
            images = self._images(inside, names)
            stems: set[str] = set()
            for name in texts:
                stem = os.path.splitext(name)[0]
                if stem in stems:
                    raise SourceError(
                        "sidecar_suffix",
                        f"{inside + stem!r} has a .txt and a .caption file",
                        f"choose one with {option('sidecar_suffix')}",
                    )
                stems.add(stem)
                yield inside + stem, os.path.join(folder, name), images.get(stem, [])

    def _images(self, inside: str, names: list[str]) -> dict[str, list[str]]:
        if self._options.image_root is not None:
            place = os.path.join(self._options.image_root, inside)
            names = os.listdir(place) if os.path.isdir(place) else []
        found: dict[str, list[str]] = {}
        for name in sorted(names):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in IMAGE_SUFFIXES:
                found.setdefault(stem, []).append(inside + name)
        return found

    def _text(self, path: str) -> str:
        with open(path, "rb") as file:
            text = file.read().decode("utf-8-sig", "surrogateescape").strip("\r\n")
        return text.removeprefix(self._options.prefix).removesuffix(self._options.suffix)


open_reader, open_writer = SidecarReader, SidecarWriter
