"""Converts results into another format: ``convert``.

Rows pass from a reader to a writer in Arrow record batches, so memory stays flat.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from blip2cli.convert.detect_format import is_checkpoint, read_format, write_format
from blip2cli.convert.format_table import FORMATS, Format
from blip2cli.errors import SourceError
from blip2cli.options import ConvertOptions

if TYPE_CHECKING:
    import pyarrow as pa

    from blip2cli.convert.base import Reader, Schemas, Writer

Progress = Callable[[int, int], None]  # bytes read so far, bytes in all
_Sources = list[tuple[str, Format]]


@dataclass
class Converted:
    """What a conversion did."""

    rows: int
    seconds: float
    notes: list[str] = field(default_factory=list)


def convert(options: ConvertOptions, progress: Progress | None = None) -> Converted:
    """Convert ``options.sources`` into ``options.destination``.

    The output appears complete or not at all. Raises UserError for what is wrong with the options
    or the rows, RunError when the disk is full or failing.
    """
    from blip2cli.convert.base import SchemaWidened
    from blip2cli.convert.check_paths import beside, check_paths
    from blip2cli.convert.concat import expand_sources, gaps
    from blip2cli.sinks.base import disk_errors
    from blip2cli.sinks.lock import OutputLock

    start = time.monotonic()
    for text in options.sources:
        if is_checkpoint(text) and options.read_as is None:
            raise SourceError(
                "sources",
                f"{text!r} is a checkpoint",
                "checkpoints are converted one at a time, and not with results",
            )
    paths, several = expand_sources(options.sources)
    sources = [(path, read_format(path, options.read_as)) for path in paths]
    write_as = write_format(options.destination, options.write_as).name
    options = replace(options, read_as=sources[0][1].name, write_as=write_as)
    check_paths(options, [(path, one.name) for path, one in sources])
    safe = "nothing that was there was changed"
    with OutputLock(options.destination) as lock, disk_errors(options.destination, safe):
        lock.sweep()
        schemas: dict[str, pa.Schema] = {}
        while True:
            try:
                rows, notes = _convert(options, sources, schemas, progress)
                break
            except SchemaWidened as wider:  # that of the first rows was too narrow
                schemas[wider.path] = wider.schema
    missing = gaps(paths) if several else None
    notes += [*([missing] if missing else []), *beside(options)]
    return Converted(rows, time.monotonic() - start, notes)


def _convert(
    options: ConvertOptions, sources: _Sources, schemas: Schemas, progress: Progress | None
) -> tuple[int, list[str]]:
    """Convert all rows; their number, and the notes. Raises SchemaWidened."""
    from blip2cli.convert.concat import ConcatenatedReader, Duplicates

    readers: list[Reader] = [
        one.load("open_reader")(path, replace(options, read_as=one.name), schemas)
        for path, one in sources
    ]
    reader = readers[0] if len(readers) == 1 else ConcatenatedReader(readers)
    duplicates = Duplicates(reader.schema) if len(readers) > 1 else None
    writer: Writer = FORMATS[options.write_as or ""].load("open_writer")(options, reader)
    rows = 0
    try:
        for batch in reader.batches():
            if duplicates is not None:
                duplicates.add(batch)
            writer.write(batch)
            rows += batch.num_rows
            if progress is not None:
                progress(reader.position(), reader.size)
        writer.finish()
    except BaseException:
        writer.abort()
        raise
    notes = [*reader.notes, *writer.notes]
    if duplicates is not None and duplicates.found.count:
        notes.append(str(duplicates))
    return rows, notes
