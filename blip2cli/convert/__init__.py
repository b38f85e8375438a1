"""Results into other formats and back: ``blip2cli convert``.

A format is one file with ``read(path, options, schema)`` and ``write(options, reader)``, or one of
them, and a line in :data:`FORMATS`. Rows pass in Arrow record batches, so memory stays flat.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from blip2cli.convert.options import ConvertOptions
from blip2cli.convert.paths import is_checkpoint, read_format, write_format
from blip2cli.errors import OptionError, OutputError, SourceError

if TYPE_CHECKING:
    import pyarrow as pa

    from blip2cli.convert.formats.base import Reader, Writer

__all__ = ["FORMATS", "ConvertOptions", "Converted", "Format", "convert"]

Progress = Callable[[int, int], None]  # bytes read so far, bytes in all


@dataclass(frozen=True)
class Format:
    """One format: the module that reads and writes it, and how its paths look."""

    module: str  # in this package; imported when it is used
    suffixes: tuple[str, ...] = ()
    readable: bool = True
    folder: bool = False  # the output is a folder

    def part(self, name: str) -> Any:
        """``read`` or ``write`` of the module."""
        return getattr(importlib.import_module(f"blip2cli.convert.formats.{self.module}"), name)


FORMATS: dict[str, Format] = {
    "jsonl": Format("jsonl", (".jsonl", ".jsonl.gz")),
    "parquet": Format("parquet", (".parquet",)),
    "csv": Format("delimited", (".csv",)),
    "tsv": Format("delimited", (".tsv",)),
    "imagefolder": Format("imagefolder", folder=True),
    "sidecar": Format("sidecar", folder=True),
    "coco": Format("coco", readable=False),
    "vqa": Format("coco", readable=False),
    "llava": Format("llava", readable=False),
    "webdataset": Format("webdataset", (".tar",), readable=False),
    "image-parquet": Format("image_parquet", readable=False),
    "npy": Format("npy", (".npy",)),
    "clip-retrieval": Format("clip_retrieval", folder=True),
}


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
    from blip2cli.convert.merge import expanded
    from blip2cli.sinks.base import disk_errors
    from blip2cli.sinks.lock import OutputLock

    began = time.monotonic()
    for text in options.sources:
        if is_checkpoint(text) and options.read_as is None:
            raise SourceError(
                f"{text!r} is a checkpoint; checkpoints are converted one at a time, and not with "
                "results."
            )
    paths, several = expanded(options.sources)
    kinds = [read_format(path, options.read_as, FORMATS) for path in paths]
    options = replace(
        options,
        read_as=kinds[0],
        write_as=write_format(options.destination, options.write_as, FORMATS),
    )
    _check(options, paths)
    safe = "nothing that was there was changed"
    with OutputLock(options.destination), disk_errors(options.destination, safe):
        notes: list[str] = []
        rows = _converted(options, list(zip(paths, kinds, strict=True)), notes, progress)
    if several:
        from blip2cli.convert.merge import gaps

        missing = gaps(paths)
        notes += [missing] if missing else []
    return Converted(rows, time.monotonic() - began, notes)


def _converted(
    options: ConvertOptions,
    sources: list[tuple[str, str]],
    notes: list[str],
    progress: Progress | None,
) -> int:
    """The number of rows converted; begins anew where the first rows told the wrong types."""
    from blip2cli.convert.formats.base import Widened

    told: dict[str, pa.Schema] = {}
    while True:
        try:
            reader = _reader(options, sources, told)
            return _copied(options, reader, len(sources) > 1, notes, progress)
        except Widened as wider:
            told[wider.path] = wider.schema


def _reader(
    options: ConvertOptions, sources: list[tuple[str, str]], told: dict[str, pa.Schema]
) -> Reader:
    from blip2cli.convert.merge import Merged

    readers: list[Reader] = [
        FORMATS[kind].part("read")(path, replace(options, read_as=kind), told)
        for path, kind in sources
    ]
    return readers[0] if len(readers) == 1 else Merged(readers)


def _copied(
    options: ConvertOptions,
    reader: Reader,
    merged: bool,
    notes: list[str],
    progress: Progress | None,
) -> int:
    from blip2cli.convert.merge import Doubles

    doubles = Doubles(reader.schema) if merged else None
    writer: Writer = FORMATS[options.write_as or ""].part("write")(options, reader)
    rows = 0
    try:
        for batch in reader.batches():
            if doubles is not None:
                doubles.look(batch)
            writer.write(batch)
            rows += batch.num_rows
            if progress is not None:
                progress(reader.position(), reader.size)
        writer.finish()
    except BaseException:
        writer.abort()
        raise
    notes += [*reader.notes, *writer.notes]
    if doubles is not None and doubles.found.count:
        notes.append(str(doubles))
    return rows


def _check(options: ConvertOptions, paths: list[str]) -> None:
    """Raise UserError for what is wrong with the output, before anything is read."""
    from blip2cli.sinks.check_output import check_place

    if options.shard_size is not None and options.shard_size < 1:
        raise OptionError(f"--shard-size takes a positive number, not {options.shard_size}.")
    out = options.destination
    folder = FORMATS[options.write_as or ""].folder
    if not folder and os.path.exists(out) and any(os.path.samefile(p, out) for p in paths):
        raise OutputError(f"{out!r} is what is converted; choose another name for the output.")
    if folder or options.write_as == "webdataset":
        return  # the format itself knows which of its files may be there
    check_place(out, options.overwrite)
