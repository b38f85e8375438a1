"""Reading a Parquet output back: its parts if there are any, else the finished file."""

from __future__ import annotations

import functools
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq

from blip2cli.errors import OutputError
from blip2cli.nameset import NameSet
from blip2cli.sinks.journal import Journal, RowCount
from blip2cli.sinks.parquet import METADATA_KEY, merge, remove_parts
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.text import from_utf8


def read_parquet(paths: OutputPaths, row_count: RowCount) -> Journal | None:
    """The journal of a Parquet output; None when there is none. Raises OutputError for a file
    that is not ours.

    Parts hold whole images, so ``row_count`` is not needed.
    """
    parts = paths.parts()
    files = parts or ([paths.final] if os.path.exists(paths.final) else [])
    if not files:
        return None
    done, rows, settings = NameSet(), 0, None
    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                settings = settings or _settings(file.schema_arrow)
                rows += file.metadata.num_rows
                for batch in file.iter_batches(batch_size=65536, columns=["file_name"]):
                    for name in batch.column(0).to_pylist():
                        done.add(from_utf8(str(name)))
        except (pa.ArrowException, KeyError, TypeError, IndexError, OSError) as error:
            raise OutputError(
                f"--resume: {path!r} cannot be read as rows of this tool "
                f"({' '.join(str(error).split())}); choose another name, or add --overwrite "
                "instead."
            ) from None
    complete = functools.partial(_complete, paths, parts)
    return Journal(done, rows, settings, complete)


def _complete(paths: OutputPaths, parts: list[str]) -> None:
    if parts:
        merge(paths, parts, pq.read_schema(parts[0]))
    else:
        remove_parts(paths)


def _settings(schema: pa.Schema) -> dict[str, object] | None:
    try:
        settings = json.loads((schema.metadata or {})[METADATA_KEY])["settings"]
    except (ValueError, KeyError, TypeError):
        return None
    return settings if isinstance(settings, dict) else None
