"""Converts results into another format: ``convert``.

Rows pass from a reader to a writer in Arrow record batches, so memory stays flat.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from blip2cli.convert.detect_format import is_checkpoint, read_format, write_format
from blip2cli.convert.format_table import FORMATS, Format
from blip2cli.errors import SourceError
from blip2cli.options import ConvertOptions
from blip2cli.storage.opening import is_remote

if TYPE_CHECKING:
    import pyarrow as pa

    from blip2cli.convert.base import Reader, Schemas, Writer
    from blip2cli.convert.merge_failures import MergedFailures
    from blip2cli.convert.shares import Shares

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
    from blip2cli.convert.local_copies import local_copies
    from blip2cli.convert.merge import OutOfOrder
    from blip2cli.convert.merge_failures import check_failures, merged_failures
    from blip2cli.convert.shares import find_shares
    from blip2cli.sinks.base import disk_errors
    from blip2cli.sinks.lock import OutputLock

    start = time.monotonic()
    if any(is_remote(text) and text.endswith("/") for text in options.sources):
        with local_copies(options.sources) as copies:
            done = convert(replace(options, sources=tuple(copies.paths)), progress)
            done.notes = [*map(copies.named, done.notes)]
            return replace(done, seconds=time.monotonic() - start)
    for text in options.sources:
        if is_checkpoint(text) and options.read_as is None:
            raise SourceError(
                "sources",
                f"{text!r} is a checkpoint",
                "checkpoints are converted one at a time, and not with results",
            )
    paths, several = expand_sources(options.sources)
    shares, lacking = find_shares(options, paths)
    if shares is not None:
        paths = shares.paths
    sources = [one for path in paths for one in _sources(path, options)]
    write_as = write_format(options.destination, options.write_as).name
    options = replace(options, read_as=sources[0][1].name, write_as=write_as)
    check_paths(options, [(path, one.name) for path, one in sources])
    if shares is not None:
        check_failures(shares, options)
    safe = "nothing that was there was changed"
    with (
        OutputLock(options.destination) as lock,
        disk_errors(options.destination, safe),
        merged_failures(shares, options) as failures,
    ):
        lock.sweep()
        schemas: dict[str, pa.Schema] = {}
        unordered: set[str] = set()
        while True:
            try:
                rows, notes = _convert(
                    options, sources, schemas, progress, shares, unordered, failures
                )
                break
            except SchemaWidened as wider:  # that of the first rows was too narrow
                schemas[wider.path] = wider.schema
            except OutOfOrder as found:
                # Where a second one is, a run went on with all of them.
                unordered |= set(shares.paths) if unordered and shares else {found.path}
        notes += failures.notes
    missing = gaps([path for path, _ in sources]) if several or options.salvage else None
    notes += lacking if shares is not None else [missing] if missing else []
    notes += beside(options)
    return Converted(rows, time.monotonic() - start, notes)


def _sources(path: str, options: ConvertOptions) -> _Sources:
    """A file, or to salvage an unfinished output its parts. Raises SourceError or OptionError."""
    from blip2cli.sinks.paths import OutputPaths

    paths = None if is_remote(path) else OutputPaths.of(path)
    parts = paths.parts() if options.salvage and paths is not None and not paths.is_folder else []
    if parts:
        return [(part, FORMATS["parquet"]) for part in parts]
    return [(path, read_format(path, options.read_as))]


def _readers(
    options: ConvertOptions, sources: _Sources, schemas: Schemas
) -> tuple[list[Reader], list[str]]:
    """The readers, and to salvage several sources a sentence for each that cannot be read."""
    readers: list[Reader] = []
    unreadable: list[str] = []
    for path, one in sources:
        try:
            reader = one.load("open_reader")(path, replace(options, read_as=one.name), schemas)
        except SourceError as error:
            if not options.salvage or (path == sources[-1][0] and not readers):
                raise
            unreadable.append(f"Left out {path!r}: {error.problem}.")
        else:
            readers.append(reader)
    return readers, unreadable


def _convert(
    options: ConvertOptions,
    sources: _Sources,
    schemas: Schemas,
    progress: Progress | None,
    shares: Shares | None,
    unordered: set[str],
    failures: MergedFailures,
) -> tuple[int, list[str]]:
    """Convert all rows; their number, and the notes. Raises SchemaWidened, OutOfOrder."""
    from blip2cli.convert.check_paths import check_paths
    from blip2cli.convert.concat import ConcatenatedReader, Duplicates
    from blip2cli.convert.merge import MergedReader

    readers, notes = _readers(options, sources, schemas)
    reader: Reader = readers[0] if len(readers) == 1 else ConcatenatedReader(readers)
    if shares is not None:
        scratch = os.path.dirname(os.path.realpath(options.destination))
        to_folder = options.write_as == "parts"
        reader = MergedReader(readers, shares, unordered, scratch, to_folder)
    duplicates = Duplicates(reader.schema) if len(readers) > 1 and shares is None else None
    writer: Writer = FORMATS[options.write_as or ""].load("open_writer")(options, reader)
    rows = 0
    try:
        # What is in its place now may be replaced, what comes later is not (see ``AtomicFile``).
        check_paths(options, [(path, one.name) for path, one in sources])
        for batch in reader.batches():
            if duplicates is not None:
                duplicates.add(batch)
            writer.write(batch)
            rows += batch.num_rows
            if progress is not None:
                progress(reader.position(), reader.size)
        with failures.beside():
            writer.finish()
    except BaseException:
        writer.abort()
        raise
    notes += [*reader.notes, *writer.notes]
    if duplicates is not None and duplicates.found.count:
        notes.append(str(duplicates))
    return rows, notes
