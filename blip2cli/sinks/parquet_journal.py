"""Reads a Parquet output back: its part files if there are any, else the finished file."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from blip2cli.errors import OutputError, option
from blip2cli.sinks.journal import Journal, RowCount, RowKeys, damaged
from blip2cli.sinks.parquet import merge, remove_parts
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.row_groups import ARROW_ERRORS, first_line, group_rows
from blip2cli.sinks.settings import (
    Settings,
    parquet_metadata,
    parquet_settings,
    read_settings,
)
from blip2cli.sinks.settings_file import is_replaced
from blip2cli.storage.hash_set import OCCURRENCE, occurrence_key
from blip2cli.storage.text_encoding import from_utf8


def read_journal(
    paths: OutputPaths, row_count: RowCount, inline_errors: bool = False
) -> Journal | None:
    """The journal of a Parquet output; None without one. Raises OutputError for a file that is
    not ours.

    Parts hold all rows of an image, and rows say whether they are failures, so only the files
    themselves count.
    """
    parts = paths.parts()
    files = parts or ([paths.final] if os.path.exists(paths.final) else [])
    if not files:
        return None
    _check_place(paths, parts)
    settings = _settings(paths, files[-1])  # that say how rows were made last
    keys = RowKeys(row_count, settings)
    for path in files:
        try:
            about = parquet_settings(pq.read_schema(path).metadata)
            for found, failed in _rows(path):
                add_rows(keys, found, failed)
        except ARROW_ERRORS as error:
            problem = f"{path!r} cannot be read as rows of this tool ({first_line(error)})"
            raise damaged(paths.final, keys.rows, problem) from None
        # A part without a token is the output that was finished before.
        token = about.token if about is not None else ""
        if token and settings is not None and token != settings.token:
            raise damaged(paths.final, keys.rows, f"its part {path!r} is of another run")
    keys.end()
    if not parts:
        _check_leftovers(paths, keys)
    complete = functools.partial(_complete, paths, parts)
    lacking = keys.lacking or keys.unfinished
    remark = _missing(paths, parts)
    return Journal(keys.done, keys.rows, keys.failed, settings, lacking, remark, complete)


def _check_place(paths: OutputPaths, parts: list[str]) -> None:
    """Raise OutputError for a file in the place of the output that is not made of ``parts``.

    It may be the first of them, or all, merged before a crash (see ``merge``, which compares all
    of it).
    """
    try:
        rows = [pq.read_metadata(part).num_rows for part in parts]
        if not rows or is_replaced(paths):
            return
        if pq.read_metadata(paths.final).num_rows in (rows[0], sum(rows)):
            return
    except FileNotFoundError:
        return
    except ARROW_ERRORS:
        if not os.path.exists(paths.final):
            return  # of the parts one is damaged, which reading them says
    raise OutputError(
        "resume",
        f"{option('resume')}: {paths.final!r} is not made of the hidden rows beside it; they "
        f"are of an unfinished run ({parts[0]!r} and so on)",
        "move one of them away, or choose another name",
    )


def _missing(paths: OutputPaths, parts: list[str]) -> str | None:
    """A remark about the parts that are missing among ``parts``."""
    count = 0
    while parts and paths.part(count) != parts[-1]:
        if paths.part(count) not in parts:
            return (
                f"{paths.part(count)!r}, a part of this output, is missing; images that had their "
                "rows there are run again"
            )
        count += 1
    return None


def _rows(path: str) -> Iterator[tuple[Sequence[str], Sequence[bool] | None]]:
    """The keys of a file's rows, and which are failures, many together as ``row_keys`` says."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        # All but vectors are read, for their checksums: damage is found though nothing is added.
        small = [f.name for f in file.schema_arrow if not pa.types.is_fixed_size_list(f.type)]
        for batch in file.iter_batches(batch_size=65536, columns=small):
            yield row_keys(batch)


def row_keys(rows: pa.RecordBatch) -> tuple[Sequence[str], Sequence[bool] | None]:
    """The keys of rows, and which are failures; None where none is. Raises KeyError."""
    columns: Any = {
        name: rows.column(name).to_pylist()
        for name in (OCCURRENCE, "error")
        if name in rows.schema.names
    }
    names: Any = rows.column("file_name")
    escaped = pc.any(pc.match_substring(names, "\\u")).as_py()
    keys = names.to_pylist()
    if escaped:
        keys = [*map(from_utf8, keys)]
    if OCCURRENCE in columns:
        keys = [*map(occurrence_key, keys, columns[OCCURRENCE])]
    failed = [*map(bool, columns.get("error", ()))]
    return keys, failed if any(failed) else None


def add_rows(keys: RowKeys, found: Sequence[str], failed: Sequence[bool] | None) -> None:
    """Add what ``row_keys`` found."""
    if failed is None:
        keys.add_all(found, 0, lambda: [0] * len(found))
    else:
        for key, error in zip(found, failed, strict=True):
            keys.add(key, 0, error)


def _check_leftovers(paths: OutputPaths, keys: RowKeys) -> None:
    """Raise OutputError for parts whose rows are not in the finished file, so not left over."""
    for path in paths.every_part():
        try:
            merged = all(all(keys.done.contains(found)) for found, _ in _rows(path))
        except ARROW_ERRORS:
            continue  # nothing can be had from it
        if not merged:
            problem = f"its part {paths.part(0)!r} is missing, and {path!r} holds other rows"
            raise damaged(paths.final, keys.rows, problem)


def _settings(paths: OutputPaths, path: str) -> Settings | None:
    """The settings beside the output if they are those of the file ``path``, else its own.

    A file that cannot be read has none; reading its rows says why.
    """
    try:
        own = parquet_settings(pq.read_schema(path).metadata)
    except ARROW_ERRORS:
        return None
    beside = read_settings(paths)
    if own is None or beside is None:
        return own
    same = own.token == beside.token if own.token else own.fits(beside)
    return beside if same else own


def _complete(paths: OutputPaths, parts: list[str]) -> None:
    if parts:
        schema = pq.read_schema(parts[-1])
        schema = schema.with_metadata(parquet_metadata(parquet_settings(schema.metadata)))
        merge(paths, parts, schema, group_rows(schema))
    else:
        remove_parts(paths)
