"""Hugging Face ``imagefolder``: images with a ``metadata.jsonl`` or ``metadata.parquet``.

The column of texts is called ``text`` there. Images that failed are left out, since one that does
not decode ends loading. The metadata file comes last: where it is, the folder is complete.
"""

from __future__ import annotations

import contextlib
import os
import shutil

import pyarrow as pa

from blip2cli.convert.files import OutputFolder, check_folder
from blip2cli.convert.formats.base import Examples, Reader, Renamed, Told, Writer
from blip2cli.convert.formats.delimited import CsvReader
from blip2cli.convert.formats.jsonl import JsonlReader, JsonlWriter
from blip2cli.convert.formats.parquet import ParquetReader, ParquetWriter
from blip2cli.convert.images import (
    image_path,
    image_root,
    local_name,
    need_names,
    text_column,
)
from blip2cli.convert.kernels import pc
from blip2cli.convert.options import ConvertOptions, ImagesMode
from blip2cli.convert.paths import METADATA_NAMES
from blip2cli.errors import OptionError, OutputError, SourceError
from blip2cli.storage import durable

TEXT = "text"


def write(options: ConvertOptions, reader: Reader) -> ImageFolderWriter:
    """A writer for rows like those of ``reader``. Raises UserError, OSError."""
    return ImageFolderWriter(options, reader)


def read(path: str, options: ConvertOptions, told: Told) -> Reader:
    """The rows of the folder's metadata file, ``text`` called ``caption``. Raises SourceError."""
    for name in METADATA_NAMES:
        found = os.path.join(path, name)
        if os.path.exists(found):
            break
    else:
        raise SourceError(f"The folder {path!r} holds no metadata.jsonl; it is no imagefolder.")
    below: Reader
    if name.endswith(".jsonl"):
        below = JsonlReader(found, told.get(found))
    elif name.endswith(".parquet"):
        below = ParquetReader(found)
    else:
        below = CsvReader(found, ",")
    if {"caption", "answer"} & set(below.schema.names):
        return below
    return Renamed(below, {TEXT: "caption"})


class ImageFolderWriter:
    """Writes one folder."""

    def __init__(self, options: ConvertOptions, reader: Reader) -> None:
        need_names(reader, "an imagefolder")
        self._column = text_column(options, reader.schema, "an imagefolder")
        out = options.destination
        self._mode = _mode(options)
        metadata = f"metadata.{options.metadata}"
        check_folder(out, options.overwrite, METADATA_NAMES if self._mode == "none" else ())
        others = [n for n in METADATA_NAMES if n != metadata]
        for name in others:
            if os.path.exists(os.path.join(out, name)):
                raise OutputError(
                    f"{out!r} holds {name!r}, and a data set may have one metadata file only; "
                    f"remove it, or choose --metadata {name.rpartition('.')[2]}."
                )
        self._root = image_root(options, "An imagefolder") if self._mode != "none" else ""
        names = [n for n in reader.schema.names if n != "error"]
        if TEXT in names and self._column != TEXT:
            raise SourceError(
                "The rows have a column text already, which an imagefolder needs for "
                f"{self._column}; rename it, or add --text-column text."
            )
        self._names = names
        schema = pa.schema([reader.schema.field(n) for n in names])
        self._schema = schema.set(
            names.index(self._column), pa.field(TEXT, schema.field(self._column).type)
        )
        self.notes: list[str] = []
        self._failed = Examples()
        self._last = ""
        self._folder = OutputFolder(out)
        path = self._folder.file(metadata)
        try:
            self._rows: Writer = (
                JsonlWriter(path, self._schema, None)
                if options.metadata == "jsonl"
                else ParquetWriter(path, self._schema, None)
            )
        except BaseException:
            self._folder.abort()
            raise

    def write(self, batch: pa.RecordBatch) -> None:
        good = pc.is_valid(batch.column(self._column))
        for name in batch.filter(pc.invert(good)).column("file_name").to_pylist():
            self._failed.add(name)
        batch = batch.filter(good)
        for stored in batch.column("file_name").to_pylist():
            name = local_name(stored)
            if self._mode != "none" and name != self._last:
                self._bring(name)
            self._last = name
        self._rows.write(batch.select(self._names).rename_columns(self._schema.names))

    def finish(self) -> None:
        self._rows.finish()
        self._folder.commit()
        if self._failed.count:
            self.notes.append(
                f"Left out {self._failed.count} without a text (failed images): {self._failed}."
            )

    def abort(self) -> None:
        self._rows.abort()
        self._folder.abort()

    def _bring(self, name: str) -> None:
        source = image_path(self._root, name)
        place = self._folder.file(name)
        if os.path.lexists(place):
            if os.path.samefile(place, source):
                return
            durable.remove_quietly(place)  # --overwrite, or an image that came before
        if self._mode == "link":
            # Where the images are on another file system, they are copied.
            with contextlib.suppress(OSError):
                os.link(os.path.realpath(source), place)
                return
        temporary = place + ".tmp"
        with open(source, "rb") as old, open(temporary, "wb") as new:
            shutil.copyfileobj(old, new, 1 << 20)
            new.flush()
            os.fsync(new.fileno())
        os.replace(temporary, place)


def _mode(options: ConvertOptions) -> ImagesMode:
    """How images get into the folder. Raises OptionError for a folder that holds them already."""
    out, root = options.destination, options.image_root
    beside = os.path.isdir(out) and (
        root is None or os.path.realpath(root) == os.path.realpath(out)
    )
    if options.images is None:
        return "none" if beside else "link"
    if beside and root is not None and options.images != "none":
        raise OptionError(
            f"--images {options.images}: {out!r} is the folder of the images itself; leave "
            "--images out."
        )
    return options.images
