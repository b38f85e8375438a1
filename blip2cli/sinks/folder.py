"""Writer of a folder of Parquet parts, which grows by complete parts of the same number of rows.

Rows are first committed to hidden files (see ``folder_layout``), each a complete Parquet file. As
soon as they are enough for a part, it is made of them, row group by row group, and appears in one
step; then the hidden files go. So the bytes of a part depend on its rows alone, not on where
batches or runs ended. ``close`` makes the last, shorter part, which a later run that adds rows
replaces.

The settings beside the folder are the commit point of a new output: before them, its first hidden
file is nobody's. An output that is overwritten stays until the first part of the new one can be
made, and is removed just before that appears; readers see old rows, none, or new ones.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial

import pyarrow as pa
import pyarrow.parquet as pq

from blip2cli.errors import RunError, option
from blip2cli.sinks.base import DiskGuard, RowSchema
from blip2cli.sinks.folder_layout import ROWS_PER_PART, Layout, LayoutError, layout_of, part_name
from blip2cli.sinks.folder_store import FolderStore, open_store
from blip2cli.sinks.journal import Journal
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.row_groups import (
    ARROW_ERRORS,
    UncommittedRows,
    arrow_schema,
    first_line,
    group_rows,
    parquet_writer,
    read_batches,
    row_groups,
)
from blip2cli.sinks.settings import Settings, begin_settings, parquet_metadata
from blip2cli.sinks.settings_file import mark, marks


class FolderSink:
    """Writes a folder of parts."""

    def __init__(
        self,
        paths: OutputPaths,
        schema: RowSchema,
        settings: Settings,
        journal: Journal | None = None,
    ) -> None:
        """``journal`` is that of the output to append to, when a run resumes."""
        self._paths = paths
        self._settings = settings
        self._resumes = journal is not None
        self._schema = arrow_schema(schema, settings)
        self._rows = UncommittedRows(schema, self._schema)
        self._safe_rows = journal.rows if journal else 0
        self._disk = DiskGuard(paths.final, self._safe)

    def write(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Take rows; they are committed when they are many or old enough, or fill a part."""
        if not rows:
            with self._disk.errors():
                self._content.begin_empty()
        elif self._rows.add(rows) or len(self._rows) >= self._content.lacking:
            self.commit()

    def commit(self) -> None:
        if not self._rows:
            return
        table = self._rows.table()
        with self._disk.errors():
            self._content.check()
            self._content.append(table)
            self._rows.clear()
            self._safe_rows += table.num_rows
            self._content.show()

    def close(self) -> None:
        """Make the last part."""
        self.commit()
        with self._disk.errors():
            self._content.finish()

    def abort(self) -> None:
        """Commit if that can be done."""
        with contextlib.suppress(Exception):
            if not self._disk.failed:
                self.commit()

    @cached_property
    def _content(self) -> FolderContent:
        """Looked at when the first rows are there."""
        with self._disk.errors():
            content = FolderContent.open(self._paths, self._settings, self._schema, self._resumes)
            if self._resumes and content.rows != self._safe_rows:
                raise OSError(errno.ESTALE, "something else changed it since this run read it")
            return content

    def _safe(self) -> str:
        if not self._safe_rows:
            return "no row was written"
        return f"{self._safe_rows} rows are safe in it and in hidden files beside it"


class FolderContent:
    """The files of one folder output, to add rows to. All methods raise OSError."""

    def __init__(
        self, paths: OutputPaths, store: FolderStore, settings: Settings, schema: pa.Schema
    ) -> None:
        self._paths, self._store, self._settings = paths, store, settings
        self._schema = schema
        self.rows_per_group = group_rows(schema)
        self._layout = Layout(rows_per_part(settings), "")
        self._in_place = False  # settings say that there is such an output
        self.replaces = False  # another output has the place, and stays for now

    @classmethod
    def open(
        cls, paths: OutputPaths, settings: Settings, schema: pa.Schema, resumes: bool
    ) -> FolderContent:
        """Read the layout. ``resumes``: its journal was read, so it is sound.

        Raises FileExistsError for another output that must not be replaced.
        """
        content = cls(paths, open_store(paths), settings, schema)
        content._in_place = resumes
        before = marks(paths)
        replaces = not resumes or before.get("replaces") is True
        content._layout = layout = read_layout(content._store, settings, replaces)
        if not resumes:
            content.replaces = bool(layout.older or layout.leftovers)
            if content.replaces and not paths.replace:
                raise FileExistsError(errno.EEXIST, "rows of another run are there")
        return content

    @property
    def rows(self) -> int:
        """How many rows are committed."""
        return self._layout.rows

    @property
    def lacking(self) -> int:
        """How many rows the next part lacks."""
        layout = self._layout
        return (layout.next_part + 1) * layout.part_rows - layout.rows

    def begin_empty(self) -> None:
        """Put a part without rows in place, unless there is an output to replace or to go on."""
        if not (self.replaces or self._layout.parts or self._layout.rows):
            self.begin()
            self._make_part(0, 0)

    def begin(self) -> None:
        """Put a new output in place, without rows."""
        self._store.prepare()
        if not self._in_place:
            replaces = True if self._layout.older else None
            begin_settings(self._paths, self._settings, replaces=replaces)
            self._in_place, self.replaces = True, False
        self._tidy()

    def check(self) -> None:
        """Raise RunError when a file is no longer in its place."""
        gone = self._store.missing([piece.name for piece in self._layout.pieces()])
        if gone is not None:
            raise RunError(
                None,
                f"{self._store.shown(gone)!r}, which holds rows of {self._paths.final!r}, was "
                "moved or deleted while the run wrote it",
                f"put it back, and go on with {option('resume')}",
            )

    def append(self, table: pa.Table) -> None:
        """Commit rows: they are in a hidden file, and part of the output, when it returns."""
        if self._in_place or not self.replaces:
            self.begin()
            mark(self._paths, finished=None)
        layout = self._layout.with_hidden(table.num_rows)
        # Only hidden files hold the token: parts shall be the same bytes for the same rows.
        schema = self._schema.with_metadata(parquet_metadata(self._settings, self._settings.token))
        with (
            self._store.create(layout.hidden[-1].name) as file,
            parquet_writer(file, schema) as writer,
        ):
            writer.write_table(table.replace_schema_metadata(schema.metadata))
        self._layout = layout
        if not self._in_place:
            self.begin()

    def show(self, everything: bool = False) -> None:
        """Make parts as far as rows are there; with ``everything`` the last one, too."""
        while (layout := self._layout).rows > layout.visible and (everything or self.lacking <= 0):
            start = layout.next_part * layout.part_rows
            self._make_part(start, min(start + layout.part_rows, layout.rows))

    def finish(self) -> None:
        """Make the last part, and note that the output is finished."""
        self.begin()
        self.show(everything=True)
        if not self._layout.parts and self._schema.names:
            self._make_part(0, 0)  # so that readers know the columns
        mark(self._paths, finished=True)

    def _make_part(self, start: int, end: int) -> None:
        layout, rows = self._layout, self.rows_per_group
        self._store.remove(list(layout.older))
        mark(self._paths, replaces=None)
        grows = layout.next_part < len(layout.parts)
        with (
            self._store.create(part_name(layout.next_part), grows) as file,
            parquet_writer(file, self._schema) as writer,
        ):
            for group in row_groups(self._batches(start, end, rows), self._schema, rows):
                writer.write_table(group, row_group_size=len(group))
        self._layout = layout.with_part(end)
        self._tidy()

    def _tidy(self) -> None:
        self._store.remove(list(self._layout.leftovers))
        self._layout = replace(self._layout, leftovers=())

    def _batches(self, start: int, end: int, rows: int) -> Iterator[pa.RecordBatch]:
        for piece in self._layout.between(start, end):
            source, name = self._store.source(piece.name), self._store.shown(piece.name)
            skip, left = piece.skip, piece.end - piece.start
            for batch in read_batches(source, name, rows, self._schema):
                taken = batch.slice(skip, left)
                skip = max(0, skip - batch.num_rows)
                left -= taken.num_rows
                yield taken


def rows_per_part(settings: Settings | None) -> int:
    """How many rows a part of an output with these settings has."""
    count = settings.rows.get("rows_per_part") if settings is not None else None
    return count if isinstance(count, int) and count > 0 else ROWS_PER_PART


def read_layout(store: FolderStore, settings: Settings, replaces: bool) -> Layout:
    """The layout of what is stored. Raises LayoutError, OSError."""

    count = rows_per_part(settings)
    return layout_of(store.sizes(), count, settings.token, partial(count_rows, store), replaces)


def count_rows(store: FolderStore, name: str) -> int:
    """How many rows a file has. Raises LayoutError where it is damaged."""
    try:
        return int(pq.read_metadata(store.source(name)).num_rows)
    except ARROW_ERRORS as error:
        raise LayoutError(f"its part {name!r} cannot be read ({first_line(error)})") from None
