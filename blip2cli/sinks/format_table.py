"""The table of output formats.

A new format is an entry here, a writer of rows, and a reader of the rows that an output holds
already. Both are imported when they are used: pyarrow takes a while.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from blip2cli.sinks.base import RowSchema, Sink
    from blip2cli.sinks.journal import Journal, RowCount
    from blip2cli.sinks.paths import OutputPaths
    from blip2cli.sinks.settings import Settings


# Which types a carried column can get when more rows come: any, since all rows are written anew at
# the end; those that hold the numbers from before; none but its own, since files stay as they are.
ColumnTypes = Literal["any", "wider", "fixed"]


@dataclass(frozen=True)
class OutputFormat:
    """One format of outputs."""

    name: str
    suffixes: tuple[str, ...]  # of its files
    writer: str  # MODULE.NAME in this package: (paths, schema, settings, journal=) -> Sink
    journal: str  # likewise: (paths, row_count, inline_errors) -> Journal, None without an output
    types: ColumnTypes = "wider"

    def open_writer(
        self, paths: OutputPaths, schema: RowSchema, settings: Settings, journal: Journal | None
    ) -> Sink:
        """The writer of an output; ``journal`` is that of the output to append to."""
        sink: Sink = _load(self.writer)(paths, schema, settings, journal=journal)
        return sink

    def read_journal(
        self, paths: OutputPaths, row_count: RowCount, inline_errors: bool
    ) -> Journal | None:
        """The journal of an output; None without an output. Raises OutputError, OSError."""
        journal: Journal | None = _load(self.journal)(paths, row_count, inline_errors)
        return journal


def _load(name: str) -> Any:
    module, _, attribute = name.partition(".")
    return getattr(importlib.import_module(f"blip2cli.sinks.{module}"), attribute)


FOLDER = "FOLDER/"  # what stands for a suffix where the output is a folder

FORMATS = (
    OutputFormat(
        "JSON Lines", (".jsonl", ".jsonl.gz"), "jsonl.JsonlSink", "jsonl_journal.read_journal"
    ),
    OutputFormat(
        "Parquet",
        (".parquet",),
        "parquet.ParquetSink",
        "parquet_journal.read_journal",
        types="any",
    ),
    OutputFormat(
        "Parquet in parts",
        (FOLDER,),
        "folder.FolderSink",
        "folder_journal.read_journal",
        types="fixed",
    ),
)


def suffixes() -> tuple[str, ...]:
    """Those of all formats."""
    return tuple(suffix for format_ in FORMATS for suffix in format_.suffixes)


def known_suffix(out: str) -> str | None:
    """The known suffix that ``out`` ends in, in upper or lower case; the longest that fits.

    A folder that is there is one with or without a slash at its end.
    """
    if out.endswith("/") or os.path.isdir(out):
        return FOLDER
    fitting = [suffix for suffix in suffixes() if out.lower().endswith(suffix)]
    return max(fitting, key=len, default=None)


def format_of(out: str) -> OutputFormat:
    """The format of an output whose suffix is known (see ``check_output``)."""
    suffix = known_suffix(out)
    return next(format_ for format_ in FORMATS if suffix in format_.suffixes)
