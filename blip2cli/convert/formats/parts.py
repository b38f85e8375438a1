"""A folder of Parquet parts, as runs write it: read as one table, written in parts of equal length.

Of an unfinished output the visible parts are read, as other programs do; to salvage one, the hidden
files behind them, too.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pyarrow as pa

from blip2cli.convert.base import Reader, Schemas
from blip2cli.convert.column_types import conform
from blip2cli.convert.concat import ConcatenatedReader
from blip2cli.convert.files import check_folder, new_folder
from blip2cli.convert.formats.merged_parquet import PartWriter
from blip2cli.convert.formats.parquet import ParquetReader, ParquetWriter
from blip2cli.convert.merge import MergedReader
from blip2cli.convert.salvage import whole_images
from blip2cli.errors import OutputError, SourceError, option
from blip2cli.options import ConvertOptions
from blip2cli.sinks.folder import count_rows, read_layout, rows_per_part
from blip2cli.sinks.folder_journal import folder_settings
from blip2cli.sinks.folder_layout import LayoutError, Piece, part_name, readable_pieces
from blip2cli.sinks.folder_store import open_store
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings import Settings, begin_settings, read_settings
from blip2cli.sinks.settings_file import mark, marks


class PartsReader(ConcatenatedReader):
    """The rows of all parts, in order."""

    shared_by = 1  # readers that read at the same time, and have the memory for batches together

    def __init__(self, path: str, salvage: bool = False) -> None:
        """Raises SourceError."""
        self._salvage = salvage
        paths = OutputPaths.of(path)
        store = open_store(paths)
        self._pieces, settings, more = _pieces(paths, salvage)
        readers = []
        for piece in list(self._pieces):
            try:
                readers.append(ParquetReader(store.shown(piece.name), salvage))
            except SourceError as error:
                if not salvage:
                    raise
                more.append(f"Left out {store.shown(piece.name)!r}: {error.problem}.")
                self._pieces.remove(piece)
        if not readers:
            raise SourceError("sources", f"{path!r} has no part that can be read")
        super().__init__(readers)
        self._more_notes = more
        self.settings = settings or self.settings
        self.path = path

    @property
    def notes(self) -> list[str]:
        return [*self._more_notes, *super().notes]

    def batches(self) -> Iterator[pa.RecordBatch]:
        for reader in self._readers:
            reader.shared_by = self.shared_by  # type: ignore[attr-defined] # of Parquet
        return whole_images(self._sound_pieces()) if self._salvage else super().batches()

    def _sound_pieces(self) -> Iterator[pa.RecordBatch | None]:
        """The rows as far as they can be read; None stands for what is left out."""
        self._done, reached = 0, 0
        for piece, reader in zip(self._pieces, self._readers, strict=True):
            if piece.start > reached:
                yield None
            skip = piece.skip
            for batch in reader.pieces():  # type: ignore[attr-defined] # of Parquet
                if batch is None:
                    skip = 0  # rows that come twice are noticed later
                    yield None
                else:
                    yield conform(batch.slice(skip), self.schema)
                    skip = max(0, skip - batch.num_rows)
            self._done += reader.size
            reached = piece.end


def _pieces(paths: OutputPaths, salvage: bool) -> tuple[list[Piece], Settings | None, list[str]]:
    """The files to read, the settings, and notes. Raises SourceError."""
    store = open_store(paths)
    names = sorted(store.sizes())
    replaces = marks(paths).get("replaces") is True
    if salvage:
        settings = read_settings(paths)
        with contextlib.suppress(LayoutError):
            settings, _ = folder_settings(paths, store, names, replaces)
        counted = partial(count_rows, store)
        return readable_pieces(names, rows_per_part(settings), counted, replaces), settings, []
    try:
        settings, _ = folder_settings(paths, store, names)
        layout = read_layout(store, settings, replaces=False)
    except LayoutError as error:
        raise SourceError(
            "sources",
            f"{paths.final!r} is damaged: {error}",
            f"'blip2cli verify' says what is sound in it, and {option('salvage')} keeps that",
        ) from None
    notes = []
    if layout.hidden:
        count = layout.rows - layout.visible
        notes.append(
            f"The run that wrote {paths.final!r} is not finished: its last {count} rows are not in "
            f"a part yet, and left out; {option('resume')} goes on with it."
        )
    return [piece for piece in layout.pieces() if piece.name in layout.parts], settings, notes


class PartsWriter:
    """Writes a new folder, which appears complete or not at all."""

    def __init__(self, options: ConvertOptions, reader: Reader) -> None:
        """Raises OutputError, OSError."""
        out = options.destination
        check_folder(out, options.overwrite)
        if os.path.isdir(out) and os.listdir(out):
            raise OutputError(
                "destination", f"The folder {out!r} is not empty", "choose another name"
            )
        self.notes: list[str] = []
        self._paths = OutputPaths.of(out.rstrip("/") + "/")
        self._schema, self._settings = reader.schema, reader.settings
        self._part_rows = options.shard_size or rows_per_part(reader.settings)
        if self._settings is not None:
            rows = {**self._settings.rows, "rows_per_part": self._part_rows}
            self._settings = replace(self._settings, rows=rows).as_copy()
        self._folder = new_folder(out)
        self._merges = isinstance(reader, MergedReader)  # the bytes are those that a run writes
        self._part: ParquetWriter | PartWriter | None = None
        self._rows = 0  # of all parts

    def write(self, batch: pa.RecordBatch) -> None:
        while batch.num_rows:
            if self._part is None:
                self._open()
            assert self._part is not None
            head = batch.slice(0, self._part_rows - self._rows % self._part_rows)
            self._part.write(head)
            self._rows += head.num_rows
            batch = batch.slice(head.num_rows)
            if self._rows % self._part_rows == 0:
                self._close()

    def finish(self) -> None:
        if not self._rows:
            self._open()
        self._close()
        if self._settings is not None:  # as in a run, they are there before the rows
            begin_settings(self._paths, self._settings)
        self._folder.commit()
        if self._settings is not None:
            mark(self._paths, finished=True)

    def abort(self) -> None:
        if self._part is not None:
            self._part.abort()
        self._folder.abort()

    def _open(self) -> None:
        name = part_name(self._rows // self._part_rows)
        path = os.path.join(self._folder.path, name)
        if self._merges and self._settings is not None:
            self._part = PartWriter(path, self._schema, self._settings)
        else:
            self._part = ParquetWriter(path, self._schema, self._settings)

    def _close(self) -> None:
        if self._part is not None:
            self._part.finish()
        self._part = None


def open_reader(path: str, options: ConvertOptions, schemas: Schemas) -> PartsReader:
    """The rows of ``path``. Raises SourceError."""
    return PartsReader(path, options.salvage)


open_writer = PartsWriter
