"""Checks of what a conversion would write over, before anything is read."""

from __future__ import annotations

import os
from collections.abc import Sequence

from blip2cli.convert.detect_format import METADATA_NAMES
from blip2cli.convert.format_table import FORMATS
from blip2cli.errors import OptionError, OutputError, option
from blip2cli.options import ConvertOptions
from blip2cli.sinks.check_output import check_beside, check_place
from blip2cli.sinks.paths import OutputPaths


def check_paths(options: ConvertOptions, sources: Sequence[tuple[str, str]]) -> None:
    """Raise UserError for what is wrong with the output. ``sources`` are paths and formats."""
    if options.shard_size is not None and options.shard_size < 1:
        name = option("shard_size")
        raise OptionError("shard_size", f"{name} takes a positive number, not {options.shard_size}")
    out, write_as = options.destination, options.write_as or ""
    read = [path for source, kind in sources for path in _files(source, kind, METADATA_NAMES)]
    for path in _files(out, write_as, (f"metadata.{options.metadata}",)):
        if os.path.isfile(path) and any(_same(path, other) for other in read):
            raise OutputError(
                "destination",
                f"{path!r} is what is converted",
                "choose another name for the output",
            )
    for path in _files(out, write_as, ()):
        if path.lower().endswith((".jsonl", ".jsonl.gz")):
            check_beside(OutputPaths.of(path), "destination")
    if not FORMATS[write_as].folder and write_as != "webdataset":  # these know their files
        check_place(out, options.overwrite, field="destination")


def beside(options: ConvertOptions) -> list[str]:
    """Notes on what lies beside the output and is not part of it."""
    if options.write_as not in ("parquet", "image-parquet"):
        return []
    if not OutputPaths.of(options.destination).every_part():
        return []
    found = f"Beside {options.destination!r} are hidden rows of an unfinished run"
    return [f"{found}; {option('resume')} does not go on with them while this file is there."]


def _files(path: str, kind: str, metadata: Sequence[str]) -> list[str]:
    """The files that hold the rows of ``path``, apart from those of sidecars and indexes."""
    if kind == "imagefolder":
        return [os.path.join(path, name) for name in metadata]
    if kind == "npy":
        return [path, os.path.splitext(path)[0] + ".keys.jsonl"]
    return [path]


def _same(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False
