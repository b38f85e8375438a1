"""Reads a folder of Parquet parts back: its visible parts, and the hidden files behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from blip2cli.sinks.folder import FolderContent, read_layout
from blip2cli.sinks.folder_layout import HiddenRows, LayoutError, Piece
from blip2cli.sinks.folder_store import FolderStore, open_store
from blip2cli.sinks.journal import Journal, RowCount, RowKeys, damaged
from blip2cli.sinks.parquet_journal import add_rows, row_keys
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.row_groups import ARROW_ERRORS, first_line
from blip2cli.sinks.settings import (
    Settings,
    parquet_metadata,
    parquet_settings,
    read_settings,
)
from blip2cli.sinks.settings_file import marks
from blip2cli.storage.hash_set import OCCURRENCE


def read_journal(
    paths: OutputPaths, row_count: RowCount, inline_errors: bool = False
) -> Journal | None:
    """The journal of a folder output; None without one. Raises OutputError for one that is
    damaged, OSError.
    """
    store = open_store(paths)
    found = sorted(store.sizes())
    if not found and read_settings(paths) is None:
        return None
    keys = RowKeys(row_count)
    try:
        replaces = marks(paths).get("replaces") is True
        settings, schema = folder_settings(paths, store, found, replaces)
        layout = read_layout(store, settings, replaces)
        keys = RowKeys(row_count, settings)
        for piece in layout.pieces():
            try:
                for new, failed in keys_of(store, piece, settings):
                    add_rows(keys, new, failed)
            except ARROW_ERRORS as error:
                if isinstance(error, LayoutError):
                    raise
                reason = f"its part {piece.name!r} cannot be read ({first_line(error)})"
                raise LayoutError(reason) from None
    except LayoutError as error:
        raise damaged(paths.final + "/", keys.rows, str(error)) from None
    keys.end()
    complete = partial(complete_folder, paths, settings, schema)
    lacking = keys.lacking or keys.unfinished
    return Journal(keys.done, keys.rows, keys.failed, settings, lacking, None, complete)


def folder_settings(
    paths: OutputPaths, store: FolderStore, names: list[str], replaces: bool = False
) -> tuple[Settings, pa.Schema | None]:
    """The settings of the output with these files, and the columns of its rows if it has any.

    They are those beside it, else what its files say of themselves. ``replaces``: visible parts are
    of an older output. Raises LayoutError.
    """
    beside = read_settings(paths)
    parts = [name for name in names if HiddenRows.of(name) is None and not replaces]
    hidden = [name for name in names if HiddenRows.of(name) is not None]
    for name in reversed(parts + hidden):  # hidden ones are the latest
        try:
            schema = pq.read_schema(store.source(name))
        except ARROW_ERRORS as error:
            raise LayoutError(f"its part {name!r} cannot be read ({first_line(error)})") from None
        own = parquet_settings(schema.metadata)
        if own is None or (beside is not None and own.token not in ("", beside.token)):
            continue
        same = beside is not None and (own.token or own.fits(beside))
        return (beside if same and beside is not None else own), schema
    if beside is None:
        raise LayoutError("its settings are not known")
    return beside, None


def keys_of(
    store: FolderStore, piece: Piece, settings: Settings
) -> Iterator[tuple[Sequence[str], Sequence[bool] | None]]:
    """The keys of the rows of one file, and which are failures; None where none is.

    Raises LayoutError for a file of another run or with another number of rows, Arrow's errors.
    Only names are read: what the pages of other columns hold is looked at when they are copied, and
    by ``verify``.
    """
    hidden = HiddenRows.of(piece.name)
    with pq.ParquetFile(store.source(piece.name), page_checksum_verification=True) as file:
        schema = file.schema_arrow
        own = parquet_settings(schema.metadata)
        token = settings.token if hidden else ""
        if own is None or own.token != token or not own.fits(settings):
            raise LayoutError(f"its part {piece.name!r} is of another run")
        expected = hidden.count if hidden else piece.end - piece.start
        if file.metadata.num_rows != expected:
            count = file.metadata.num_rows
            raise LayoutError(f"its part {piece.name!r} has {count} rows, not {expected}")
        columns = [c for c in ("file_name", OCCURRENCE, "error") if c in schema.names]
        skip = piece.skip
        for batch in file.iter_batches(batch_size=1 << 17, columns=columns):
            yield row_keys(batch.slice(skip))
            skip = max(0, skip - batch.num_rows)


def complete_folder(paths: OutputPaths, settings: Settings, schema: pa.Schema | None) -> None:
    """Make the last part, and note that the output is finished. Raises OSError."""
    schema = (schema or pa.schema([])).with_metadata(parquet_metadata(settings))
    FolderContent.open(paths, settings, schema, resumes=True).finish()
