"""Check of a folder of Parquet parts, with the hidden files beside it."""

from __future__ import annotations

import os

import pyarrow.parquet as pq

from blip2cli.convert.base import read_errors
from blip2cli.convert.formats.parquet import ParquetReader
from blip2cli.convert.shares import shard_in
from blip2cli.convert.verify.finding import Finding, RowCheck
from blip2cli.convert.verify.tables import (
    check_beside,
    check_types,
    damaged_places,
    read_bytes,
)
from blip2cli.errors import UserError, option
from blip2cli.sinks.folder import read_layout
from blip2cli.sinks.folder_journal import folder_settings
from blip2cli.sinks.folder_layout import HIDDEN, VISIBLE, Layout, LayoutError, Piece
from blip2cli.sinks.folder_store import FolderStore, open_store
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.row_groups import ARROW_ERRORS, first_line
from blip2cli.sinks.settings import Settings, parquet_settings, read_settings
from blip2cli.sinks.settings_file import marks


def check_parts(path: str, finding: Finding) -> None:
    """Every page of every part, and their numbers, lengths and settings. Raises OSError."""
    paths = OutputPaths.of(path)
    store = open_store(paths)
    names, noted = sorted(store.sizes()), marks(paths)
    replaces = noted.get("replaces") is True
    layout: Layout | None = None
    settings: Settings | None = read_settings(paths)
    try:
        settings, _ = folder_settings(paths, store, names, replaces)
        layout = read_layout(store, settings, replaces)
        pieces = list(layout.pieces())
    except LayoutError as error:
        finding.damage(str(error), error.sound)
        pieces = [Piece(name, 0, -1) for name in names]
    rows = RowCheck(finding)
    rows.shard = shard_in(settings)
    for piece in pieces:
        _check_piece(store, piece, settings, finding, rows)
    rows.end(settings)
    if layout is not None and replaces:
        finding.notes.append(f"its {len(layout.older)} visible parts are of the run before")
    if settings is not None and noted.get("finished") is not True:
        known = "settings" in noted
        count = len(layout.hidden) if layout is not None else 0
        hidden = f", with rows in {count} hidden files" if count else ""
        unfinished = f"unfinished{hidden}: {option('resume')} goes on"
        finding.notes.append(unfinished if known else "whether its run was finished is not known")
    others = _others(paths)
    if others:
        finding.notes.append(f"it holds {len(others)} files of others, such as {others[0]!r}")
    check_beside(path, finding)


def _check_piece(
    store: FolderStore, piece: Piece, settings: Settings | None, finding: Finding, rows: RowCheck
) -> None:
    file, name = store.shown(piece.name), os.path.basename(store.shown(piece.name))
    try:
        with read_errors(file):
            about = pq.read_schema(file)
            count = pq.read_metadata(file).num_rows
        own = parquet_settings(about.metadata)
        token = settings.token if settings is not None and HIDDEN.fullmatch(piece.name) else ""
        if own is None or (settings and (own.token != token or not own.fits(settings))):
            finding.damage(f"{name} is of another run")
        expected = piece.skip + piece.end - piece.start
        if piece.start <= piece.end and count != expected:
            finding.damage(f"{name} has {count} rows, not {expected}")
        reader = ParquetReader(file, salvage=True)
        skip = piece.skip
        for batch in reader.pieces():
            rows.add([None if batch is None else batch.slice(skip)])
            skip = max(0, skip - batch.num_rows) if batch is not None else 0
        damaged_places(reader.damage, finding, f"{name}, ")
        check_types(reader.schema, finding)
        read_bytes(file, finding)
    except (UserError, *ARROW_ERRORS) as error:
        finding.damage(f"{name} cannot be read ({first_line(error)})")


def _others(paths: OutputPaths) -> list[str]:
    """What lies in the folder beside the parts."""
    names = os.listdir(paths.final) if os.path.isdir(paths.final) else []
    return sorted(name for name in names if not VISIBLE.fullmatch(name))
