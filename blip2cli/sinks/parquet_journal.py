"""Reads a Parquet output back: its part files if there are any, else the finished file."""

from __future__ import annotations

import functools
import os

import pyarrow as pa
import pyarrow.parquet as pq

from blip2cli.errors import OutputError, option
from blip2cli.sinks.journal import Journal, RowCount, RowNames
from blip2cli.sinks.parquet import merge, remove_parts
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings import Settings, parquet_settings
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
    names = RowNames(row_count)
    settings: Settings | None = None
    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                settings = settings or parquet_settings(file.schema_arrow.metadata)
                columns = [c for c in ("file_name", "error") if c in file.schema_arrow.names]
                for batch in file.iter_batches(batch_size=65536, columns=columns):
                    for row in batch.to_pylist():
                        failed = row.get("error") is not None
                        names.add(from_utf8(row["file_name"]), 0, failed)
        except (pa.ArrowException, KeyError, TypeError, IndexError, OSError) as error:
            raise OutputError(
                "resume",
                f"{option('resume')}: {path!r} cannot be read as rows of this tool "
                f"({' '.join(str(error).split())})",
                f"choose another name, or add {option('overwrite')} instead",
            ) from None
    complete = functools.partial(_complete, paths, parts)
    names.end()
    return Journal(names.done, names.rows, names.failed, settings, complete)


def _complete(paths: OutputPaths, parts: list[str]) -> None:
    if parts:
        merge(paths, parts, pq.read_schema(parts[0]))
    else:
        remove_parts(paths)
