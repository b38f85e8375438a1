"""Hugging Face ``imagefolder``: images with a ``metadata.jsonl`` or ``metadata.parquet``.

The column of texts is called ``text`` there. Images that failed are left out, since one that does
not decode ends loading. The metadata file is written last: where it is, the folder is complete.
"""

from __future__ import annotations

import contextlib
import os

import pyarrow as pa

from blip2cli.convert.base import Reader, RenamedColumns, Schemas, Writer
from blip2cli.convert.detect_format import METADATA_NAMES
from blip2cli.convert.examples import LeftOut
from blip2cli.convert.files import OutputFolder, check_folder
from blip2cli.convert.formats.delimited import CsvReader
from blip2cli.convert.formats.jsonl import JsonlReader, JsonlWriter
from blip2cli.convert.formats.parquet import ParquetReader, ParquetWriter
from blip2cli.convert.images import (
    image_path,
    image_root,
    local_name,
    require_file_names,
    text_column,
    without_nulls,
)
from blip2cli.errors import OptionError, OutputError, SourceError, option
from blip2cli.options import ConvertOptions, ImagesMode
from blip2cli.storage import durable

TEXT = "text"


def open_reader(path: str, options: ConvertOptions, schemas: Schemas) -> Reader:
    """The rows of the folder's metadata file, ``text`` called ``caption``. Raises SourceError."""
    for name in METADATA_NAMES:
        found = os.path.join(path, name)
        if os.path.exists(found):
            break
    else:
        raise SourceError(
            "sources", f"The folder {path!r} holds no metadata.jsonl", "it is no imagefolder"
        )
    reader: Reader
    if name.endswith(".jsonl"):
        reader = JsonlReader(found, schemas.get(found))
    elif name.endswith(".parquet"):
        reader = ParquetReader(found)
    else:
        reader = CsvReader(found, ",")
    if {"caption", "answer"} & set(reader.schema.names):
        return reader
    return RenamedColumns(reader, {TEXT: "caption"})


class ImageFolderWriter:
    """Writes one folder."""

    def __init__(self, options: ConvertOptions, reader: Reader) -> None:
        """Raises UserError, OSError."""
        require_file_names(reader, "an imagefolder")
        self._column = text_column(options, reader.schema, "an imagefolder")
        out = options.destination
        self._mode = _mode(options)
        metadata = f"metadata.{options.metadata}"
        check_folder(out, options.overwrite, METADATA_NAMES if self._mode == "none" else ())
        for name in METADATA_NAMES:
            if name != metadata and os.path.exists(os.path.join(out, name)):
                raise OutputError(
                    "destination",
                    f"{out!r} holds {name!r}, and a data set may have one metadata file only",
                    f"remove it, or choose {option('metadata')} {name.rpartition('.')[2]}",
                )
        self._root = image_root(options, "An imagefolder") if self._mode != "none" else ""
        names = [n for n in reader.schema.names if n != "error"]
        if TEXT in names and self._column != TEXT:
            raise SourceError(
                "text_column",
                "The rows have a column text already, which an imagefolder needs for "
                f"{self._column}",
                f"rename it, or add {option('text_column')} text",
            )
        self._names = names
        schema = pa.schema([reader.schema.field(n) for n in names])
        self._schema = schema.set(
            names.index(self._column), pa.field(TEXT, schema.field(self._column).type)
        )
        self.notes: list[str] = []
        self._left_out = LeftOut()
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
        batch = without_nulls(batch, self._column, self._left_out)
        for stored in batch.column("file_name").to_pylist():
            name = local_name(stored)
            if self._mode != "none" and name != self._last:
                self._add_image(name)
            self._last = name
        self._rows.write(batch.select(self._names).rename_columns(self._schema.names))

    def finish(self) -> None:
        self._rows.finish()
        self._folder.commit()
        self.notes += self._left_out.notes()

    def abort(self) -> None:
        self._rows.abort()
        self._folder.abort()

    def _add_image(self, name: str) -> None:
        source = image_path(self._root, name)
        place = self._folder.file(name)
        if os.path.lexists(place):
            if os.path.exists(place) and os.path.samefile(place, source):
                return
            durable.remove_quietly(place)  # to be overwritten, or written before
        if self._mode == "link":
            # Images on another file system are copied.
            with contextlib.suppress(OSError):
                os.link(os.path.realpath(source), place)
                return
        durable.copy_file(source, durable.temporary_name(place), place)


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
            "images",
            f"{option('images')} {options.images}: {out!r} is the folder of the images itself",
            f"leave {option('images')} out",
        )
    return options.images


open_writer = ImageFolderWriter
