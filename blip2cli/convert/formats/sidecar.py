"""A text file for each image, as trainers read them: ``a.jpg`` has ``a.txt`` or ``a.caption``.

UTF-8, one line, never empty, since trainers stop at an empty file. A file that is there is not
replaced without ``--overwrite``, and this is known before the first one is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pyarrow as pa

from blip2cli.convert.files import check_folder
from blip2cli.convert.formats.base import BATCH_ROWS, Examples, Reader, Told, reading
from blip2cli.convert.images import local_name, need_names, text_column
from blip2cli.convert.options import ConvertOptions
from blip2cli.errors import OptionError, OutputError, SourceError
from blip2cli.sinks.settings import Settings
from blip2cli.sources.base import IMAGE_SUFFIXES
from blip2cli.storage import durable
from blip2cli.storage.hash_set import HashSet
from blip2cli.storage.text_encoding import to_utf8

SUFFIXES = (".txt", ".caption")


def write(options: ConvertOptions, reader: Reader) -> SidecarWriter:
    """A writer for rows like those of ``reader``. Raises UserError, OSError."""
    return SidecarWriter(options, reader)


def read(path: str, options: ConvertOptions, told: Told) -> SidecarReader:
    """The texts below the folder ``path``. Raises SourceError."""
    return SidecarReader(path, options)


class SidecarWriter:
    """Writes a file for each row."""

    def __init__(self, options: ConvertOptions, reader: Reader) -> None:
        need_names(reader, "a sidecar")
        for name, given in (("--prefix", options.prefix), ("--suffix", options.suffix)):
            if len(given.splitlines()) > 1 or given.endswith(("\n", "\r")):
                raise OptionError(f"{name} holds a line break; a sidecar is one line.")
        self._options = options
        self._column = text_column(options, reader.schema, "a sidecar")
        self._suffix = options.sidecar_suffix or ".txt"
        self._root = os.path.realpath(options.destination)
        self.notes: list[str] = []
        self._without = Examples()
        self._written = 0
        self._folders: set[str] = set()
        check_folder(options.destination, overwrite=True)
        self._look(reader)

    def write(self, batch: pa.RecordBatch) -> None:
        for name, text in self._texts(batch):
            if not text:
                self._without.add(name)
                continue
            path = self._place(name)
            folder = os.path.dirname(path)
            if folder not in self._folders:
                os.makedirs(folder, exist_ok=True)
                self._folders.add(folder)
            self._put(path, text.encode("utf-8", "replace") + b"\n")
            self._written += 1

    def finish(self) -> None:
        for folder in sorted(self._folders):
            durable.sync_folder(folder)
        if self._without.count:
            self.notes.append(
                f"{self._without.count} without a text have no file: {self._without}."
            )

    def abort(self) -> None:
        """Files that are in place are whole, and stay."""

    def _look(self, reader: Reader) -> None:
        """Raises for files that are there, and for two images with one file."""
        there, seen = Examples(), HashSet()
        for batch in reader.batches():
            for name, text in self._texts(batch):
                path = self._place(name)
                if not text:
                    continue
                if not seen.add(path):
                    raise SourceError(
                        f"{name!r} would share {os.path.basename(path)!r} with a row before; a "
                        "sidecar holds one text of one image, so convert those rows apart."
                    )
                if os.path.lexists(path):
                    there.add(os.path.relpath(path, self._root))
        if there.count and not self._options.overwrite:
            raise OutputError(
                f"{there.count} of the files are there already: {there}; add --overwrite to "
                "replace them, or choose another folder or --sidecar-suffix."
            )

    def _texts(self, batch: pa.RecordBatch) -> Iterator[tuple[str, str]]:
        """Names, and texts of one line with what goes around them; none for a row without one."""
        columns = (batch.column(name).to_pylist() for name in ("file_name", self._column))
        for stored, value in zip(*columns, strict=True):
            line = " ".join(_printable(str(value)).split()) if value is not None else ""
            options = self._options
            yield local_name(stored), options.prefix + line + options.suffix if line else ""

    def _place(self, name: str) -> str:
        return os.path.join(self._root, os.path.splitext(name)[0] + self._suffix)

    def _put(self, path: str, data: bytes) -> None:
        folder, name = os.path.split(path)
        durable.replace_file(os.path.join(folder, f".{name}.tmp"), path, data, sync=False)


def _printable(text: str) -> str:
    """Control characters become blanks."""
    return "".join(" " if ord(c) < 32 or ord(c) == 127 else c for c in text)


class SidecarReader:
    """``file_name`` and ``caption`` of every text file, in the order of their paths.

    The name is that of the image beside it (or below ``--image-root``); without an image it is
    the file's own without its suffix.
    """

    def __init__(self, path: str, options: ConvertOptions) -> None:
        self.path = path
        self.schema = pa.schema([("file_name", pa.string()), ("caption", pa.string())])
        self.settings: Settings | None = None
        self.notes: list[str] = []
        self._options = options
        self._suffixes = (options.sidecar_suffix,) if options.sidecar_suffix else SUFFIXES
        if not os.path.isdir(path):
            raise SourceError(f"{path!r} is no folder; name the one that holds the sidecars.")
        with reading(path):
            self.size = sum(1 for _ in self._files())
        if not self.size:
            raise SourceError(
                f"The folder {path!r} holds no file that ends in {' or '.join(self._suffixes)}."
            )
        self._done = 0

    def position(self) -> int:
        return self._done

    def batches(self) -> Iterator[pa.RecordBatch]:
        self._done = 0
        alone = Examples()
        rows: list[dict[str, str]] = []
        with reading(self.path):
            for stem, file, images in self._files():
                if not images:
                    alone.add(stem)
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
        if alone.count:
            self.notes.append(
                f"{alone.count} have no image beside them: {alone}; name the folder of the images "
                "with --image-root."
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
                        f"{inside + stem!r} has a .txt and a .caption file; choose one with "
                        "--sidecar-suffix."
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
